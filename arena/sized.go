package arena

import (
	"fmt"
	"math/bits"
	"unsafe"
)

// Sized leases. An account carves slabs in 64 units, and runs of units in chunks of one size:
//
//	slab   [ run of 1 unit: 4 x 1 KiB | run of 5 units: 8 x 2.5 KiB | a chunk of 9 units | free ... ]     64 units
//
// Sizes go in four steps a doubling. A chunk has a slot of its own, and so its own index, generation and references. A run whose chunks
// are all free gives its units back; a slab whose units are all free goes back to the pool.

const (
	units        = 64
	minChunk     = 64 // bytes
	maxRunChunks = 64 // a run marks its free chunks in one word
	runUnitsMax  = 16
	chunkUnits   = 4 // larger chunks are runs of their own
	noKind       = -1
)

// runKind is how chunks of one size are carved.
type runKind struct {
	size   int // bytes of a chunk
	units  int // of a run
	chunks int // in a run
}

// sizing is the table of sizes of an arena. It does not change.
type sizing struct {
	unit  int // bytes
	least int // the smallest chunk in bytes
	kinds []runKind
}

func newSizing(slabSize int) sizing {
	z := sizing{unit: slabSize / units}
	z.least = max(minChunk, z.unit/maxRunChunks)
	for base := z.least; base < chunkUnits*z.unit; base *= 2 {
		for step := range 4 {
			z.kinds = append(z.kinds, z.layout(base+base/4*step))
		}
	}
	z.kinds = append(z.kinds, z.layout(chunkUnits*z.unit))
	return z
}

// layout finds a short run that chunks of this size fill well.
func (z *sizing) layout(size int) (best runKind) {
	least := 1.0
	for u := (size + z.unit - 1) / z.unit; u <= runUnitsMax; u++ {
		n := u * z.unit / size
		if n > maxRunChunks {
			break
		}
		waste := 1 - float64(n*size)/float64(u*z.unit)
		if waste < least {
			best, least = runKind{size: size, units: u, chunks: n}, waste
		}
		if waste <= 1.0/16 {
			break
		}
	}
	return best
}

// kind is the index of the smallest size that holds n bytes, or noKind if they need a run of their own.
func (z *sizing) kind(n int) int {
	if n > chunkUnits*z.unit {
		return noKind
	}
	if n <= z.least {
		return 0
	}
	// n-1 has its leading one at the doubling; the two bits below say which quarter.
	top := bits.Len(uint(n-1)) - 1
	quarter := (n-1)>>(top-2)&3 + 1
	return (top-bits.Len(uint(z.least))+1)*4 + quarter
}

// run is some units of a carved slab, in chunks of one size.
type run struct {
	yard  *yard
	kind  int
	first int // unit
	units int
	free  uint64 // a bit for each free chunk
	all   uint64 // free when all are

	next, prev *run // of the same kind, with free chunks
}

// yard is a slab that is being carved.
type yard struct {
	page uint32
	mem  []byte
	used uint64 // a bit for each unit

	next, prev *yard // whose longest free run of units is as long
	fits       int   // that length
}

// carving is what an account has carved. It is guarded by the arena's mutex.
type carving struct {
	runs       []*run           // by kind: the first with a free chunk
	yards      [units + 1]*yard // by the longest free run of units
	spare      []*run           // for reuse
	spareYards []*yard
}

// LeaseSized leases memory for n bytes, for messages that stay and for the beginnings of split frames: Bytes is at least n long, and
// at most a quarter longer for n from 64 bytes up. The account is charged whole slabs, as it carves them. More than a slab is a large
// lease that has grown to n. The caller holds one reference. It never blocks: the error is a *BudgetError, or wraps ErrClosed.
func (ac *Account) LeaseSized(n int) (*Slab, error) {
	a := ac.arena
	if n > a.slabSize {
		s, err := ac.LeaseLarge(n)
		if err != nil {
			return nil, err
		}
		if err := s.Grow(n); err != nil {
			s.Release()
			return nil, err
		}
		return s, nil
	}
	if n < 0 {
		return nil, fmt.Errorf("arena: sized lease of %d bytes for account %q: give 0 or more", n, ac.name)
	}
	a.mu.Lock()
	r, mem, err := ac.takeChunk(n)
	if err != nil {
		a.mu.Unlock()
		return nil, err
	}
	s := a.slots.take()
	s.run = r
	s.open(ac, mem)
	a.sized += int64(len(mem))
	a.mu.Unlock()
	s.trace.note("lease", true)
	return s, nil
}

