package arena

import (
	"fmt"
	"math"
	"math/bits"
	"sync"
)

// Defaults of [Config].
const (
	DefaultBudget   = 256 << 20
	DefaultSlabSize = 256 << 10
)

const (
	minSlabSize  = 4 << 10
	maxSlabSize  = 1 << 30
	minPerClass  = 2  // slabs
	leastSlabs   = 11 // the smallest budget of which each class gets as many
	maxSlabs     = 1 << 31
	largeStepMax = 64 << 10
)

// Config is what an arena is made of. The zero value means all defaults.
type Config struct {
	Budget   int64 // bytes of message memory in all, at most; 0 means DefaultBudget
	SlabSize int   // bytes of a slab, a power of two, at least 4 KiB; 0 means DefaultSlabSize
	Strict   bool  // allow StrictCopy: reserves address space, not memory
}

// Class is a part of the budget. Classes never borrow from each other, so that the way out is not blocked by the way in.
type Class uint8

// The classes, in the order of a message's way.
const (
	Sources    Class = iota // what is read: 70 % of the budget
	Emits                   // what handlers emit: 20 %
	Evacuation              // copies of messages that stay: 10 %, and what rounding to whole slabs leaves over
	classes    = 3
)

// String is the name of the class in lower case.
func (c Class) String() string {
	switch c {
	case Sources:
		return "sources"
	case Emits:
		return "emits"
	case Evacuation:
		return "evacuation"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Arena is a memory budget cut in slabs. All methods may be called from any goroutine at any time, except that nothing may be
// asked of it after Close but Close, Stats and the release of what is still leased.
type Arena struct {
	budget    int64
	slabSize  int
	largeStep int64 // what a large lease is charged at a time

	slots   slots // index -> slab, read without lock
	strict  *strictSpace
	batches batchPool

	mu       sync.Mutex // guards all below, and who holds what; never held while foreign code runs
	pool     pool
	classes  [classes]class
	sizing   sizing
	accounts []*Account
	leases   int   // not released
	sized    int64 // bytes leased by LeaseSized, as chunks
	large    int64 // bytes charged to large leases
	refused  uint64
	closed   bool
}

// New makes an arena. It maps address space at once and takes memory as slabs are first leased. The error is a *ConfigError, or that
// of the operating system. Close gives everything back.
func New(cfg Config) (*Arena, error) {
	if cfg.Budget == 0 {
		cfg.Budget = DefaultBudget
	}
	if cfg.SlabSize == 0 {
		cfg.SlabSize = DefaultSlabSize
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	a := &Arena{budget: cfg.Budget, slabSize: cfg.SlabSize, largeStep: int64(min(largeStepMax, cfg.SlabSize))}
	n := cfg.Budget / int64(cfg.SlabSize)
	for c, slabs := range split(n) {
		a.classes[c].size = slabs * int64(cfg.SlabSize)
	}
	a.sizing = newSizing(cfg.SlabSize)
	a.batches.limit = cfg.Budget / 16
	if err := a.pool.open(uint32(n), cfg.SlabSize); err != nil {
		return nil, fmt.Errorf("arena: mapping %d bytes of address space: %w", n*int64(cfg.SlabSize), err)
	}
	if cfg.Strict {
		space, err := newStrictSpace()
		if err != nil {
			a.pool.close()
			return nil, fmt.Errorf("arena: reserving address space for strict mode: %w", err)
		}
		a.strict = space
	}
	return a, nil
}

func (c Config) check() error {
	if c.SlabSize < minSlabSize || c.SlabSize > maxSlabSize || bits.OnesCount(uint(c.SlabSize)) != 1 {
		return &ConfigError{"SlabSize", int64(c.SlabSize), "give a power of two from 4 KiB to 1 GiB"}
	}
	n := c.Budget / int64(c.SlabSize)
	if n >= maxSlabs || c.Budget > math.MaxInt {
		return &ConfigError{"Budget", c.Budget, "too many slabs: give larger slabs or a smaller budget"}
	}
	for _, slabs := range split(n) {
		if slabs < minPerClass {
			return &ConfigError{"Budget", c.Budget, fmt.Sprintf("a class needs at least %d slabs: give %d bytes or more, or slabs smaller than %d",
				minPerClass, leastSlabs*int64(c.SlabSize), c.SlabSize)}
		}
	}
	return nil
}

// split parts n slabs among the classes. What rounding leaves over is for evacuation.
func split(n int64) [classes]int64 {
	s := [classes]int64{Sources: n * 7 / 10, Emits: n * 2 / 10}
	s[Evacuation] = n - s[Sources] - s[Emits]
	return s
}

// SlabSize is the length in bytes of a slab.
func (a *Arena) SlabSize() int { return a.slabSize }

// Close ends the arena: no lease is given any more, and who waits for room is woken. If all leases have been released it gives the
// memory back and returns nil. Otherwise it returns a *LeakError; the memory then stays until the last lease is released, so that a
// late reader does no harm. Close may be called again and then tells what is still leased.
func (a *Arena) Close() error {
	a.mu.Lock()
	first := !a.closed
	a.closed = true
	var err error
	if a.leases == 0 {
		a.pool.close()
	} else if held := a.holders(nil); len(held) > 0 { // none: the last release is under way and closes the pool
		err = &LeakError{What: "arena", Holders: held}
	}
	a.mu.Unlock()
	if first {
		if a.strict != nil {
			a.strict.close()
		}
		for c := range a.classes {
			a.wake(Class(c))
		}
	}
	return err
}

// Holders lists every lease that is not released. Only builds with the tag penstock_trace know the stacks. It looks at every slot:
// it is for humans who look for a leak.
func (a *Arena) Holders() []Holder {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holders(nil)
}

// holders lists the leases of one account, or of all. The caller holds a.mu.
func (a *Arena) holders(of *Account) (list []Holder) {
	for s := range a.slots.all {
		st := s.state.Load()
		if st&refsMask == 0 || s.account == nil || of != nil && s.account != of {
			continue
		}
		list = append(list, Holder{
			Slab: s.name(st), Account: s.account.name, Class: s.account.class,
			Bytes: len(s.mem), Refs: int(st & refsMask), Stacks: s.trace.stacks(),
		})
	}
	return list
}

// Stats is a picture of an arena at one moment. Amounts are in bytes.
type Stats struct {
	Budget      int64
	Capacity    [classes]int64 // by Class
	Used        [classes]int64 // by Class; whole slabs, and what large leases are charged
	Guaranteed  [classes]int64 // by Class; promised to accounts, used or not
	SlabsFree   int            // that could be leased, as far as the budget allows
	SlabsLeased int            // leased whole, or carved for sized leases
	Sized       int64          // leased by LeaseSized, rounded up as they are
	Large       int64          // charged to large leases
	Refused     uint64         // leases and growths that found no room, ever
	Leases      int            // not released
	Resident    int64          // memory taken from the operating system: slabs that have been touched and not given back, and Large
}

// Stats is the picture now.
func (a *Arena) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Stats{
		Budget: a.budget, SlabsLeased: int(a.pool.leased), SlabsFree: int(a.pool.n - a.pool.leased),
		Sized: a.sized, Large: a.large, Refused: a.refused, Leases: a.leases, Resident: a.resident(),
	}
	for i := range a.classes {
		c := &a.classes[i]
		s.Capacity[i], s.Used[i], s.Guaranteed[i] = c.size, c.used, c.guaranteed
	}
	return s
}

// resident is what has been touched and not given back. The caller holds a.mu.
func (a *Arena) resident() int64 { return int64(a.pool.touched)*int64(a.slabSize) + a.large }
