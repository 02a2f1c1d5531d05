package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// scripted is what handlers panic with.
const scripted = "scripted panic"

var errScripted = errors.New("scripted failure")

type holdState uint8

const (
	holdOpen   holdState = iota
	holdLinked           // an emit that waits for its attempt has it as a parent
	holdGiven
	holdLapsed
)

// hold is a message whose verdict comes later.
type hold struct {
	held   *plugin.Held
	debt   *debt
	epoch  uint32
	until  int64 // the lease, at least
	since  int64 // when it was set
	state  holdState
	doomed bool // was to be revoked when it was linked
	call   uint64
	emits  []*message
}

// oldRef is a ref that a handler has kept.
type oldRef struct {
	ref arena.Ref
	m   *message
}

// handler is one instance of a plugin.
type handler struct {
	p       *plug
	version int
	crashed bool
	state   uint64 // what a stateful one carries over
}

var _ plugin.Starter = (*handler)(nil)

// factory makes instances of a version, of the kind that the plugin is.
func (p *plug) factory(version int) func() (plugin.Handler, error) {
	return func() (plugin.Handler, error) {
		h := &handler{p: p, version: version}
		switch {
		case p.set.batches && p.set.stateful:
			return &batchStateHandler{batchHandler{h}, stateHandler{h}, h}, nil
		case p.set.batches:
			return &batchHandler{h}, nil
		case p.set.stateful:
			return &stateHandler{h}, nil
		default:
			return h, nil
		}
	}
}

// Start keeps what the plugin may do without a message.
func (h *handler) Start(_ context.Context, env plugin.Env) error {
	h.p.env = env
	if r := h.p.swap; r != nil && r.broken == "start" && h.version == r.version {
		return errBroken
	}
	return nil
}

// Handle does what the dice say.
func (h *handler) Handle(_ context.Context, m *plugin.Message) error {
	s := h.p.s
	c := h.open(m)
	if s.failure != nil {
		return nil
	}
	s.meanwhile()
	c.emit(m)
	err, crash := c.decide(m)
	if crash {
		h.crashed, h.p.state = true, 0
		panic(scripted)
	}
	return err
}

// call is a message in the hands of a handler.
type call struct {
	h       *handler
	d       *debt
	attempt int
	emitted []*message
	linked  []link
}

// link is an emit with held messages as parents.
type link struct {
	child   *message
	parents []*hold
}

// open checks that a message may be shown, and that it is what it should be.
func (h *handler) open(m *plugin.Message) *call {
	s, p := h.p.s, h.p
	s.calls++
	c := &call{h: h, attempt: m.Attempt()}
	msg := s.intact(fmt.Sprintf("%q was shown", p.set.name), m.Payload(), m.Key())
	if msg == nil {
		return c
	}
	if want := fmt.Sprint(msg.id); msg.hdr && string(m.Header("id")) != want || m.Stream() != msg.stream {
		s.fail(Bytes, "message %d of %q has header %q and comes by %q", msg.id, msg.stream, m.Header("id"), m.Stream())
	}
	if h.version < p.seen || h.crashed {
		s.fail(Versions, "%q: version %d, crashed: %v, is shown message %d after version %d", p.set.name, h.version, h.crashed, msg.id, p.seen)
	}
	p.seen = h.version
	h.state += msg.id
	p.state = h.state
	if c.d = msg.debtOf(p.laneOf(msg.loop)); c.d == nil {
		s.fail(Asked, "message %d of %q is shown to %q", msg.id, msg.stream, p.set.name)
		return c
	}
	s.tracef("%s: attempt %d at message %d", p.set.name, c.attempt, msg.id)
	s.shown(c.d, c.attempt)
	s.resolveOld(m, msg)
	return c
}

func (p *plug) laneOf(l *simLoop) *lane {
	for _, ln := range p.lanes {
		if ln.l == l {
			return ln
		}
	}
	return nil
}

// resolveOld resolves a ref that was kept, and keeps one.
func (s *Sim) resolveOld(m *plugin.Message, msg *message) {
	if len(s.refs) > 0 && s.rnd.IntN(8) == 0 {
		old := s.refs[s.rnd.IntN(len(s.refs))]
		if b, ok := m.Resolve(old.ref); ok {
			want := s.scratch[:old.m.size]
			old.m.render(want)
			if string(want) != string(b) {
				s.fail(Stale, "a ref to message %d yields other bytes", old.m.id)
			}
		}
	}
	if s.rnd.IntN(8) == 0 {
		s.refs = append(s.refs, oldRef{m.Ref(), msg})
	}
}