// takeChunk finds or carves a chunk for n bytes. The caller holds the arena's mutex.
func (ac *Account) takeChunk(n int) (*run, []byte, error) {
	z, c := &ac.arena.sizing, &ac.carving
	k := z.kind(n)
	if c.runs == nil {
		c.runs = make([]*run, len(z.kinds))
	}
	var r *run
	if k != noKind {
		r = c.runs[k]
	}
	if r == nil {
		var err error
		if r, err = ac.carve(k, n); err != nil {
			return nil, nil, err
		}
	}
	i := bits.TrailingZeros64(r.free)
	r.free &^= 1 << i
	if r.free == 0 && k != noKind {
		c.unlinkRun(r)
	}
	size := r.units * z.unit
	if k != noKind {
		size = z.kinds[k].size
	}
	off := r.first*z.unit + i*size
	return r, r.yard.mem[off : off+size : off+size], nil
}

// carve makes a run of kind k, or one of its own for n bytes, and takes a slab for it if no carved one has room.
func (ac *Account) carve(k, n int) (*run, error) {
	z, c := &ac.arena.sizing, &ac.carving
	want, chunks := (n+z.unit-1)/z.unit, 1
	if k != noKind {
		want, chunks = z.kinds[k].units, z.kinds[k].chunks
	}
	var y *yard
	for l := want; l <= units && y == nil; l++ {
		y = c.yards[l]
	}
	if y == nil {
		var err error
		if y, err = ac.newYard(); err != nil {
			return nil, err
		}
	}
	r := c.newRun()
	first := findRun(y.used, want)
	*r = run{yard: y, kind: k, first: first, units: want, all: ones(chunks)}
	r.free = r.all
	c.setUsed(y, y.used|ones(want)<<first)
	if k != noKind {
		c.linkRun(r)
	}
	return r, nil
}

func (ac *Account) newYard() (*yard, error) {
	a, c := ac.arena, &ac.carving
	if err := ac.charge(int64(a.slabSize)); err != nil {
		return nil, err
	}
	p := a.pool.take()
	var y *yard
	if n := len(c.spareYards); n > 0 {
		y = c.spareYards[n-1]
		c.spareYards = c.spareYards[:n-1]
	} else {
		y = new(yard)
	}
	*y = yard{page: p, mem: a.pool.pages[p].mem, fits: units}
	c.linkYard(y)
	return y, nil
}

// giveChunk takes mem back. The caller holds the arena's mutex.
func (ac *Account) giveChunk(r *run, mem []byte) {
	a, c := ac.arena, &ac.carving
	a.sized -= int64(len(mem))
	y := r.yard
	off := int(uintptr(unsafe.Pointer(&mem[0])) - uintptr(unsafe.Pointer(&y.mem[0])))
	i := (off - r.first*a.sizing.unit) / len(mem)
	if r.free == 0 && r.kind != noKind {
		c.linkRun(r)
	}
	r.free |= 1 << i
	if r.free != r.all {
		return
	}
	if r.kind != noKind {
		c.unlinkRun(r)
	}
	c.setUsed(y, y.used&^(ones(r.units)<<r.first))
	*r = run{}
	c.spare = append(c.spare, r)
	if y.used != 0 {
		return
	}
	c.unlinkYard(y)
	ac.credit(int64(a.slabSize))
	a.pool.give(y.page)
	*y = yard{}
	c.spareYards = append(c.spareYards, y)
}

func (c *carving) newRun() *run {
	if n := len(c.spare); n > 0 {
		r := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return r
	}
	return new(run)
}

func (c *carving) linkRun(r *run) {
	r.prev, r.next = nil, c.runs[r.kind]
	if r.next != nil {
		r.next.prev = r
	}
	c.runs[r.kind] = r
}

func (c *carving) unlinkRun(r *run) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		c.runs[r.kind] = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.next, r.prev = nil, nil
}

// setUsed changes which units of y are used, and files y anew.
func (c *carving) setUsed(y *yard, used uint64) {
	y.used = used
	if fits := longestRun(used); fits != y.fits {
		c.unlinkYard(y)
		y.fits = fits
		c.linkYard(y)
	}
}

func (c *carving) linkYard(y *yard) {
	y.prev, y.next = nil, c.yards[y.fits]
	if y.next != nil {
		y.next.prev = y
	}
	c.yards[y.fits] = y
}

func (c *carving) unlinkYard(y *yard) {
	if y.prev != nil {
		y.prev.next = y.next
	} else {
		c.yards[y.fits] = y.next
	}
	if y.next != nil {
		y.next.prev = y.prev
	}
	y.next, y.prev = nil, nil
}

// ones is a word whose lowest n bits are set.
func ones(n int) uint64 { return ^uint64(0) >> (64 - n) }

// findRun is the first place where n zero bits lie together in used. There is one.
func findRun(used uint64, n int) int {
	free := ^used
	for have := 1; have < n; {
		step := min(have, n-have)
		free &= free >> step
		have += step
	}
	return bits.TrailingZeros64(free)
}

// longestRun is the greatest number of zero bits that lie together in used.
func longestRun(used uint64) (n int) {
	for free := ^used; free != 0; free &= free >> 1 {
		n++
	}
	return n
}
