package penstock

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/source"
)

// intake is the runtime's side of one source, and the world of its loop.
type intake struct {
	rt      *Runtime
	spec    Source
	key     atomic.Pointer[KeyFunc] // spec.Key, which may be changed
	past    Row                     // what those of this name that it took the place of have counted; guarded by Runtime.mu
	graph   atomic.Pointer[graph]
	account *arena.Account
	stay    *arena.Account
	driver  *loop.Driver
	env     source.Env

	cancel   context.CancelFunc // of the context that the source runs in
	ended    chan struct{}      // closed when it has run, and all is settled
	failure  atomic.Pointer[error]
	stopped  chan struct{} // closed when no more messages are taken
	stopOnce sync.Once
	drained  chan int // Drained, with what was given back

	mu     sync.RWMutex
	epochs map[uint32]uint32 // of the partitions that are assigned; 0 is not
	last   map[uint32]uint32 // the last epoch that each has had

	bad     atomic.Uint64
	settled atomic.Uint64 // settlements, to see whether there is something to write down
}

var (
	_ source.Intake = (*intake)(nil)
	_ loop.World    = (*intake)(nil)
)

// Account implements source.Intake.
func (in *intake) Account() *arena.Account { return in.account }

// NewBatch implements source.Intake.
func (in *intake) NewBatch() *arena.Batch { return in.rt.arena.NewBatch() }

// Env implements source.Intake.
func (in *intake) Env() source.Env { return in.env }

// Ready implements source.Intake.
func (in *intake) Ready(ctx context.Context) error {
	if !in.driver.Gate().Wait(ctx.Done(), in.stopped) {
		if err := ctx.Err(); err != nil {
			return err
		}
		return source.ErrStopped
	}
	select {
	case <-in.stopped:
		return source.ErrStopped
	default:
		return ctx.Err()
	}
}

// Accept implements source.Intake.
func (in *intake) Accept(b *arena.Batch) error {
	if err := in.check(b); err != nil {
		b.Free()
		return fmt.Errorf("source %q: %w", in.spec.Name, err)
	}
	if t := in.rt.p.Tracer; t != nil && b.Len() > 0 {
		b.Trail = t.Begin(in.spec.Name, b.Len(), arena.Header(b.Headers(0), arena.TraceHeader))
	}
	in.driver.Arrive(b)
	return nil
}

func (in *intake) check(b *arena.Batch) error {
	select {
	case <-in.stopped:
		return source.ErrStopped
	default:
	}
	if len(b.Receipts) != len(b.Frames) {
		return fmt.Errorf("a batch of %d messages has %d receipts: set one for each", len(b.Frames), len(b.Receipts))
	}
	if b.Epoch != 0 || b.Partition != 0 {
		in.mu.RLock()
		epoch := in.epochs[b.Partition]
		in.mu.RUnlock()
		if epoch != b.Epoch {
			return source.ErrEpoch
		}
	}
	return in.keys(b)
}

// Assign implements source.Intake.
func (in *intake) Assign(partition uint32) (epoch uint32) {
	in.mu.Lock()
	in.last[partition]++
	epoch = in.last[partition]
	in.epochs[partition] = epoch
	in.mu.Unlock()
	in.driver.Post(loop.Event{Kind: loop.Assign, Detail: &loop.Detail{Partition: partition, Epoch: epoch}})
	return epoch
}

// Revoke implements source.Intake.
func (in *intake) Revoke(partition uint32) {
	in.mu.Lock()
	delete(in.epochs, partition)
	in.mu.Unlock()
	in.driver.Post(loop.Event{Kind: loop.Revoke, Detail: &loop.Detail{Partition: partition}})
}

// Report implements source.Intake.
func (in *intake) Report(err error) {
	if in.bad.Add(1) <= 10 { // the count goes on; a log full of the same line helps nobody
		in.env.Logger.Warn("bad input refused", "source", in.spec.Name, "error", err)
	}
}

// stop lets no more messages in.
func (in *intake) stop() { in.stopOnce.Do(func() { close(in.stopped) }) }

// Settle implements loop.World.
func (in *intake) Settle(s loop.Settlement) {
	in.settled.Add(1)
	out := source.Settlement{
		Partition: s.Partition, Epoch: s.Epoch, Receipts: s.Receipts, Cursor: s.Cursor, HasCursor: s.HasCursor,
	}
	if s.Returned {
		out.Outcome = source.Returned
	}
	in.spec.From.Settle(out)
}

// Bury implements loop.World.
func (in *intake) Bury(u loop.UnitID, c loop.ConsumerID, b *arena.Batch, l loop.Letter) {
	in.rt.letters.add(burial{in: in, unit: u, consumer: in.graph.Load().consumers[c], batch: b, letter: l})
}

// Lapse implements loop.World.
func (in *intake) Lapse(h loop.Handle) bool { return actor.Lapse(h) }

// LinkSettled implements loop.World.
func (in *intake) LinkSettled(link uint64) {
	for _, other := range in.rt.top.Load().intakes {
		other.driver.Post(loop.Event{Kind: loop.LinkSettled, Detail: &loop.Detail{Link: link}})
	}
}

// Quiet implements loop.World.
func (in *intake) Quiet(id loop.ConsumerID, pause uint64, count int) {
	switch c := in.graph.Load().consumers[id]; {
	case c.actor != nil:
		c.actor.Quiet(pause, count)
	case c.to != nil:
		c.to.Quiet(pause)
	}
}

// Retired implements loop.World.
func (in *intake) Retired(id loop.ConsumerID) {
	c := in.graph.Load().consumers[id]
	c.quits.Store(in, true)
	select {
	case c.retired <- struct{}{}:
	default:
	}
}

// attach tells the consumers from index first on of the lanes by which this source feeds them.
func (in *intake) attach(first int) {
	for id, c := range in.graph.Load().consumers[first:] {
		c.attach(in.driver.Lane(loop.ConsumerID(first + id)))
	}
}

// reshape gives the source's loop another graph.
func (in *intake) reshape(g *graph, window loop.Window, after time.Duration) {
	before := len(in.graph.Load().consumers)
	var mailboxes []chan<- loop.Delivery
	for _, c := range g.consumers[before:] {
		mailboxes = append(mailboxes, c.mail())
	}
	in.graph.Store(g)
	in.driver.Reshape(&g.Graph, mailboxes, window, loop.TicksOf(after))
	in.attach(before)
}

// Drained implements loop.World.
func (in *intake) Drained(count int) {
	select {
	case in.drained <- count:
	default:
	}
}
