package arena

import "fmt"

// class is one part of the budget. It is guarded by the arena's mutex. All amounts are in bytes.
type class struct {
	size       int64 // the most that may be used
	used       int64 // by all accounts
	guaranteed int64 // the sum of all guarantees
	reserved   int64 // the part of guaranteed that is not used
	waiting    []*Account
}

// Account is the share of one source, plugin or loop in a class of the budget: it has what it is guaranteed for sure, and beyond
// that, up to its limit, what nobody else has or is guaranteed.
//
//	class   [ guarantee of A | guarantee of B |            shared            ]
//	A uses   ■■■■■■■■■■■■■■■■■                 ■■■■■■■■
//	B uses                    ■■■■■                                             the rest of B's guarantee is kept for B
//
// All methods may be called from any goroutine.
type Account struct {
	arena      *Arena
	class      Class
	name       string
	guaranteed int64
	limit      int64

	// Guarded by the arena's mutex.
	used    int64
	leases  int
	closed  bool
	waiters []waiter
	nextID  uint64
	carving carving
}

// Account opens an account. Both amounts are in bytes and rounded up to whole slabs; a limit of 0 means half of the class (but not
// less than the guarantee), and a limit above the class means all of it. If the class is in use, a guarantee comes true as others
// release. The error is a *ConfigError if guarantees exceed the class or the limit is below the guarantee, or wraps ErrClosed.
func (a *Arena) Account(c Class, name string, guaranteed, limit int64) (*Account, error) {
	if c >= classes {
		return nil, fmt.Errorf("arena: account %q: there is no %v: give Sources, Emits or Evacuation", name, c)
	}
	if guaranteed < 0 || limit < 0 {
		return nil, &ConfigError{fmt.Sprintf("account %q: guarantee or limit", name), min(guaranteed, limit), "give 0 or more"}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fmt.Errorf("arena: account %q: arena: %w", name, ErrClosed)
	}
	cl := &a.classes[c]
	if guaranteed > cl.size-cl.guaranteed || a.wholeSlabs(guaranteed) > cl.size-cl.guaranteed {
		return nil, &ConfigError{fmt.Sprintf("account %q: guarantee", name), guaranteed, fmt.Sprintf(
			"class %v has %d bytes of which %d are promised to others: lower a guarantee or raise the budget", c, cl.size, cl.guaranteed)}
	}
	guaranteed = a.wholeSlabs(guaranteed)
	if limit == 0 {
		limit = max(cl.size/2/int64(a.slabSize)*int64(a.slabSize), guaranteed)
	}
	limit = a.wholeSlabs(min(limit, cl.size))
	if limit < guaranteed {
		return nil, &ConfigError{fmt.Sprintf("account %q: limit", name), limit, fmt.Sprintf("below its guarantee of %d: raise it", guaranteed)}
	}
	ac := &Account{arena: a, class: c, name: name, guaranteed: guaranteed, limit: limit}
	cl.guaranteed += guaranteed
	cl.reserved += guaranteed
	a.accounts = append(a.accounts, ac)
	return ac, nil
}

// Resize changes what the account is guaranteed and its limit, by the rules of [Arena.Account], but that a limit of 0 is one. What it uses
// beyond a lower limit it may keep until it releases it.
func (ac *Account) Resize(guaranteed, limit int64) error {
	a := ac.arena
	if guaranteed < 0 {
		return &ConfigError{fmt.Sprintf("account %q: guarantee", ac.name), guaranteed, "give 0 or more"}
	}
	a.mu.Lock()
	if ac.closed {
		a.mu.Unlock()
		return fmt.Errorf("arena: resize of account %q: account: %w", ac.name, ErrClosed)
	}
	cl := &a.classes[ac.class]
	guaranteed, limit = a.wholeSlabs(guaranteed), a.wholeSlabs(min(limit, cl.size))
	if free := cl.size - cl.guaranteed + ac.guaranteed; guaranteed > free || limit < guaranteed {
		a.mu.Unlock()
		return &ConfigError{fmt.Sprintf("account %q: guarantee", ac.name), guaranteed, fmt.Sprintf(
			"class %v has %d bytes that are not promised to others, and the limit is %d: lower it, or raise the budget", ac.class, free, limit)}
	}
	cl.reserved += max(guaranteed-ac.used, 0) - max(ac.guaranteed-ac.used, 0)
	cl.guaranteed += guaranteed - ac.guaranteed
	ac.guaranteed, ac.limit = guaranteed, limit
	a.mu.Unlock()
	a.wake(ac.class)
	return nil
}

