package penstock_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/deadletter"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errNo = errors.New("no")

// list is a source that gives batches of messages, and then ends, fails, or stays.
type list struct {
	batches [][]string
	headers []byte // of every message
	err     error  // with which it ends
	stay    bool   // until its context ends
	endless bool   // the batches again and again

	mu          sync.Mutex
	given       uint64
	settled     []uint64
	returned    int
	cursor      uint64
	checkpoints int
	closed      int
}

var (
	_ source.Source       = (*list)(nil)
	_ source.Checkpointer = (*list)(nil)
)

func (l *list) Run(ctx context.Context, in source.Intake) error {
	for again := true; again; again = l.endless {
		for _, messages := range l.batches {
			if err := in.Ready(ctx); err != nil {
				return err
			}
			if err := l.give(ctx, in, messages); err != nil {
				return err
			}
		}
	}
	if l.stay {
		<-ctx.Done()
	}
	return l.err
}

func (l *list) give(ctx context.Context, in source.Intake, messages []string) error {
	size := 1
	for _, m := range messages {
		size += len(m) + len(l.headers)
	}
	slab, err := in.Account().LeaseSized(size)
	for errors.Is(err, arena.ErrBudget) {
		if err := in.Account().Wait(ctx); err != nil {
			return err
		}
		slab, err = in.Account().LeaseSized(size)
	}
	if err != nil {
		return err
	}
	b := in.NewBatch()
	b.Slab = slab
	at := 0
	l.mu.Lock()
	for _, m := range messages {
		f := arena.Frame{Off: uint32(at), Len: uint32(copy(slab.Bytes()[at:], m))}
		at += len(m)
		f.HdrOff, f.HdrLen = uint32(at), uint32(copy(slab.Bytes()[at:], l.headers))
		at += len(l.headers)
		b.Frames = append(b.Frames, f)
		l.given++
		b.Receipts = append(b.Receipts, l.given)
	}
	l.mu.Unlock()
	return in.Accept(b)
}

func (l *list) Settle(s source.Settlement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Outcome == source.Returned {
		l.returned += len(s.Receipts)
		return
	}
	l.settled = append(l.settled, s.Receipts...)
	if s.HasCursor {
		l.cursor = s.Cursor
	}
}

func (l *list) Checkpoint(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checkpoints++
	return nil
}

func (l *list) Close(context.Context) error { l.closed++; return nil }

// all checks that each message was settled once, and the source closed.
func (l *list) all(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.settled)
	for i, r := range l.settled {
		if r != uint64(i+1) {
			t.Fatalf("settled %v", l.settled)
		}
	}
	if len(l.settled) != int(l.given) || l.cursor != l.given || l.closed != 1 {
		t.Errorf("%d of %d settled, cursor at %d, closed %d times", len(l.settled), l.given, l.cursor, l.closed)
	}
}

func (l *list) figures() (given, settled int, cursor uint64) {
	synctest.Wait()
	return l.now()
}

func (l *list) now() (given, settled int, cursor uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.given), len(l.settled), l.cursor
}

// keep is a sink that keeps what it gets.
type keep struct {
	mu   sync.Mutex
	list []string
}

func (k *keep) Open(context.Context, sink.Env) error { return nil }

func (k *keep) Write(_ context.Context, b *sink.Batch) error {
	k.mu.Lock()
	for i := range b.Len() {
		k.list = append(k.list, string(b.Payload(i)))
	}
	k.mu.Unlock()
	b.Done(0, b.Len(), nil)
	return nil
}

func (k *keep) Flush(context.Context) error { return nil }

func (k *keep) Close(context.Context) error { return nil }

func (k *keep) want(t *testing.T, want ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	slices.Sort(k.list)
	slices.Sort(want)
	if !slices.Equal(k.list, want) {
		t.Errorf("the sink has %q, want %q", k.list, want)
	}
}

// store is dead letters in memory.
type store struct {
	mu      sync.Mutex
	letters []deadletter.Letter
	err     error
}

func (s *store) Put(_ context.Context, letters []deadletter.Letter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.letters = append(s.letters, letters...)
	}
	return s.err
}

func (s *store) Close() error { return nil }

// function is a plugin's New for a function.
func function(f func(ctx context.Context, m *penstock.Message) error) func() (penstock.Handler, error) {
	return func() (penstock.Handler, error) { return handler(f), nil }
}

type handler func(ctx context.Context, m *penstock.Message) error

func (h handler) Handle(ctx context.Context, m *penstock.Message) error { return h(ctx, m) }

func ignore(context.Context, *penstock.Message) error { return nil }

// forward emits what it gets, with its own name behind it.
func forward(name, to string) penstock.Plugin {
	return penstock.Plugin{Name: name, Emits: []string{to}, New: function(func(_ context.Context, m *penstock.Message) error {
		return m.Emit(to, append(bytes.Clone(m.Payload()), name...))
	})}
}

func from(p penstock.Plugin, streams ...string) penstock.Plugin {
	p.From = streams
	return p
}

// prepare makes a pipeline that writes to a directory of the test and logs to buf.
func prepare(t *testing.T, p penstock.Pipeline) (*penstock.Runtime, *bytes.Buffer) {
	t.Helper()
	var buf bytes.Buffer
	p.Logger = slog.New(slog.NewTextHandler(&buf, nil))
	if p.Data == "" {
		p.Data = t.TempDir()
	}
	rt, err := penstock.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return rt, &buf
}

// whole runs a pipeline to its end.
func whole(t *testing.T, p penstock.Pipeline) penstock.Summary {
	t.Helper()
	rt, _ := prepare(t, p)
	s, err := rt.Run(t.Context())
	if err != nil {
		t.Error(err)
	}
	return s
}

// start runs a pipeline in a goroutine. The returned function ends it and waits.
func start(t *testing.T, rt *penstock.Runtime) (stop func() (penstock.Summary, error)) {
	ctx, cancel := context.WithCancel(t.Context())
	var s penstock.Summary
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { s, err = rt.Run(ctx) })
	return func() (penstock.Summary, error) {
		cancel()
		wg.Wait()
		return s, err
	}
}
