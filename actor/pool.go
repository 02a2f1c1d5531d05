package actor

import (
	"sync"
	"sync/atomic"

	"github.com/penstock-dev/penstock/loop"
)

// pool parts each delivery among workers. With order by key, a message goes to the worker that its key's hash names, so messages of one
// key stay in order; without, workers take runs of messages as they become free.
type pool struct {
	a      *Actor
	shared chan part   // without order
	own    []chan part // with order, by worker
	spare  sync.Pool   // of *parted
}

// parted is a delivery that several workers are at. The last one returns it.
type parted struct {
	d     loop.Delivery
	left  atomic.Int32
	index []uint32 // all indices, worker by worker
	count []int
}

// part is a worker's share of a delivery.
type part struct {
	whole  *parted
	pick   []uint32 // nil for all
	resume []uint64
}

func newPool(a *Actor) *pool {
	p := &pool{a: a, shared: make(chan part, len(a.workers))}
	for range a.workers {
		p.own = append(p.own, make(chan part, a.cfg.Places))
	}
	p.spare.New = func() any { return &parted{count: make([]int, len(a.workers))} }
	return p
}

func (p *pool) start() {
	for i, w := range p.a.workers {
		in := p.shared
		if p.a.cfg.Order {
			in = p.own[i]
		}
		p.a.done.Go(func() { w.servePool(in) })
	}
	p.a.done.Go(p.deal)
}

// deal takes deliveries from the mailbox and parts them, until the actor is stopped.
func (p *pool) deal() {
	for {
		d := <-p.a.mailbox
		p.a.answered(&d)
		if d.Lane != nil {
			p.part(d)
		}
		p.a.obey(p.a.workers[0])
		if p.a.stopping.Load() {
			return
		}
	}
}

func (p *pool) part(d loop.Delivery) {
	t := p.spare.Get().(*parted)
	t.d = d
	switch {
	case p.a.cfg.Order:
		p.byKey(t)
	default:
		p.byRun(t)
	}
}

// send hands parts to a worker. When the actor is being stopped the part is given back instead.
func (p *pool) send(to chan part, x part) {
	select {
	case to <- x:
	case <-p.a.ctx.Done():
		p.giveBack(x)
	}
}

func (p *pool) giveBack(x part) {
	w := newWorker(p.a)
	w.revoke(&x.whole.d, x.pick)
	p.release(x.whole)
}

// byRun parts the delivery into as many runs as there are workers.
func (p *pool) byRun(t *parted) {
	n := t.d.Len()
	if n == 0 {
		t.left.Store(1)
		p.release(t)
		return
	}
	t.indices()
	runs := min(len(p.a.workers), n)
	t.left.Store(int32(runs))
	for r := range runs {
		p.send(p.shared, part{whole: t, pick: t.index[n*r/runs : n*(r+1)/runs]})
	}
}

// indices lists the messages of the delivery.
func (t *parted) indices() {
	t.index = t.index[:0]
	if s := t.d.Special; s != nil && s.Pick != nil {
		t.index = append(t.index, s.Pick...)
		return
	}
	for i := range t.d.Len() {
		t.index = append(t.index, uint32(i))
	}
}

// byKey parts the delivery by key, in two passes: count, then place.
func (p *pool) byKey(t *parted) {
	workers := uint64(len(p.own))
	if t.d.Batch == nil { // word to let keys go, for whoever keeps them back
		t.left.Store(int32(len(t.d.Special.Resume)))
		for _, h := range t.d.Special.Resume {
			p.send(p.own[h%workers], part{whole: t, resume: []uint64{h}})
		}
		return
	}
	hashes := t.d.Batch.Hashes
	worker := func(i uint32) uint64 {
		if len(hashes) == 0 || hashes[i] == 0 {
			return uint64(i) % workers
		}
		return hashes[i] % workers
	}
	t.indices()
	all := append([]uint32(nil), t.index...)
	clear(t.count)
	for _, i := range all {
		t.count[worker(i)]++
	}
	parts, at := int32(0), 0
	for w, n := range t.count {
		if n > 0 {
			parts++
		}
		t.count[w] = at
		at += n
	}
	for _, i := range all {
		w := worker(i)
		t.index[t.count[w]] = i
		t.count[w]++
	}
	t.left.Store(parts)
	var resume []uint64
	if s := t.d.Special; s != nil {
		resume = s.Resume // of a lone message: its key, so its worker
	}
	from, index, ends := 0, t.index, append([]int(nil), t.count...)
	for w, end := range ends {
		if end > from {
			p.send(p.own[w], part{whole: t, pick: index[from:end:end], resume: resume})
		}
		from = end
	}
}

// release counts one part as done; the last one returns the delivery.
func (p *pool) release(t *parted) {
	if t.left.Add(-1) > 0 {
		return
	}
	p.a.finish(&t.d)
	t.d = loop.Delivery{}
	p.spare.Put(t)
}

// servePool takes parts until the actor is stopped.
func (w *worker) servePool(in chan part) {
	for {
		select {
		case x := <-in:
			w.takePart(w.a.pool, x)
		case <-w.a.ctx.Done():
			return
		}
	}
}

// returnAll gives back the parts that nobody will serve. It is called when no worker runs any more.
func (p *pool) returnAll() {
	for _, in := range append(p.own, p.shared) {
		for len(in) > 0 {
			p.giveBack(<-in)
		}
	}
}

func (w *worker) takePart(p *pool, x part) {
	d := &x.whole.d
	w.letGo(d, x.resume)
	if d.Batch != nil {
		w.handle(d, x.pick)
		if detail := w.detail(); detail != nil {
			d.Lane.Report(d.Unit, false, detail)
		}
	}
	p.release(x.whole)
	w.restart()
}
