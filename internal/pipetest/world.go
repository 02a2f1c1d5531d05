package pipetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/deadletter"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// world is what is around the pipeline of one test: where its messages come from, where they go, and its time.
type world struct {
	suite   *suite
	test    *test
	clock   *virtual
	pending atomic.Int64 // timers of plugins
	logger  *slog.Logger
	feeds   map[string]*feed
	sinks   map[string]*recorder
	streams map[string]*recorder // those that the test expects something of, and that are no sinks
	graves  graves

	mu     sync.Mutex
	calls  map[*call]struct{} // of handlers, under way
	faults []string           // uses of bytes that were lent
}

// epoch is when each test begins.
func epoch() time.Time { return time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) }

func newWorld(s *suite, t *test) *world {
	w := &world{
		suite: s, test: t, clock: &virtual{now: epoch()}, logger: slog.New(slog.DiscardHandler), feeds: map[string]*feed{},
		sinks: map[string]*recorder{}, streams: map[string]*recorder{}, calls: map[*call]struct{}{},
	}
	for _, name := range s.sources {
		w.feeds[name] = &feed{wake: make(chan struct{}, 1), settled: map[uint64]bool{}}
	}
	return w
}

// build makes the pipeline. Its plugins are as in production; nothing else of it is.
func (w *world) build() (penstock.Pipeline, error) {
	p, err := w.replaced().Pipeline(config.Build{Logger: w.logger, Clock: w.clock})
	if err != nil {
		return p, err
	}
	for i := range p.Plugins {
		g := &p.Plugins[i]
		name, create := g.Name, g.New
		g.New = func() (penstock.Handler, error) { return w.player(name, create) }
	}
	for _, o := range w.test.out {
		if slices.Contains(w.suite.sinks, o.name) || w.streams[o.name] != nil {
			continue
		}
		// No name of a file has a colon, so this one is free.
		p.Sinks = append(p.Sinks, penstock.Sink{Name: "expect:" + o.name, From: []string{o.name}, To: w.record(o.name, w.streams)})
	}
	p.DeadLetters, p.Strict, p.Linger = &w.graves, true, false
	return p, nil
}

// record makes a recorder.
func (w *world) record(name string, in map[string]*recorder) *recorder {
	r := &recorder{}
	in[name] = r
	return r
}

// got is what was recorded of what a test calls by that name: of the sink, or else of the stream.
func (w *world) got(name string) (messages []message, more int) {
	r := w.sinks[name]
	if r == nil {
		r = w.streams[name]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages), r.more
}

// message is a message that has reached a recorder.
type message struct {
	payload []byte
	key     string
	headers []header
	form    form // of payload, once it is compared
}

// recorder is a sink that keeps what it gets.
type recorder struct {
	mu       sync.Mutex
	messages []message
	bytes    int
	more     int // beyond what is kept
}

var _ sink.Sink = (*recorder)(nil)

// Bounds on what a recorder keeps: a plugin that emits for ever shall not take all memory.
const (
	maxRecords = 100_000
	maxBytes   = 256 << 20
)

// Open implements sink.Sink.
func (*recorder) Open(context.Context, sink.Env) error { return nil }

// Write implements sink.Sink.
func (r *recorder) Write(_ context.Context, b *sink.Batch) error {
	r.mu.Lock()
	for i := range b.Len() {
		if len(r.messages) >= maxRecords || r.bytes >= maxBytes {
			r.more++
			continue
		}
		m := message{payload: bytes.Clone(b.Payload(i)), key: string(b.Key(i)), headers: unpack(b.Headers(i))}
		r.messages = append(r.messages, m)
		r.bytes += len(m.payload)
	}
	r.mu.Unlock()
	b.Done(0, b.Len(), nil)
	return nil
}

// Flush implements sink.Sink.
func (*recorder) Flush(context.Context) error { return nil }

// Close implements sink.Sink.
func (*recorder) Close(context.Context) error { return nil }