func (a *Arena) wholeSlabs(n int64) int64 {
	s := int64(a.slabSize)
	return (n + s - 1) / s * s
}

// Name is the name given when the account was opened.
func (ac *Account) Name() string { return ac.name }

// Used is what the account uses now, in bytes: whole slabs, leased or carved, and what its large leases are charged.
func (ac *Account) Used() int64 {
	ac.arena.mu.Lock()
	defer ac.arena.mu.Unlock()
	return ac.used
}

// Room reports whether a lease of one slab would succeed now.
func (ac *Account) Room() bool {
	ac.arena.mu.Lock()
	defer ac.arena.mu.Unlock()
	return ac.fits(int64(ac.arena.slabSize))
}

// Close gives the guarantee back. If something is still leased it changes nothing and returns a *LeakError. Who waits for room is
// woken. Closing twice is one close.
func (ac *Account) Close() error {
	a := ac.arena
	a.mu.Lock()
	if ac.leases > 0 {
		err := &LeakError{What: fmt.Sprintf("account %q", ac.name), Holders: a.holders(ac)} // no holders: the last release is under way
		a.mu.Unlock()
		return err
	}
	if !ac.closed {
		ac.closed = true
		cl := &a.classes[ac.class]
		cl.guaranteed -= ac.guaranteed
		cl.reserved -= ac.guaranteed
		for i, other := range a.accounts {
			if other == ac {
				a.accounts = append(a.accounts[:i], a.accounts[i+1:]...)
				break
			}
		}
	}
	a.mu.Unlock()
	a.wake(ac.class)
	return nil
}

// fits reports whether n more bytes may be charged. The caller holds the arena's mutex.
func (ac *Account) fits(n int64) bool {
	cl := &ac.arena.classes[ac.class]
	own := min(max(ac.guaranteed-ac.used, 0), n) // what the guarantee covers
	return ac.used+n <= ac.limit && cl.used+n <= cl.size && (own == n || cl.used+cl.reserved+n-own <= cl.size) &&
		!ac.closed && !ac.arena.closed
}

// charge takes n bytes of the budget or says why not. The caller holds the arena's mutex.
func (ac *Account) charge(n int64) error {
	cl := &ac.arena.classes[ac.class]
	if !ac.fits(n) {
		switch {
		case ac.arena.closed:
			return fmt.Errorf("arena: lease for account %q: arena: %w", ac.name, ErrClosed)
		case ac.closed:
			return fmt.Errorf("arena: lease for account %q: account: %w", ac.name, ErrClosed)
		}
		ac.arena.refused++
		return &BudgetError{
			Account: ac.name, Class: ac.class, Wanted: n, Used: ac.used, Limit: ac.limit,
			ClassUsed: cl.used, ClassSize: cl.size,
		}
	}
	cl.reserved -= min(max(ac.guaranteed-ac.used, 0), n)
	cl.used += n
	ac.used += n
	return nil
}

// credit gives n bytes back. The caller holds the arena's mutex.
func (ac *Account) credit(n int64) {
	cl := &ac.arena.classes[ac.class]
	ac.used -= n
	cl.used -= n
	cl.reserved += min(max(ac.guaranteed-ac.used, 0), n)
}

// Lease leases one slab, the one last released if there is one. Its bytes are what the last user left there. The caller holds one
// reference. It never blocks: the error is a *BudgetError, or wraps ErrClosed.
func (ac *Account) Lease() (*Slab, error) {
	a := ac.arena
	a.mu.Lock()
	if err := ac.charge(int64(a.slabSize)); err != nil {
		a.mu.Unlock()
		return nil, err
	}
	p := a.pool.take()
	s := a.pool.pages[p].slot
	if s == nil {
		s = a.slots.add()
		a.pool.pages[p].slot = s
	}
	s.page = p
	s.open(ac, a.pool.pages[p].mem)
	a.mu.Unlock()
	s.trace.note("lease", true)
	return s, nil
}
