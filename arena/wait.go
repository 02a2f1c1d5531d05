package arena

import (
	"context"
	"fmt"
)

// waiter is one call of AfterRoom or Wait that has not been answered.
type waiter struct {
	id uint64
	fn func()
}

// AfterRoom calls fn once: now if a lease of one slab would succeed, otherwise as soon as one might, in the goroutine whose release
// made the room. It is also called when the account or the arena is closed. fn must not block. Another may have taken the room before
// fn acts: who still finds none calls AfterRoom again.
func (ac *Account) AfterRoom(fn func()) {
	if _, waits := ac.register(fn); !waits {
		fn()
	}
}

// Wait blocks until a lease of one slab might succeed. It returns nil then, the context's error, or an error that wraps ErrClosed.
func (ac *Account) Wait(ctx context.Context) error {
	woken := make(chan struct{})
	if id, waits := ac.register(func() { close(woken) }); waits {
		select {
		case <-woken:
		case <-ctx.Done():
			ac.forget(id)
			return fmt.Errorf("arena: waiting for room in account %q: %w", ac.name, context.Cause(ctx))
		}
	}
	ac.arena.mu.Lock()
	defer ac.arena.mu.Unlock()
	if ac.closed || ac.arena.closed {
		return fmt.Errorf("arena: waiting for room in account %q: %w", ac.name, ErrClosed)
	}
	return nil
}

// register puts fn on the list, unless there is room now or there never will be.
func (ac *Account) register(fn func()) (id uint64, waits bool) {
	a := ac.arena
	a.mu.Lock()
	defer a.mu.Unlock()
	if ac.ready() {
		return 0, false
	}
	if cl := &a.classes[ac.class]; len(ac.waiters) == 0 {
		cl.waiting = append(cl.waiting, ac)
	}
	ac.nextID++
	ac.waiters = append(ac.waiters, waiter{ac.nextID, fn})
	return ac.nextID, true
}

// ready reports whether a waiter of ac is to be called. The caller holds the arena's mutex.
func (ac *Account) ready() bool {
	return ac.closed || ac.arena.closed || ac.fits(int64(ac.arena.slabSize))
}

func (ac *Account) forget(id uint64) {
	ac.arena.mu.Lock()
	defer ac.arena.mu.Unlock()
	for i := range ac.waiters {
		if ac.waiters[i].id == id {
			ac.dropWaiter(i)
			return
		}
	}
}

// dropWaiter takes waiter i off the list. The caller holds the arena's mutex.
func (ac *Account) dropWaiter(i int) {
	copy(ac.waiters[i:], ac.waiters[i+1:])
	ac.waiters[len(ac.waiters)-1] = waiter{}
	ac.waiters = ac.waiters[:len(ac.waiters)-1]
	if len(ac.waiters) > 0 {
		return
	}
	cl := &ac.arena.classes[ac.class]
	for j, other := range cl.waiting {
		if other == ac {
			cl.waiting = append(cl.waiting[:j], cl.waiting[j+1:]...)
			return
		}
	}
}

// wake calls the waiters of class c that have room, one after another, as long as there is room. A waiter that is not called stays on
// the list, and the next release looks at it again, so that no room goes unnoticed. No lock is held during a call.
func (a *Arena) wake(c Class) {
	for {
		a.mu.Lock()
		fn := a.nextWaiter(c)
		a.mu.Unlock()
		if fn == nil {
			return
		}
		fn()
	}
}

// nextWaiter takes one waiter that is to be called off its list. The caller holds a.mu.
func (a *Arena) nextWaiter(c Class) func() {
	for _, ac := range a.classes[c].waiting {
		if ac.ready() {
			fn := ac.waiters[0].fn
			ac.dropWaiter(0)
			return fn
		}
	}
	return nil
}
