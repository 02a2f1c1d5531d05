package loop

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/penstock-dev/penstock/arena"
)

// Promise: a source that waits for memory goes on when there is some, also when that comes before the loop has heard that there was none.
func TestPressureEndsThoughRoomComesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		shut := make(chan struct{})
		close(shut)
		hog, err := r.evac.Lease()
		if err != nil {
			t.Fatal(err)
		}
		hog2, err := r.evac.Lease()
		if err != nil {
			t.Fatal(err)
		}
		r.world.onBury = func() { // after the message could not be moved, in the same step
			hog.Release()
			hog2.Release()
		}
		r.Arrive(r.batch(t, 2, 800))
		r.serve(&Detail{Exceptions: []Exception{{Index: 0, What: Rejected}}})
		synctest.Wait()
		if !r.Gate().Wait(shut, nil) {
			t.Error("the source may not go on though there is memory")
		}
		for _, u := range r.world.buried {
			r.Post(Event{Kind: Buried, Unit: u, Detail: &Detail{}})
		}
		synctest.Wait()
		if !slices.Equal(r.world.settled, []uint64{2, 1}) {
			t.Errorf("settled %v, want 2 and then 1", r.world.settled)
		}
	})
}

// Promise: a driver takes another graph while messages are under way: mailboxes are added, lanes stay, and who is gone is retired when it
// has returned what it was lent.
func TestDriverReshape(t *testing.T) {
	r := newRig(t, nil)
	a, other := r.Lane(0), make(chan Delivery, 1000)
	r.Arrive(r.batch(t, 2, 10))
	g := Graph{
		Streams: []Stream{{Name: "in", Consumers: []ConsumerID{1}}, {Name: "late"}},
		Consumers: []Consumer{
			{Name: "a", Items: 1000, Bytes: 1 << 40, Mailbox: 1 << 40, Epoch: 1, Gone: true},
			{Name: "b", Items: 1000, Bytes: 1 << 40, Mailbox: 1 << 40, Epoch: 1, Emits: []StreamID{1}},
		},
	}
	r.Reshape(&g, []chan<- Delivery{other}, Window{Messages: 3, Bytes: 1 << 40}, 100)
	if id, ok := r.Lane(1).StreamID("late"); r.Lane(0) != a || !ok || id != 1 || a.Stream(0) != "in" {
		t.Errorf("lanes and streams after the reshape: %v, %d %v", r.Lane(0) == a, id, ok)
	}
	r.Arrive(r.batch(t, 2, 10))
	if len(r.mailbox) != 1 || len(other) != 1 || r.world.retired != 0 {
		t.Fatalf("%d deliveries to a, %d to b, retired %d", len(r.mailbox), len(other), r.world.retired)
	}
	if shut := make(chan struct{}); true {
		close(shut)
		if r.Gate().Wait(shut, nil) {
			t.Error("the source may go on with 4 unsettled messages of at most 3")
		}
	}
	r.serve(nil)
	if !slices.Equal(r.world.settled, []uint64{1, 2}) || r.world.retired != 1 {
		t.Errorf("settled %v, retired %d", r.world.settled, r.world.retired)
	}
	r.mailbox = other
	r.serve(nil)
	r.Post(Event{Kind: Drain, Detail: &Detail{}})
	if len(r.world.settled) != 4 || r.world.retired != 1 || r.world.drained != 1 {
		t.Errorf("settled %v, retired %d, drained %d", r.world.settled, r.world.retired, r.world.drained)
	}
}

// Promise: when memory of ages is full, the oldest is still told, if less exactly.
func TestMarksAreBounded(t *testing.T) {
	c := New(Config{
		Graph: Graph{
			Streams: []Stream{{Name: "in", Consumers: []ConsumerID{0}}}, Consumers: []Consumer{{Name: "a", Items: 1, Bytes: 1, Mailbox: 1}},
		},
		Window: Window{Messages: 1 << 20, Bytes: 1 << 40}, Open: Window{Messages: 1 << 20, Bytes: 1 << 40}, Late: 1 << 40,
	})
	for now := Ticks(1); now <= 1000; now++ {
		c.Step(&Event{Kind: Tick, Detail: &Detail{Now: now}})
		b := &arena.Batch{Frames: make([]arena.Frame, 1), Receipts: []uint64{uint64(now)}}
		c.Step(&Event{Kind: Arrived, Batch: b, Bytes: 1})
		c.Step(&Event{Kind: Mark, Detail: &Detail{}})
		if len(c.marks) > maxMarks {
			t.Fatalf("%d marks", len(c.marks))
		}
	}
	counts := c.Counts()
	c.ages(1000, func(ConsumerID) uint64 { return 0 }, &counts)
	if counts.Oldest != 999 || counts.Consumers[0].Oldest != 999 {
		t.Errorf("the oldest has waited %d, at its consumer %d, want 999", counts.Oldest, counts.Consumers[0].Oldest)
	}
}