// emit emits some messages, of which some have held messages as parents too.
func (c *call) emit(m *plugin.Message) {
	s, p := c.h.p.s, c.h.p
	if len(p.emitsTo(c.d.m.loop)) == 0 || !s.chance(s.set.emitRate) {
		return
	}
	for range 1 + s.rnd.IntN(3) {
		if !p.emits.Room() {
			return // Emit would wait, and there is nobody else to run
		}
		child := s.newChild(p, c.d.m)
		var opts []plugin.EmitOption
		if child.key != "" {
			opts = append(opts, plugin.WithKey([]byte(child.key)))
		}
		var parents []*hold
		if s.rnd.IntN(4) == 0 {
			parents = c.parents()
			opts = append(opts, plugin.EmitFrom(helds(parents)...))
		}
		err := m.Emit(child.stream, s.payload(child), opts...)
		if p.set.batches && errors.Is(err, plugin.ErrEmitTooLarge) {
			return // a whole batch is one call
		}
		if err != nil {
			s.fail(EmittedOnce, "%q: emit: %v", p.set.name, err)
			return
		}
		s.tracef("%s: emits message %d to %q for message %d and %d held", p.set.name, child.id, child.stream, c.d.m.id, len(parents))
		c.emitted = append(c.emitted, child)
		for _, h := range parents {
			h.state = holdLinked
		}
		if len(parents) > 0 {
			c.linked = append(c.linked, link{child, parents})
		}
	}
}

// emitsTo are the streams that it may emit to, as far as a loop has them yet.
func (p *plug) emitsTo(l *simLoop) (streams []string) {
	for _, e := range p.set.emits {
		if slices.ContainsFunc(l.graph.Streams, func(st loop.Stream) bool { return st.Name == e }) {
			streams = append(streams, e)
		}
	}
	return streams
}

func (s *Sim) newChild(p *plug, parent *message) *message {
	child := s.newMessage(parent.loop, pick(s.rnd, p.emitsTo(parent.loop)...))
	child.emitter = p
	child.size = payloadHead + s.rnd.IntN(pick(s.rnd, 20, 200, 1500))
	if s.rnd.IntN(2) == 0 {
		child.key = parent.key
	} else if s.rnd.IntN(2) == 0 {
		child.key = fmt.Sprintf("e%03d", s.rnd.IntN(4))
	}
	return child
}

func (s *Sim) payload(m *message) []byte {
	b := make([]byte, m.size)
	m.render(b)
	return b
}

// parents are some messages that the plugin holds.
func (c *call) parents() (some []*hold) {
	for _, h := range c.h.p.s.holds {
		if h.debt.lane.p == c.h.p && h.state == holdOpen && h.call != c.h.p.s.calls && len(some) < 3 {
			some = append(some, h)
		}
	}
	return some
}

func helds(holds []*hold) (list []*plugin.Held) {
	for _, h := range holds {
		list = append(list, h.held)
	}
	return list
}

// decide gives the verdict. The model has it before the runtime.
func (c *call) decide(m *plugin.Message) (verdict error, crash bool) {
	s, p := c.h.p.s, c.h.p
	tame := s.ending || c.attempt > 8
	switch {
	case !tame && s.chance(s.set.panicRate):
		if s.rnd.IntN(3) == 0 && len(c.linked) == 0 {
			c.hold(m).state = holdGiven // the panic is its verdict
		}
		s.failed(c.d, 0)
		c.undo()
		return nil, true
	case !tame && s.chance(s.set.holdRate) && len(c.linked) == 0:
		h := c.hold(m)
		h.emits, c.emitted = c.emitted, nil // they wait for its verdict
		switch s.rnd.IntN(6) {
		case 0:
			return c.refuse(h), false
		case 1:
			s.verdict(h)
		}
		return nil, false
	case !tame && s.chance(s.set.retryRate):
		verdict = c.refuse(nil)
		c.undo()
		return verdict, false
	}
	s.tracef("%s: acknowledges message %d", p.set.name, c.d.m.id)
	c.ack()
	return nil, false
}

// ack acknowledges in the model: the message, and what is held for its emits.
func (c *call) ack() {
	s := c.h.p.s
	s.done(c.d, c.emitted)
	for _, l := range c.linked {
		for _, h := range l.parents {
			h.state = holdGiven
			s.done(h.debt, append(h.emits, l.child))
		}
	}
}

// undo discards in the model what the attempt has emitted.
func (c *call) undo() {
	for _, l := range c.linked {
		for _, h := range l.parents {
			h.state = holdOpen
		}
	}
	c.linked, c.emitted = nil, nil
}

