package arena

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// fillUp leases until there is no room.
func fillUp(t *testing.T, ac *Account) (held []*Slab) {
	t.Helper()
	for ac.Room() {
		held = append(held, lease(t, ac))
	}
	return held
}

func TestWait(t *testing.T) {
	type actors struct {
		arena               *Arena
		self, filler, other *Account
		held                []*Slab // by filler
		cancel              func()
	}
	for _, c := range []struct {
		name string
		do   func(*actors)
		want error
	}{
		{"release", func(x *actors) { x.held[0].Release(); x.held = x.held[1:] }, nil},
		{"guarantee given back", func(x *actors) { x.other.Close() }, nil},
		{"context", func(x *actors) { x.cancel() }, context.Canceled},
		{"account closed", func(x *actors) { x.self.Close() }, ErrClosed},
		{"arena closed", func(x *actors) { x.arena.Close() }, ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArena(t, 100)
				x := &actors{
					arena: a, self: newAccount(t, a, Sources, "self", 0, 70), filler: newAccount(t, a, Sources, "filler", 0, 70),
					other: newAccount(t, a, Sources, "other", 3, 0),
				}
				x.held = fillUp(t, x.filler)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				x.cancel = cancel
				var err error
				done := false
				go func() {
					err = x.self.Wait(ctx)
					done = true
				}()
				synctest.Wait()
				if done {
					t.Fatalf("did not wait: %v", err)
				}
				c.do(x)
				synctest.Wait()
				if !done || !errors.Is(err, c.want) {
					t.Errorf("done %v, error %v, want %v", done, err, c.want)
				}
				if len(x.self.waiters) != 0 || len(a.classes[Sources].waiting) != 0 {
					t.Error("a waiter was left on the list")
				}
				releaseAll(x.held)
			})
		})
	}
}

func TestAfterRoom(t *testing.T) {
	a := newArena(t, 100)
	x := newAccount(t, a, Sources, "x", 0, 40)
	y := newAccount(t, a, Sources, "y", 1, 70)
	calls := map[string]int{}
	x.AfterRoom(func() { calls["at once"]++ })
	hx := fillUp(t, x)
	hy := fillUp(t, y)
	x.AfterRoom(func() { calls["x"]++ })
	y.AfterRoom(func() { calls["y"]++ })
	y.AfterRoom(func() { calls["y too"]++ })
	hx[0].Release() // below x's limit, and room in the shared part for y
	hx[1].Release()
	for _, name := range []string{"at once", "x", "y", "y too"} {
		if calls[name] != 1 {
			t.Errorf("%s was called %d times, want once", name, calls[name])
		}
	}
	hx = append(hx[2:], fillUp(t, x)...)
	x.AfterRoom(func() { calls["x"]++ })
	hy[0].Release() // x is at its limit
	if calls["x"] != 1 {
		t.Error("x was called though it is at its limit")
	}
	hx[0].Release()
	if calls["x"] != 2 {
		t.Error("x was not called")
	}
	releaseAll(hx[1:])
	releaseAll(hy[1:])
}

// A callback that takes the room leaves the others waiting, and the next release calls them.
func TestAfterRoomTakenByTheFirst(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 1)
	held := lease(t, ac)
	var order []int
	for i := range 3 {
		ac.AfterRoom(func() {
			order = append(order, i)
			held = lease(t, ac)
		})
	}
	for i := range 3 {
		held.Release()
		if len(order) != i+1 || order[i] != i {
			t.Fatalf("after release %d the callbacks %v have run", i+1, order)
		}
	}
	held.Release()
}

// No wakeup is lost: many goroutines share few slabs, and all come to their end.
func TestNoWakeupIsLost(t *testing.T) {
	a := newArena(t, 100)
	small := newAccount(t, a, Evacuation, "small", 0, 2)
	large := newAccount(t, a, Evacuation, "large", 1, 10)
	var wg sync.WaitGroup
	var leased atomic.Int64
	for i := range 12 {
		ac := small
		if i%3 == 0 {
			ac = large
		}
		wg.Go(func() {
			for range 500 {
				for {
					s, err := ac.LeaseSized(3000)
					if err == nil {
						leased.Add(1)
						s.Release()
						break
					}
					if err := ac.Wait(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if leased.Load() != 12*500 {
		t.Errorf("%d leases", leased.Load())
	}
}
