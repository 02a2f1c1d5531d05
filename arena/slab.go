package arena

import (
	"fmt"
	"sync/atomic"

	"github.com/penstock-dev/penstock/internal/invariants"
)

const (
	refsBits = 20
	refsMask = 1<<refsBits - 1
	maxGen   = 1<<(64-refsBits) - 1

	poison = 0xDB
)

// Slab is a lease of memory: a whole slab, a part of one made to size, or a large reservation that grows. It is shared by counting
// references; the last release ends the lease and makes every Ref to it stale.
//
//	state   [ generation: 44 bits | references: 20 bits ]   one word, so that a Ref is checked and pinned in one step
//
// Retain, Release, Ref and Bytes may be called from any goroutine that holds a reference, Grow only while no other goroutine calls
// Bytes. Who writes to the bytes must be alone with them.
type Slab struct {
	trace   slabTrace // empty without the tag penstock_trace
	state   atomic.Uint64
	mem     []byte
	account *Account
	run     *run   // of a sized lease: where its chunk came from
	big     *large // of a large lease
	index   uint32 // slot
	page    uint32 // of a whole slab: its memory
}

// Bytes is all memory that is usable now. It is valid while the caller holds a reference. The slice of a large lease is longer after
// Grow, and may lie elsewhere.
func (s *Slab) Bytes() []byte { return s.mem }

// Ref names n bytes from off on. The caller holds a reference.
func (s *Slab) Ref(off, n uint32) Ref {
	return Ref{gen: s.state.Load() >> refsBits, slot: s.index, off: off, n: n}
}

// Retain takes one more reference. The caller holds one already. It panics if nobody holds one.
func (s *Slab) Retain() {
	s.trace.note("retain", false)
	for {
		st := s.state.Load()
		if refs := st & refsMask; refs == 0 || refs == refsMask {
			s.misused("retained", st)
		}
		if s.state.CompareAndSwap(st, st+1) {
			return
		}
	}
}

// Release gives one reference back; it is the caller's last use of the slab by that reference. The last one ends the lease: the
// generation moves on and the memory is free. Release panics if nobody holds a reference.
func (s *Slab) Release() {
	s.trace.note("release", false)
	for {
		st := s.state.Load()
		switch st & refsMask {
		case 0:
			s.misused("released", st)
		case 1:
			// One reference is left and it is ours: nobody else may add one but Resolve, which makes the swap fail.
			next := (st>>refsBits + 1) << refsBits
			if st>>refsBits == maxGen {
				next = st - 1 // no generation left: the slot is retired, see free
			}
			if s.state.CompareAndSwap(st, next) {
				s.free(next == st-1)
				return
			}
		default:
			if s.state.CompareAndSwap(st, st-1) {
				return
			}
		}
	}
}

// open begins a lease. The caller holds the arena's mutex and has charged the account.
func (s *Slab) open(ac *Account, mem []byte) {
	s.account, s.mem = ac, mem
	ac.leases++
	ac.arena.leases++
	s.state.Store(s.state.Load() | 1)
}

// free gives the memory of a lease that has ended back. A retired slot is never used again.
func (s *Slab) free(retired bool) {
	ac := s.account
	a := ac.arena
	if invariants.Enabled {
		fill(s.mem, poison)
	}
	if s.big != nil {
		s.big.free()
	}
	a.mu.Lock()
	switch {
	case s.big != nil:
		ac.credit(s.big.charged)
		a.large -= s.big.charged
	case s.run != nil:
		ac.giveChunk(s.run, s.mem)
	default:
		ac.credit(int64(a.slabSize))
		if retired {
			a.pool.pages[s.page].slot = nil
		}
		a.pool.give(s.page)
	}
	if s.big != nil || s.run != nil { // the slot is for any such lease; that of a whole slab stays with its page
		s.mem, s.big, s.run = nil, nil, nil
		if !retired {
			a.slots.give(s)
		}
	}
	ac.leases--
	a.leases--
	wake := len(a.classes[ac.class].waiting) > 0
	if a.closed && a.leases == 0 {
		a.pool.close()
	}
	a.mu.Unlock()
	if wake {
		a.wake(ac.class)
	}
}

func (s *Slab) misused(how string, st uint64) {
	if st&refsMask == refsMask {
		panic(fmt.Sprintf("arena: slab %s %s with %d references: no more can be counted", s.name(st), how, st&refsMask))
	}
	panic(fmt.Sprintf("arena: slab %s %s, but nobody holds a reference: it was released once too often "+
		"(build with -tags penstock_trace to see by whom)%s", s.name(st), how, s.trace.history()))
}

// name is slot.generation.
func (s *Slab) name(st uint64) string { return fmt.Sprintf("%d.%d", s.index, st>>refsBits) }

func fill(b []byte, with byte) {
	if len(b) == 0 {
		return
	}
	b[0] = with
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// slots finds a slab by its index. Reading takes no lock; adding and giving back are guarded by the arena's mutex.
type slots struct {
	dir  atomic.Pointer[[]*slotBlock]
	n    uint32   // slots ever made
	free []uint32 // slots without memory, for sized and large leases
}

const slotBlockLen = 1024

type slotBlock [slotBlockLen]Slab

// at is the slab of slot i, or nil.
func (t *slots) at(i uint32) *Slab {
	d := t.dir.Load()
	if d == nil || int(i/slotBlockLen) >= len(*d) {
		return nil
	}
	return &(*d)[i/slotBlockLen][i%slotBlockLen]
}

// add makes a slot. Its first generation is 1, so that the zero Ref is never valid.
func (t *slots) add() *Slab {
	if t.n%slotBlockLen == 0 {
		var d []*slotBlock
		if old := t.dir.Load(); old != nil {
			d = append(d, *old...)
		}
		d = append(d, new(slotBlock))
		t.dir.Store(&d)
	}
	s := t.at(t.n)
	s.index = t.n
	s.state.Store(1 << refsBits)
	t.n++
	return s
}

// take is a slot without memory.
func (t *slots) take() *Slab {
	if n := len(t.free); n > 0 {
		s := t.at(t.free[n-1])
		t.free = t.free[:n-1]
		return s
	}
	return t.add()
}

func (t *slots) give(s *Slab) { t.free = append(t.free, s.index) }

// all yields every slot. The caller holds the arena's mutex.
func (t *slots) all(yield func(*Slab) bool) {
	for i := range t.n {
		if !yield(t.at(i)) {
			return
		}
	}
}