// unpack takes a header block apart.
func unpack(block []byte) (out []header) {
	for name, value, rest, ok := arena.NextHeader(block); ok; name, value, rest, ok = arena.NextHeader(rest) {
		out = append(out, header{string(name), string(value)})
	}
	return out
}

// graves keeps dead letters in memory.
type graves struct {
	mu      sync.Mutex
	letters []deadletter.Letter
}

var _ deadletter.Store = (*graves)(nil)

// Put implements deadletter.Store.
func (g *graves) Put(_ context.Context, letters []deadletter.Letter) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range letters {
		l.Payload, l.Key, l.Headers = bytes.Clone(l.Payload), bytes.Clone(l.Key), nil
		if len(g.letters) < maxRecords {
			g.letters = append(g.letters, l)
		}
	}
	return nil
}

// Close implements deadletter.Store.
func (*graves) Close() error { return nil }

// all is the letters so far.
func (g *graves) all() []deadletter.Letter {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.letters)
}

// feed is a source that gives what a test puts in, each message as one read, and ends when it is told to.
type feed struct {
	mu      sync.Mutex
	queue   []*step
	given   []*step // receipt-1 is the place in it
	settled map[uint64]bool
	closed  bool
	wake    chan struct{} // one token: look again
	runs    atomic.Bool   // Run has been called
}

var _ source.Source = (*feed)(nil)

// push puts a message in.
func (f *feed) push(s *step) {
	f.mu.Lock()
	f.queue = append(f.queue, s)
	f.mu.Unlock()
	f.tell()
}

// end lets the source end when it has given all.
func (f *feed) end() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.tell()
}

func (f *feed) tell() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// unsettled is the messages that are not settled, or not even taken, in order.
func (f *feed) unsettled() (out []*step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.given {
		if !f.settled[uint64(i)+1] {
			out = append(out, s)
		}
	}
	return append(out, f.queue...)
}

// Run implements source.Source.
func (f *feed) Run(ctx context.Context, in source.Intake) error {
	f.runs.Store(true)
	for {
		f.mu.Lock()
		waiting, closed := len(f.queue), f.closed
		f.mu.Unlock()
		if waiting == 0 {
			if closed {
				return nil
			}
			select {
			case <-f.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := in.Ready(ctx); err != nil {
			return err
		}
		f.mu.Lock()
		s := f.queue[0]
		f.queue = f.queue[1:]
		f.given = append(f.given, s)
		receipt := uint64(len(f.given))
		if most := in.Env().MaxBytes; len(s.payload) > most {
			f.settled[receipt] = true
			f.mu.Unlock()
			in.Report(fmt.Errorf("a message of %d bytes is larger than max_message, %d", len(s.payload), most))
			continue
		}
		f.mu.Unlock()
		if err := give(ctx, in, s, receipt); err != nil {
			return err
		}
	}
}

// give hands a message over.
func give(ctx context.Context, in source.Intake, s *step, receipt uint64) error {
	mem := bytes.Clone(s.payload)
	frame := arena.Frame{Len: uint32(len(mem)), KeyOff: uint32(len(mem)), KeyLen: uint32(len(s.key))}
	mem = append(mem, s.key...)
	frame.HdrOff = uint32(len(mem))
	for _, h := range s.headers {
		mem = arena.AppendHeader(mem, h.name, []byte(h.value))
	}
	frame.HdrLen = uint32(len(mem)) - frame.HdrOff
	slab, err := in.Account().LeaseSized(max(len(mem), 1))
	for ; errors.Is(err, arena.ErrBudget); slab, err = in.Account().LeaseSized(max(len(mem), 1)) {
		if err := in.Account().Wait(ctx); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	copy(slab.Bytes(), mem)
	b := in.NewBatch()
	b.Slab, b.Frames, b.Receipts = slab, append(b.Frames, frame), append(b.Receipts, receipt)
	return in.Accept(b)
}

// Settle implements source.Source.
func (f *feed) Settle(s source.Settlement) {
	if s.Outcome != source.Settled {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range s.Receipts {
		f.settled[r] = true
	}
}

// Close implements source.Source.
func (*feed) Close(context.Context) error { return nil }
