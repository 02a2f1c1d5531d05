package actor

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// holding is what a worker keeps of a hold until it is reported.
type holding struct {
	lease time.Duration
	into  *arena.Batch // the core's own reference to the copy; nil where the message has its own memory already
}

// Hold implements plugin.Host.
func (w *worker) Hold(_ lend.Key, m *plugin.Message, lease time.Duration) (*plugin.Held, error) {
	if lease <= 0 {
		return nil, fmt.Errorf("plugin %q: hold for %v: a lease must be positive", w.a.cfg.Name, lease)
	}
	if w.inBatch {
		return nil, fmt.Errorf("plugin %q: hold within HandleBatch: a batch cannot be held: hold in Handle, or fail the message with Retry",
			w.a.cfg.Name)
	}
	b, i := m.Batch(key), m.Index(key)
	if w.emits.aggregates(uint32(i)) {
		return nil, fmt.Errorf("plugin %q: hold after EmitFrom: %w", w.a.cfg.Name, errAggregate)
	}
	own := w.a.cfg.Arena.NewBatch()
	w.holding = holding{lease: lease}
	if s := w.d.Special; s != nil && s.Solo {
		loop.ShareOne(b, i, own)
	} else {
		if err := loop.Copy(w.a.cfg.HoldMemory, b, i, own); err != nil { // no memory for what stays: its slab stays instead
			loop.ShareOne(b, i, own)
		}
		w.holding.into = w.a.cfg.Arena.NewBatch()
		loop.ShareOne(own, 0, w.holding.into)
	}
	w.touched = true
	t := plugin.Token{Epoch: w.inst.epoch, Seq: w.a.holds.Add(1)}
	w.inst.held.Add(1)
	return plugin.NewHeld(key, &holder{a: w.a, lane: w.d.Lane, inst: w.inst}, t, own, m.Stream(), m.Attempt()), nil
}

// takeHeld takes the hold of the call in hand, if there is one, from the message.
func (w *worker) takeHeld() *plugin.Held {
	h := w.msg.Held(key)
	if h != nil {
		i := w.msg.Index(key)
		w.msg.Shut(key)
		w.msg.Open(key, w.d.Batch, i)
	}
	return h
}

// reportHeld tells the loop of a hold at once: its lease runs.
func (w *worker) reportHeld(i int, h *plugin.Held) {
	t := h.Token(key)
	w.report = append(w.report, loop.Exception{
		Index: uint32(w.index(i)), What: loop.Held, After: loop.TicksOf(w.holding.lease), Token: loop.Token(t),
		Into: w.holding.into, From: h,
	})
	w.holding = holding{}
	w.flush()
	h.Register(key)
}

// Lapse ends the lease of a hold that an actor reported; false if a verdict came first.
func Lapse(h loop.Handle) bool { return h.(*plugin.Held).Lapse(key) }

// holder is the runtime's side of the holds made from deliveries of one lane.
type holder struct {
	a    *Actor
	lane *loop.Lane
	inst *instance
}

var _ plugin.HeldHost = (*holder)(nil)

// HeldVerdict implements plugin.HeldHost.
func (h *holder) HeldVerdict(_ lend.Key, v plugin.HeldVerdict) {
	d := &loop.Detail{Token: loop.Token(v.Token), Link: v.Link}
	for _, e := range v.Emits {
		id, _ := h.lane.StreamID(e.Stream) // it was declared when it was emitted
		d.Emits = append(d.Emits, loop.Emit{Stream: id, Batch: e.Batch})
	}
	if v.Kind != plugin.KindAck {
		d.Exceptions = []loop.Exception{{What: whatOf(v.Kind), After: loop.TicksOf(v.After), Cause: v.Cause}}
	}
	h.lane.Post(loop.HeldVerdict, d)
	h.inst.holdEnded()
}

// HeldLapsed implements plugin.HeldHost.
func (h *holder) HeldLapsed(lend.Key) {
	h.inst.lapsed.Add(1)
	h.inst.holdEnded()
}

// HeldExtend implements plugin.HeldHost.
func (h *holder) HeldExtend(_ lend.Key, t plugin.Token, lease time.Duration) {
	h.lane.Post(loop.HoldExtended, &loop.Detail{Token: loop.Token(t), After: loop.TicksOf(lease)})
}

// HeldReopen implements plugin.HeldHost.
func (h *holder) HeldReopen(_ lend.Key, t plugin.Token) {
	h.lane.Post(loop.HoldReopened, &loop.Detail{Token: loop.Token(t)})
}

// HeldEmit implements plugin.HeldHost.
func (h *holder) HeldEmit(_ lend.Key, stream string, payload []byte, x *plugin.Emission) (plugin.HeldEmit, error) {
	a := h.a
	if _, err := a.declared(h.lane, stream); err != nil {
		return plugin.HeldEmit{}, err
	}
	if err := a.tooLarge(len(payload)+len(x.Key)+len(x.Headers), 0); err != nil {
		return plugin.HeldEmit{}, err
	}
	if len(x.Parents) > 0 {
		return plugin.HeldEmit{}, fmt.Errorf("plugin %q: emit to %q: EmitFrom goes with the Emit of a message, not of a Held", a.cfg.Name, stream)
	}
	b, err := a.single(a.cfg.HoldMemory, payload, x)
	if err != nil {
		return plugin.HeldEmit{}, fmt.Errorf("plugin %q: emit to %q: %w", a.cfg.Name, stream, err)
	}
	b.Parents = append(b.Parents, 0)
	return plugin.HeldEmit{Stream: stream, Batch: b}, nil
}

// HeldGo implements plugin.HeldHost.
func (h *holder) HeldGo(_ lend.Key, f func(ctx context.Context)) error {
	a := h.a
	if a.spawned.Add(1) > int64(a.cfg.Spawn) {
		a.spawned.Add(-1)
		return fmt.Errorf("plugin %q: %w (bound: %d)", a.cfg.Name, ErrBusy, a.cfg.Spawn)
	}
	started := a.spawn(func() {
		defer a.spawned.Add(-1)
		f(a.ctx)
	})
	if !started {
		a.spawned.Add(-1)
		return fmt.Errorf("plugin %q: %w", a.cfg.Name, ErrStopped)
	}
	return nil
}

// Resolve implements plugin.Host. The bytes stay until the call returns.
func (w *worker) Resolve(_ lend.Key, _ *plugin.Message, r arena.Ref) ([]byte, bool) {
	v, ok := w.a.cfg.Arena.Resolve(r)
	if !ok {
		return nil, false
	}
	w.pins.views = append(w.pins.views, v)
	w.touched = true
	return v.Bytes(), true
}

// pins are the views that the call in hand has resolved.
type pins struct{ views []arena.View }

func (p *pins) release() {
	for i := range p.views {
		p.views[i].Release()
	}
	clear(p.views)
	p.views = p.views[:0]
}
