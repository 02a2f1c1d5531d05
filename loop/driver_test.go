package loop

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
)

// fakeWorld remembers what it was told. Its methods are called one at a time, but not by one goroutine.
type fakeWorld struct {
	mu      sync.Mutex
	settled []uint64
	buried  []UnitID
	lapses  int
	quiet   int
	retired int
	drained int
	onBury  func() // is called by Bury; nil for nothing
}

func (w *fakeWorld) Settle(s Settlement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = append(w.settled, s.Receipts...)
}

func (w *fakeWorld) Bury(unit UnitID, _ ConsumerID, _ *arena.Batch, _ Letter) {
	w.buried = append(w.buried, unit)
	if w.onBury != nil {
		w.onBury()
	}
}
func (w *fakeWorld) Lapse(Handle) bool             { w.lapses++; return true }
func (w *fakeWorld) LinkSettled(uint64)            {}
func (w *fakeWorld) Quiet(ConsumerID, uint64, int) { w.quiet++ }

// Retired implements World.
func (w *fakeWorld) Retired(ConsumerID) { w.retired++ }
func (w *fakeWorld) Drained(int)        { w.drained++ }

// rig is a driver with one stream and one consumer, and the memory that they need.
type rig struct {
	*Driver
	world   *fakeWorld
	mailbox chan Delivery
	arena   *arena.Arena
	source  *arena.Account
	evac    *arena.Account
	receipt uint64
}

func newRig(t testing.TB, change func(*DriverConfig)) *rig {
	a, err := arena.New(arena.Config{Budget: 4 << 20, SlabSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{world: &fakeWorld{}, mailbox: make(chan Delivery, 1000), arena: a}
	r.source, r.evac = account(t, a, arena.Sources, 1<<40), account(t, a, arena.Evacuation, 8192)
	cfg := DriverConfig{
		Core: Config{
			Graph: Graph{
				Streams:   []Stream{{Name: "in", Consumers: []ConsumerID{0}}},
				Consumers: []Consumer{{Name: "a", Items: 1000, Bytes: 1 << 40, Mailbox: 1 << 40, Epoch: 1}},
			},
			Window: Window{Messages: 10000, Bytes: 1 << 40}, Open: Window{Messages: 10000, Bytes: 1 << 40}, NewBatch: a.NewBatch, Late: 50,
		},
		Mailboxes: []chan<- Delivery{r.mailbox}, World: r.world, Clock: clock.System{}, Evacuation: r.evac,
	}
	if change != nil {
		change(&cfg)
	}
	r.Driver = NewDriver(cfg)
	return r
}

func account(t testing.TB, a *arena.Arena, c arena.Class, limit int64) *arena.Account {
	ac, err := a.Account(c, c.String(), 0, limit)
	if err != nil {
		t.Fatal(err)
	}
	return ac
}

// batch is one of n messages of size bytes.
func (r *rig) batch(t testing.TB, n, size int) *arena.Batch {
	slab, err := r.source.Lease()
	if err != nil {
		t.Fatal(err)
	}
	b := r.arena.NewBatch()
	b.Slab = slab
	for i := range n {
		r.receipt++
		b.Frames = append(b.Frames, arena.Frame{Off: uint32(i * size), Len: uint32(size)})
		b.Receipts = append(b.Receipts, r.receipt)
	}
	return b
}

// serve takes one delivery and gives it back, with detail.
func (r *rig) serve(detail *Detail) {
	d := <-r.mailbox
	if detail != nil {
		d.Lane.Report(d.Unit, false, detail)
	}
	if d.Batch.Return() {
		d.Lane.Report(d.Unit, true, nil)
	}
	d.Lane.Done(&d)
}

// A quiet source takes no detour: whoever posts runs the loop.
func TestDriverRunsInline(t *testing.T) {
	r := newRig(t, func(c *DriverConfig) { c.Go = func(func()) { t.Error("it wants a goroutine") } })
	r.Arrive(r.batch(t, 3, 10))
	if len(r.mailbox) != 1 {
		t.Fatal("the batch has not been delivered when Arrive returned")
	}
	r.serve(nil)
	if !slices.Equal(r.world.settled, []uint64{1, 2, 3}) {
		t.Errorf("settled %v when the last borrower had returned, want 1 to 3", r.world.settled)
	}
	if c := r.Counts(); c.Accepted != 3 || c.Settled != 3 || c.Consumers[0].Delivered != 3 {
		t.Errorf("counts %+v", c)
	}
	r.Post(Event{Kind: Drain, Detail: &Detail{}})
	if r.world.drained != 1 {
		t.Error("not drained")
	}
}

// Who posts works through so many events, then a goroutine goes on: a poster has work of its own. Counts waits for its turn meanwhile.
func TestDriverHandsOver(t *testing.T) {
	var over []func()
	var r *rig
	fed := false
	r = newRig(t, func(c *DriverConfig) {
		c.Go = func(f func()) { over = append(over, f) }
		c.Observe = func(*Event, []Effect) {
			for i := 0; !fed && i < 2*turnLength; i++ { // while the first event is worked through, many others come
				r.Post(Event{Kind: Credit, Detail: &Detail{Items: uint64(i)}})
			}
			fed = true
		}
	})
	r.Post(Event{Kind: Credit, Detail: &Detail{}})
	if len(over) != 1 {
		t.Fatalf("%d goroutines wanted, want 1", len(over))
	}
	got := make(chan Counts)
	go func() { got <- r.Counts() }()
	for len(over) > 0 {
		f := over[0]
		over = over[1:]
		f()
	}
	<-got
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy || len(r.inbox) > 0 {
		t.Errorf("busy %v with %d events left", r.busy, len(r.inbox))
	}
}

// Timers fire at their time, to the millisecond, and a retry is delivered then.
func TestDriverTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		start := time.Now()
		r.Arrive(r.batch(t, 2, 10))
		r.serve(&Detail{Exceptions: []Exception{{Index: 0, What: Retried, After: 1500}, {Index: 1, What: Held, After: 70, Token: Token{1, 1}}}})
		r.serve(nil) // the hold lapses: that is a retry, at once
		if took := time.Since(start); took != 70*time.Millisecond || r.world.lapses != 1 {
			t.Errorf("lapsed %d times, after %v, want after 70ms", r.world.lapses, took)
		}
		r.serve(nil)
		if took := time.Since(start); took != 1500*time.Millisecond {
			t.Errorf("retried after %v, want 1.5s", took)
		}
		synctest.Wait()
		if len(r.world.settled) != 2 {
			t.Errorf("settled %v, want both", r.world.settled)
		}
	})
}

