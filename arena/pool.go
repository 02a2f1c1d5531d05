package arena

// none ends a list of pages.
const none = ^uint32(0)

// page is the memory of one slab. mem is set while it is touched.
type page struct {
	mem    []byte
	slot   *Slab  // that leases of this page use; nil before the first, and after its generations ran out
	hotter uint32 // neighbours among the free touched pages
	colder uint32
}

// pool is the memory of the slabs. Free pages that have been touched form a stack, hottest first, from whose cold end memory is given
// back to the operating system when large leases need it.
//
//	hot -> 7 -> 2 -> 9 <- cold      touched, free        lease takes 7; eviction takes 9
//	evicted: 4, 5                   given back
//	fresh: 10, 11, ...              never touched
//
// It is guarded by the arena's mutex.
type pool struct {
	memory  memory
	pages   []page
	hot     uint32
	cold    uint32
	evicted []uint32
	fresh   uint32 // this page and all above have never been taken
	n       uint32
	touched uint32 // pages that have memory, free or leased
	leased  uint32
}

func (p *pool) open(n uint32, slabSize int) error {
	p.n, p.hot, p.cold = n, none, none
	p.pages = make([]page, n)
	return p.memory.open(int(n), slabSize)
}

func (p *pool) close() {
	p.memory.close()
	p.hot, p.cold, p.touched = none, none, 0
}

// take is a free page with memory. There is one, because the budget is charged first.
func (p *pool) take() uint32 {
	i := p.hot
	switch {
	case i != none:
		p.unlink(i)
	case len(p.evicted) > 0:
		i = p.evicted[len(p.evicted)-1]
		p.evicted = p.evicted[:len(p.evicted)-1]
		p.touch(i)
	default:
		i = p.fresh
		p.fresh++
		p.touch(i)
	}
	p.leased++
	return i
}

func (p *pool) touch(i uint32) {
	p.pages[i].mem = p.memory.slab(int(i))
	p.touched++
}

// give makes page i the hottest free one.
func (p *pool) give(i uint32) {
	pg := &p.pages[i]
	pg.hotter, pg.colder = none, p.hot
	if p.hot != none {
		p.pages[p.hot].hotter = i
	} else {
		p.cold = i
	}
	p.hot = i
	p.leased--
}

// evict gives the memory of the coldest free page back to the operating system. It reports false if no free page has memory, or if
// the operating system refuses.
func (p *pool) evict() bool {
	i := p.cold
	if i == none || !p.memory.discard(p.pages[i].mem) {
		return false
	}
	p.unlink(i)
	p.pages[i].mem = nil
	p.touched--
	p.evicted = append(p.evicted, i)
	return true
}

func (p *pool) unlink(i uint32) {
	pg := &p.pages[i]
	if pg.hotter != none {
		p.pages[pg.hotter].colder = pg.colder
	} else {
		p.hot = pg.colder
	}
	if pg.colder != none {
		p.pages[pg.colder].hotter = pg.hotter
	} else {
		p.cold = pg.hotter
	}
}