// refuse is a verdict that is not nil, for the message in hand or the hold made of it.
func (c *call) refuse(h *hold) error {
	s := c.h.p.s
	if h != nil {
		h.state = holdGiven
	}
	kind := s.rnd.IntN(3)
	s.tracef("%s: refuses message %d: kind %d", c.h.p.set.name, c.d.m.id, kind)
	switch kind {
	case 0:
		s.failed(c.d, 0)
		return errScripted
	case 1:
		after := time.Duration(s.rnd.IntN(300)) * time.Millisecond
		s.failed(c.d, ticks(after))
		return plugin.Retry(errScripted, after)
	default:
		s.refused(c.d)
		return plugin.Reject(errScripted)
	}
}

// hold defers the verdict.
func (c *call) hold(m *plugin.Message) *hold {
	s, p := c.h.p.s, c.h.p
	lease := time.Duration(1+s.rnd.IntN(pick(s.rnd, 5, 100, 5000))) * time.Millisecond
	held, err := m.Hold(lease)
	if err != nil {
		s.fail(Verdicts, "%v: hold: %v", c.d, err)
		return nil
	}
	if _, err := m.Hold(lease); !errors.Is(err, plugin.ErrAlreadyHeld) {
		s.fail(Verdicts, "%v: a second hold: %v", c.d, err)
	}
	h := &hold{held: held, debt: c.d, epoch: p.actor.Stats().Epoch, call: s.calls}
	h.since = s.now()
	h.until = h.since + lease.Milliseconds()
	s.tracef("%s: holds message %d until %d", p.set.name, c.d.m.id, h.until)
	c.d.state, c.d.hold = isHeld, h
	c.d.lane.held++
	if s.rnd.IntN(6) == 0 {
		s.extend(h)
	}
	s.holds = append(s.holds, h)
	s.byHeld[held] = h
	return h
}

// verdict gives a hold its verdict; one that is lost, or waits for an emit, must answer so.
func (s *Sim) verdict(h *hold) {
	s.holds = slices.DeleteFunc(s.holds, func(x *hold) bool { return x == h && h.state != holdLinked })
	want, d := error(nil), h.debt
	kind := s.rnd.IntN(4)
	if s.ending {
		kind = 0
	}
	after := time.Duration(s.rnd.IntN(300)) * time.Millisecond
	switch h.state {
	case holdLinked, holdGiven:
		want = plugin.ErrVerdictGiven
	case holdLapsed:
		want = plugin.ErrLeaseLost
	case holdOpen:
		h.state = holdGiven
		switch kind {
		case 0:
			s.done(d, h.emits)
		case 1:
			s.failed(d, ticks(after))
		case 2:
			s.refused(d)
		default:
			s.failed(d, 0)
		}
	}
	s.tracef("verdict %d on held %v; wants error %v", kind, d, want)
	var err error
	switch kind {
	case 0:
		err = h.held.Ack()
	case 1:
		err = h.held.Retry(errScripted, after)
	case 2:
		err = h.held.Reject(errScripted)
	default:
		err = h.held.Resolve(errScripted)
	}
	if !errors.Is(err, want) {
		s.fail(Verdicts, "%v: verdict %d is answered with %v, want %v", d, kind, err, want)
	}
}

// holdEmit emits for a held message.
func (s *Sim) holdEmit(h *hold) {
	p := h.debt.lane.p
	if h.state != holdOpen || len(p.emitsTo(h.debt.m.loop)) == 0 {
		return
	}
	child := s.newChild(p, h.debt.m)
	child.held = true
	var opts []plugin.EmitOption
	if child.key != "" {
		opts = append(opts, plugin.WithKey([]byte(child.key)))
	}
	switch err := h.held.Emit(child.stream, s.payload(child), opts...); {
	case err == nil:
		h.emits = append(h.emits, child)
	case !errors.Is(err, arena.ErrBudget):
		s.fail(EmittedOnce, "%v: emit for a held message: %v", h.debt, err)
	}
}

// extend makes a lease longer, or shorter.
func (s *Sim) extend(h *hold) {
	lease := time.Duration(1+s.rnd.IntN(2000)) * time.Millisecond
	var want error
	switch h.state {
	case holdOpen:
		h.since = s.now()
		h.until = h.since + lease.Milliseconds()
	case holdLapsed:
		want = plugin.ErrLeaseLost
	default:
		want = plugin.ErrVerdictGiven
	}
	s.tracef("lease of %v extended by %v", h.debt, lease)
	if err := h.held.Extend(lease); !errors.Is(err, want) {
		s.fail(Verdicts, "%v: extend is answered with %v, want %v", h.debt, err, want)
	}
}
