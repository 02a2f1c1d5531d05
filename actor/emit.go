package actor

import (
	"context"
	"errors"
	"fmt"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/internal/mutate"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// emitter gathers what a worker's handler emits while it goes through a delivery. Payloads are copied, one after the other, into a slab of
// the plugin's own that many deliveries share; each stream's frames make a batch. Frames belong to an attempt until commit releases, or
// discard drops, them; take gives on what has been released.
type emitter struct {
	w       *worker
	slab    *arena.Slab // being filled; nil before the first emit
	off     uint32
	open    []openBatch
	linked  []linked
	attempt int  // bytes emitted by the call in hand
	leased  int  // bytes of memory leased for them
	loose   bool // frames that are neither released nor dropped
}

// openBatch is a batch that is being filled. Its first released frames may go.
type openBatch struct {
	stream   loop.StreamID
	batch    *arena.Batch
	released int
	links    []uint64
}

// linked is an emit that has held messages for parents, too.
type linked struct {
	batch   *arena.Batch
	parent  uint32
	parents []*plugin.Held
}

// Emit implements plugin.Host.
func (w *worker) Emit(_ lend.Key, m *plugin.Message, stream string, payload []byte, x *plugin.Emission) error {
	id, err := w.a.declared(w.d.Lane, stream)
	if err != nil {
		return err
	}
	if w.step != nil {
		x = traced(x, w.step.Traceparent())
	}
	size := len(payload) + len(x.Key) + len(x.Headers)
	if err := w.a.tooLarge(size, w.emits.attempt); err != nil {
		return err
	}
	if len(x.Parents) > 0 && m.Held(key) != nil {
		return fmt.Errorf("plugin %q: emit to %q: EmitFrom after Hold: %w", w.a.cfg.Name, stream, errAggregate)
	}
	for i, h := range x.Parents {
		if err := h.Link(key); err != nil {
			for _, linked := range x.Parents[:i] {
				linked.Unlink(key)
			}
			return fmt.Errorf("plugin %q: emit to %q: parent %d: %w", w.a.cfg.Name, stream, i, err)
		}
	}
	e := &w.emits
	o, err := e.batchFor(id, size, len(x.Parents) > 0)
	if err != nil {
		for _, h := range x.Parents {
			h.Unlink(key)
		}
		return fmt.Errorf("plugin %q: emit to %q: %w", w.a.cfg.Name, stream, err)
	}
	e.off = o.put(e.off, payload, x, w.a.cfg.Hash)
	parent := uint32(m.Index(key))
	o.batch.Parents = append(o.batch.Parents, parent)
	if len(x.Parents) > 0 {
		e.linked = append(e.linked, linked{batch: o.batch, parent: parent, parents: x.Parents})
	}
	e.attempt += size
	e.loose, w.touched = true, true
	return nil
}

// traced is x with the header that says which trace the message belongs to.
func traced(x *plugin.Emission, parent []byte) *plugin.Emission {
	y := *x
	y.Headers = arena.AppendHeader(nil, arena.TraceHeader, parent)
	for name, value, rest, ok := arena.NextHeader(x.Headers); ok; name, value, rest, ok = arena.NextHeader(rest) {
		if string(name) != arena.TraceHeader {
			y.Headers = arena.AppendHeader(y.Headers, string(name), value)
		}
	}
	return &y
}

// declared finds a stream that the plugin may emit to.
func (a *Actor) declared(l *loop.Lane, stream string) (loop.StreamID, error) {
	t := a.tune.Load()
	if t.emits[stream] {
		if id, ok := l.StreamID(stream); ok {
			return id, nil
		}
	}
	return 0, fmt.Errorf("plugin %q: emit to %q: %w (declared: %q)", a.cfg.Name, stream, plugin.ErrUndeclared, t.Emits)
}

func (a *Actor) tooLarge(size, before int) error {
	switch most := a.tune.Load().MaxEmit; {
	case size > a.cfg.MaxMessage:
		return fmt.Errorf("plugin %q: %w: %d bytes, the largest message is %d", a.cfg.Name, plugin.ErrEmitTooLarge, size, a.cfg.MaxMessage)
	case before+size > most:
		return fmt.Errorf("plugin %q: %w: %d bytes in one call, the bound is %d", a.cfg.Name, plugin.ErrEmitTooLarge, before+size, most)
	default:
		return nil
	}
}

// put writes a message at off and adds its frame. It returns where the next one goes.
func (o *openBatch) put(off uint32, payload []byte, x *plugin.Emission, hash func([]byte) uint64) uint32 {
	b := o.batch
	mem := b.Slab.Bytes()
	f := arena.Frame{Off: off, Len: uint32(len(payload)), KeyLen: uint32(len(x.Key)), HdrLen: uint32(len(x.Headers))}
	off += uint32(copy(mem[off:], payload))
	f.KeyOff = off
	off += uint32(copy(mem[off:], x.Key))
	f.HdrOff = off
	off += uint32(copy(mem[off:], x.Headers))
	b.Frames = append(b.Frames, f)
	h := uint64(0)
	if len(x.Key) > 0 && hash != nil {
		h = hash(x.Key)
	}
	b.Hashes = append(b.Hashes, h)
	return off
}

// batchFor finds, or makes, a batch of the stream with room for size bytes. alone asks for one that nobody else uses.
func (e *emitter) batchFor(id loop.StreamID, size int, alone bool) (*openBatch, error) {
	a := e.w.a
	if size > a.cfg.Arena.SlabSize()/4 { // would waste too much of the shared slab
		slab, err := e.lease(takes(size, a.cfg.Arena.SlabSize()), func() (*arena.Slab, error) { return a.cfg.EmitMemory.LeaseSized(size) })
		if err != nil {
			return nil, err
		}
		e.letGo()
		e.off = 0
		return e.add(id, slab), nil
	}
	if e.slab == nil || int(e.off)+size > len(e.slab.Bytes()) {
		slab, err := e.lease(a.cfg.Arena.SlabSize(), a.cfg.EmitMemory.Lease)
		if err != nil {
			return nil, err
		}
		e.letGo()
		e.slab, e.off = slab, 0
	}
	for i := len(e.open) - 1; i >= 0 && !alone; i-- {
		o := &e.open[i]
		if o.stream != id {
			continue
		}
		if o.batch.Slab == e.slab && len(o.links) == 0 && !e.isLinked(o.batch) {
			return o, nil
		}
		if mutate.On(mutate.EmitReorders) {
			continue
		}
		break // the stream's last batch is not to be added to, and an earlier one would change the order
	}
	e.slab.Retain()
	return e.add(id, e.slab), nil
}

func (e *emitter) isLinked(b *arena.Batch) bool {
	for i := range e.linked {
		if e.linked[i].batch == b {
			return true
		}
	}
	return false
}

func (e *emitter) add(id loop.StreamID, slab *arena.Slab) *openBatch {
	b := e.w.a.cfg.Arena.NewBatch()
	b.Slab = slab
	if e.w.step != nil {
		b.Trail = e.w.step.Follow(e.w.d.Lane.Stream(id))
	}
	e.open = append(e.open, openBatch{stream: id, batch: b})
	return &e.open[len(e.open)-1]
}

// takes is how much of its slabs a message of size bytes that does not share one takes: what is left beside it may be of use to nobody.
func takes(size, slab int) int {
	if size > slab {
		return size
	}
	return slab / (slab / size)
}

// lease waits for n bytes of memory. It is freed by the consumers of what was emitted before, so that goes out first. They do not wait for
// this plugin, so there will be memory; but not where the call in hand has it all: its emits stay until it has returned.
func (e *emitter) lease(n int, get func() (*arena.Slab, error)) (*arena.Slab, error) {
	a := e.w.a
	slab, err := get()
	if errors.Is(err, arena.ErrBudget) {
		if most := a.tune.Load().MaxEmit + 2*a.cfg.Arena.SlabSize(); e.leased+n > most {
			return nil, fmt.Errorf("%w: they take more than the %d bytes of memory that one call may have; messages above a quarter of "+
				"a slab do not share theirs: emit fewer, or smaller ones", plugin.ErrEmitTooLarge, most)
		}
		e.w.waits.Store(true)
		defer e.w.waits.Store(false)
		e.w.flush()
	}
	for errors.Is(err, arena.ErrBudget) {
		if err := a.cfg.EmitMemory.Wait(a.ctx); err != nil {
			return nil, err
		}
		slab, err = get()
	}
	if err == nil {
		e.leased += n
	}
	return slab, err
}

// letGo gives up the slab that is being filled; batches keep their own references.
func (e *emitter) letGo() {
	if e.slab != nil {
		e.slab.Release()
		e.slab = nil
	}
}

func (e *emitter) dirty() bool { return e.loose }

// pending says whether there is anything to take.
func (e *emitter) pending() bool {
	for i := range e.open {
		if e.open[i].released > 0 {
			return true
		}
	}
	return false
}

// commit releases what was emitted.
func (e *emitter) commit() {
	if !e.loose {
		return
	}
	for i := range e.open {
		e.open[i].released = e.open[i].batch.Len()
	}
	for _, l := range e.linked {
		link := e.w.a.cfg.Link()
		for i := range e.open {
			if e.open[i].batch == l.batch {
				e.open[i].links = append(e.open[i].links, link)
			}
		}
		for _, h := range l.parents {
			if err := h.GiveLinked(key, link); err != nil {
				e.w.a.cfg.Logger.Error("parent of an aggregate took another verdict", "plugin", e.w.a.cfg.Name, "error", err)
			}
		}
	}
	clear(e.linked)
	e.linked, e.loose, e.attempt, e.leased = e.linked[:0], false, 0, 0
}

// discard drops what was emitted for the message at index parent.
func (e *emitter) discard(parent uint32) {
	if !e.loose && len(e.open) == 0 {
		return
	}
	for i := range e.open {
		b := e.open[i].batch
		kept := 0
		for j, p := range b.Parents {
			if p != parent {
				b.Frames[kept], b.Hashes[kept], b.Parents[kept] = b.Frames[j], b.Hashes[j], p
				kept++
			}
		}
		b.Frames, b.Hashes, b.Parents = b.Frames[:kept], b.Hashes[:kept], b.Parents[:kept]
		e.open[i].released = min(e.open[i].released, kept)
	}
	for i := 0; i < len(e.linked); i++ {
		if l := e.linked[i]; l.parent == parent {
			e.linked = append(e.linked[:i], e.linked[i+1:]...)
			i--
			for _, h := range l.parents {
				h.Unlink(key)
			}
		}
	}
	e.attempt, e.leased = 0, 0
}

var errAggregate = errors.New("a message that is held cannot emit an aggregate: make it a parent of a later one, by its Held")

// aggregates says whether the message at index parent has emitted one.
func (e *emitter) aggregates(parent uint32) bool {
	for i := range e.linked {
		if e.linked[i].parent == parent {
			return true
		}
	}
	return false
}

// giveTo makes what was emitted for the message at index parent wait for the verdict of h. It is moved out of the slab, which h could pin
// for long; where there is no memory for that, it stays.
func (e *emitter) giveTo(h *plugin.Held, parent uint32) {
	a := e.w.a
	for i := range e.open {
		o := &e.open[i]
		for j, p := range o.batch.Parents {
			if p != parent {
				continue
			}
			b := a.cfg.Arena.NewBatch()
			if err := loop.Copy(a.cfg.HoldMemory, o.batch, j, b); err != nil {
				loop.ShareOne(o.batch, j, b)
			}
			b.Parents = append(b.Parents, 0)
			h.Adopt(key, plugin.HeldEmit{Stream: e.w.d.Lane.Stream(o.stream), Batch: b})
		}
	}
	e.discard(parent)
}

// take gives on what has been released. What has not stays, in batches of its own where it shared one.
func (e *emitter) take() (out []loop.Emit) {
	kept := e.open[:0]
	for _, o := range e.open {
		b := o.batch
		switch n := b.Len(); {
		case n == 0:
			b.Free()
		case o.released == n:
			out = append(out, loop.Emit{Stream: o.stream, Batch: b, Links: o.links})
		case o.released == 0:
			kept = append(kept, o)
		default:
			rest := e.w.a.cfg.Arena.NewBatch()
			b.Slab.Retain()
			rest.Slab = b.Slab
			rest.Frames = append(rest.Frames, b.Frames[o.released:]...)
			rest.Hashes = append(rest.Hashes, b.Hashes[o.released:]...)
			rest.Parents = append(rest.Parents, b.Parents[o.released:]...)
			b.Frames, b.Hashes, b.Parents = b.Frames[:o.released], b.Hashes[:o.released], b.Parents[:o.released]
			out = append(out, loop.Emit{Stream: o.stream, Batch: b})
			kept = append(kept, openBatch{stream: o.stream, batch: rest})
		}
	}
	clear(e.open[len(kept):])
	e.open = kept
	return out
}

func (e *emitter) close() {
	for _, o := range e.open {
		o.batch.Free()
	}
	e.open = nil
	e.letGo()
}

// single copies a message into memory of its own, as a batch of one.
func (a *Actor) single(account *arena.Account, payload []byte, x *plugin.Emission) (*arena.Batch, error) {
	slab, err := account.LeaseSized(max(len(payload)+len(x.Key)+len(x.Headers), 1))
	if err != nil {
		return nil, err
	}
	o := openBatch{batch: a.cfg.Arena.NewBatch()}
	o.batch.Slab = slab
	o.put(0, payload, x, a.cfg.Hash)
	return o.batch, nil
}

// emitOrphan sends a message that has no parent.
func (a *Actor) emitOrphan(ctx context.Context, stream string, payload []byte, opts ...plugin.EmitOption) error {
	var x plugin.Emission
	for _, o := range opts {
		o(&x)
	}
	lane, err := a.cfg.Orphan(stream)
	if err != nil {
		return fmt.Errorf("plugin %q: %w", a.cfg.Name, err)
	}
	id, err := a.declared(lane, stream)
	if err != nil {
		return err
	}
	if err := a.tooLarge(len(payload)+len(x.Key)+len(x.Headers), 0); err != nil {
		return err
	}
	for {
		b, err := a.single(a.cfg.EmitMemory, payload, &x)
		if err == nil {
			lane.Post(loop.Emitted, &loop.Detail{Emits: []loop.Emit{{Stream: id, Batch: b}}})
			return nil
		}
		if !errors.Is(err, arena.ErrBudget) {
			return fmt.Errorf("plugin %q: emit to %q: %w", a.cfg.Name, stream, err)
		}
		if err := a.cfg.EmitMemory.Wait(ctx); err != nil {
			return fmt.Errorf("plugin %q: emit to %q: %w", a.cfg.Name, stream, err)
		}
	}
}
