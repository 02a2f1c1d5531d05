package penstock

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/deadletter"
	"github.com/penstock-dev/penstock/loop"
)

// burial is a message on its way to the dead letters. The batch stays until the loop has been told.
type burial struct {
	in       *intake
	unit     loop.UnitID
	consumer *consumer
	batch    *arena.Batch
	letter   loop.Letter
}

// letters writes dead letters from a goroutine of its own, as many at a time as have gathered: one fsync serves them all. How many can
// wait is bounded by what sources may have unsettled.
type letters struct {
	rt    *Runtime
	store deadletter.Store // nil until the first letter
	ours  bool             // opened by us, so closed by us

	mu     sync.Mutex
	err    error           // of the last Put; nil if it succeeded
	told   time.Time       // when err was logged last
	known  map[string]bool // plugins and sinks of which a letter has been logged; the goroutine's
	queue  []burial
	wake   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// lettersAtOnce bounds one Put.
const lettersAtOnce = 256

func (l *letters) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.done.Go(func() { l.serve(ctx) })
}

// stop ends the goroutine. What has not been written was not settled.
func (l *letters) stop() error {
	l.cancel()
	l.done.Wait()
	for _, b := range l.queue {
		b.in.driver.Post(loop.Event{Kind: loop.Buried, Unit: b.unit, Detail: &loop.Detail{Err: context.Canceled}})
	}
	if l.ours {
		return l.store.Close()
	}
	return nil
}

func (l *letters) add(b burial) {
	l.mu.Lock()
	l.queue = append(l.queue, b)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *letters) serve(ctx context.Context) {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		for {
			l.mu.Lock()
			n := min(len(l.queue), lettersAtOnce)
			batch := append([]burial(nil), l.queue[:n]...)
			l.queue = append(l.queue[:0], l.queue[n:]...)
			l.mu.Unlock()
			if n == 0 {
				break
			}
			l.bury(ctx, batch)
		}
	}
}

// put makes letters of a batch and writes them.
func (l *letters) put(ctx context.Context, batch []burial) error {
	if l.store == nil {
		store, err := deadletter.Open(deadletter.Config{Path: deadletter.Path(l.rt.p.Data), Logger: l.rt.p.Logger})
		if err != nil {
			l.failed(err)
			return err
		}
		l.store, l.ours = store, true
	}
	out := make([]deadletter.Letter, len(batch))
	for i := range batch {
		out[i] = l.letter(&batch[i])
	}
	if err := l.store.Put(ctx, out); err != nil {
		l.failed(err)
		return err
	}
	l.mu.Lock()
	l.err = nil
	l.mu.Unlock()
	l.mention(out)
	return nil
}

// mention logs the first letter of each plugin and sink: the others are counted.
func (l *letters) mention(out []deadletter.Letter) {
	for i := range out {
		x := &out[i]
		if l.known[x.Plugin] {
			continue
		}
		if l.known == nil {
			l.known = map[string]bool{}
		}
		l.known[x.Plugin] = true
		l.rt.p.Logger.Warn("a message went to the dead letters; more of this plugin are counted, and not logged", "plugin", x.Plugin,
			"reason", fmt.Sprintf("%.200s", x.Reason), "attempts", x.Attempts, "source", x.Source,
			"directory", filepath.Dir(deadletter.Path(l.rt.p.Data)))
	}
}

// bury writes a batch and tells the loops. A letter that the store finds too large keeps no other from being written.
func (l *letters) bury(ctx context.Context, batch []burial) {
	err := l.put(ctx, batch)
	if errors.Is(err, deadletter.ErrTooLarge) && len(batch) > 1 {
		l.bury(ctx, batch[:len(batch)/2])
		l.bury(ctx, batch[len(batch)/2:])
		return
	}
	for _, b := range batch {
		b.in.driver.Post(loop.Event{Kind: loop.Buried, Unit: b.unit, Detail: &loop.Detail{Err: err}})
	}
}

func (l *letters) failed(err error) {
	l.mu.Lock()
	now := l.rt.p.Clock.Now()
	quiet := l.err != nil && now.Sub(l.told) < 10*time.Second
	if l.err = err; !quiet {
		l.told = now
	}
	l.mu.Unlock()
	if quiet {
		return
	}
	l.rt.p.Logger.Error("dead letters cannot be written; their plugins get nothing more until they can", "error", err,
		"directory", filepath.Dir(deadletter.Path(l.rt.p.Data)))
}

func (l *letters) letter(b *burial) deadletter.Letter {
	c := b.consumer
	out := deadletter.Letter{
		ID: b.id(c.name), Payload: b.batch.Payload(0), Key: b.batch.Key(0), Source: b.in.spec.Name,
		Stream: b.in.graph.Load().Streams[b.letter.Stream].Name, Plugin: c.name, Attempts: b.letter.Attempts,
		First: b.in.driver.Time(b.letter.First), Died: l.rt.p.Clock.Now(),
	}
	if b.letter.Cause != nil {
		out.Reason = b.letter.Cause.Error()
	}
	if c.actor != nil {
		out.Version = c.actor.Stats().Version
	}
	for name, value, rest, ok := arena.NextHeader(b.batch.Headers(0)); ok; name, value, rest, ok = arena.NextHeader(rest) {
		out.Headers = append(out.Headers, deadletter.Header{Name: string(name), Value: value})
	}
	return out
}

// id is the same for the same message and plugin, also when it dies a second time after a crash. Messages with equal payloads that were
// emitted to one stream from one message, or that come from none, share an id.
func (b *burial) id(plugin string) string {
	h := fnv.New64a()
	h.Write([]byte(b.in.graph.Load().Streams[b.letter.Stream].Name + "\x00" + plugin + "\x00"))
	h.Write(b.batch.Payload(0))
	return fmt.Sprintf("%s-%d-%d-%016x", b.in.spec.Name, b.letter.Partition, b.letter.Receipt, h.Sum64())
}
