package arena

import (
	"fmt"
	"sync/atomic"
)

// large is the memory of a large lease: address space for the maximum, of which the budget has been charged for the beginning.
//
//	reserved  [ usable, charged in steps |                                  ]
//	          0                          len(Bytes())                       max
type large struct {
	reserve largeMemory
	now     atomic.Pointer[[]byte] // usable; read by Resolve while the owner grows it
	max     int
	charged int64
}

func (l *large) bytes() []byte { return *l.now.Load() }

func (l *large) free() { l.reserve.close() }

// LeaseLarge leases address space for up to most bytes. Nothing is usable and nothing is charged before [Slab.Grow]. The caller holds
// one reference; the last release gives the memory back to the operating system. The error wraps ErrClosed, or is that of the
// operating system.
func (ac *Account) LeaseLarge(most int) (*Slab, error) {
	if most < 0 {
		return nil, fmt.Errorf("arena: large lease of up to %d bytes for account %q: give 0 or more", most, ac.name)
	}
	l := &large{max: most}
	if err := l.reserve.open(most); err != nil {
		return nil, fmt.Errorf("arena: large lease of up to %d bytes for account %q: %w", most, ac.name, err)
	}
	l.now.Store(new([]byte))
	a := ac.arena
	a.mu.Lock()
	if err := ac.charge(0); err != nil {
		a.mu.Unlock()
		l.free()
		return nil, err
	}
	s := a.slots.take()
	s.big = l
	s.open(ac, nil)
	a.mu.Unlock()
	s.trace.note("lease", true)
	return s, nil
}

// Grow makes at least n bytes of a large lease usable; less than what is usable already changes nothing. Read Bytes again after it:
// the memory may have moved, with its contents, and views of it stay valid. The budget is charged in steps of at most 64 KiB. The
// error is a *BudgetError, or wraps ErrTooLarge or ErrClosed; the lease is then as it was. On leases that are not large it only
// checks that n bytes are there.
func (s *Slab) Grow(n int) error {
	if n <= len(s.mem) {
		return nil
	}
	l := s.big
	if l == nil || n > l.max {
		most := len(s.mem)
		if l != nil {
			most = l.max
		}
		return fmt.Errorf("arena: growing slab %s of account %q to %d bytes: %w: it was leased for at most %d",
			s.name(s.state.Load()), s.account.name, n, ErrTooLarge, most)
	}
	ac := s.account
	a := ac.arena
	a.mu.Lock()
	defer a.mu.Unlock()
	charge := (int64(n)+a.largeStep-1)/a.largeStep*a.largeStep - l.charged
	if err := ac.charge(charge); err != nil {
		return err
	}
	for a.resident()+charge > a.budget && a.pool.evict() {
	}
	a.large += charge
	l.charged += charge
	mem := l.reserve.grow(s.mem, int(min(l.charged, int64(l.max))))
	s.mem = mem
	l.now.Store(&mem)
	return nil
}