// Promise: evacuation full: the source pauses, nothing is dropped; it goes on when there is memory.
func TestDriverPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		shut := make(chan struct{})
		close(shut)
		held := Detail{}
		for i := range 5 { // 5 messages of 800 bytes do not fit in two slabs
			held.Exceptions = append(held.Exceptions, Exception{Index: uint32(i), What: Held, After: 1000, Token: Token{1, uint64(i)}})
		}
		r.Arrive(r.batch(t, 5, 800))
		b := r.batch(t, 5, 800)
		r.Arrive(b)
		hog, err := r.evac.Lease()
		if err != nil {
			t.Fatal(err)
		}
		hog2, err := r.evac.Lease()
		if err != nil {
			t.Fatal(err)
		}
		r.serve(&held)
		if r.Gate().Wait(shut, nil) {
			t.Fatal("the source may go on though there is no memory for what stays")
		}
		gone := make(chan bool)
		go func() { gone <- r.Gate().Wait(nil, nil) }()
		synctest.Wait()
		hog.Release()
		if !<-gone {
			t.Fatal("the source may not go on though there is memory")
		}
		hog2.Release()
		synctest.Wait() // word of the room comes by a goroutine, which runs the loop
		for i := range 5 {
			r.Post(Event{Kind: HeldVerdict, Detail: &Detail{Token: Token{1, uint64(i)}}})
		}
		r.serve(nil)
		synctest.Wait()
		if len(r.world.settled) != 10 {
			t.Errorf("settled %v, want all 10", r.world.settled)
		}
		if st := r.arena.Stats(); st.SlabsLeased != 0 {
			t.Errorf("%d slabs are still leased", st.SlabsLeased)
		}
	})
}

// A source that waits is woken by the settlement that makes room, and none is left waiting while there is room.
func TestGateWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *DriverConfig) {
			c.Core.Window, c.Core.Open = Window{Messages: 4, Bytes: 1 << 40}, Window{Messages: 4, Bytes: 1 << 40}
		})
		const readers, each = 3, 50
		var done sync.WaitGroup
		var arriving sync.Mutex
		for range readers {
			done.Go(func() {
				for range each {
					if !r.Gate().Wait(nil, nil) {
						t.Error("Wait gave up though nobody stops")
					}
					arriving.Lock()
					r.Arrive(r.batch(t, 1, 10))
					arriving.Unlock()
				}
			})
		}
		finished := make(chan struct{})
		go func() {
			done.Wait()
			close(finished)
		}()
		for range readers * each {
			r.serve(nil)
		}
		<-finished
		if n := len(r.world.settled); n != readers*each {
			t.Errorf("%d settled, want %d", n, readers*each)
		}
	})
}

// Wait ends when the reader is not wanted any more.
func TestGateWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *DriverConfig) { c.Core.Open = Window{Messages: 1, Bytes: 1} })
		r.Arrive(r.batch(t, 1, 10))
		ctx, cancel := context.WithCancel(context.Background())
		answer := make(chan bool)
		go func() { answer <- r.Gate().Wait(ctx.Done(), nil) }()
		synctest.Wait()
		cancel()
		if <-answer {
			t.Error("Wait says that there is room")
		}
		r.serve(nil)
	})
}

// Credit is asked for once, and comes when so much has been taken; also when it has been taken already.
func TestLaneWatch(t *testing.T) {
	r := newRig(t, func(c *DriverConfig) { c.Core.Graph.Consumers[0].Items = 1 })
	for range 3 {
		r.Arrive(r.batch(t, 1, 10))
	}
	for i := range 3 {
		if len(r.mailbox) != 1 {
			t.Fatalf("%d deliveries after %d were taken, want 1", len(r.mailbox), i)
		}
		r.serve(nil)
	}
	l := r.Lane(0)
	l.watch(2)
	if l.want.Load() != 0 {
		t.Error("it still waits for what has come")
	}
}

// cleanBatch makes a function that takes a clean batch of n messages through a core: arrival, one delivery, return, settlement, credit.
func cleanBatch(n int) (c *Core, once func()) {
	c = New(Config{
		Graph: Graph{
			Streams:   []Stream{{Name: "in", Consumers: []ConsumerID{0}}},
			Consumers: []Consumer{{Name: "a", Items: 4, Bytes: 1 << 40, Mailbox: 1 << 40}},
		},
		Window: Window{Messages: 10000, Bytes: 1 << 40}, Open: Window{Messages: 10000, Bytes: 1 << 40},
	})
	batch := &arena.Batch{Frames: make([]arena.Frame, n), Receipts: make([]uint64, n)}
	arrived, outcome := &Event{Kind: Arrived, Batch: batch, Bytes: int64(batch.Bytes())}, &Event{Kind: Outcome, Last: true}
	credit := &Event{Kind: Credit, Detail: &Detail{}}
	return c, func() {
		outcome.Unit = c.Step(arrived)[0].Delivery.Unit
		c.Step(outcome)
		credit.Detail.Items++
		c.Step(credit)
	}
}

// BenchmarkCore is what the core costs for a clean batch.
func BenchmarkCore(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("messages=%d", n), func(b *testing.B) {
			c, once := cleanBatch(n)
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
			if c.Live() != 0 {
				b.Fatal("something is left")
			}
		})
	}
}

// Promise: a clean batch costs the core no allocation.
func TestCoreAllocatesNothing(t *testing.T) {
	_, once := cleanBatch(64)
	if n := testing.AllocsPerRun(1000, once); n != 0 {
		t.Errorf("%v allocations for a clean batch", n)
	}
}
