package loop

import (
	"errors"
	"math/rand/v2"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/mutate"
)

// ErrLapsed is the cause of an attempt that ended because the lease of its hold ran out.
var ErrLapsed = errors.New("the lease of the held message lapsed without a verdict")

// Config is what a Core is made from.
type Config struct {
	Graph    Graph
	Window   Window              // the most that the source may have unsettled
	Open     Window              // where its window starts: what keeps a system that keeps up in cache
	NewBatch func() *arena.Batch // an empty batch, for a message that leaves its own
	Rand     *rand.Rand          // for jitter
	Late     Ticks               // a Tick that comes later than this moves all deadlines by its lateness
}

// Core is the state machine of one source. It is not safe for concurrent use; the Driver, or the simulator, owns it.
type Core struct {
	cfg    Config
	cons   []*consumer
	counts Counts

	units []*unit
	spare []*unit
	live  int // units in use
	seq   uint64

	wheel wheel
	armed Ticks // the deadline that the driver was asked for, on its own clock; 0 for none
	lost  Ticks // how far the core's time is behind the driver's, for late ticks

	parts map[uint32]*partition
	nodes *node // for reuse
	links map[uint64][]*unit
	marks []mark

	flow     flow
	draining bool
	drained  bool
	gaveUp   bool
	deadline timer

	effects  []Effect
	receipts []uint64
}

// New makes a Core. The graph must be acyclic and its indices in range; package penstock sees to that.
func New(cfg Config) *Core {
	c := &Core{cfg: cfg, parts: map[uint32]*partition{}, links: map[uint64][]*unit{}}
	for i := range cfg.Graph.Consumers {
		c.cons = append(c.cons, newConsumer(ConsumerID(i), cfg.Graph.Consumers[i]))
	}
	c.relate()
	c.units = append(c.units, nil) // UnitID 0 names no unit
	c.flow.init(cfg.Open, cfg.Window)
	c.deadline.kind = timerDrain
	c.flow.timer.kind = timerWindow
	return c
}

// Step takes one event and returns what is to be done, in order. The effects are valid until the next Step. Detail, and the batches that
// the event brings, belong to the core from now on.
func (c *Core) Step(ev *Event) []Effect {
	c.effects, c.receipts = c.effects[:0], c.receipts[:0]
	switch ev.Kind {
	case Arrived:
		c.arrived(ev.Batch, ev.Bytes)
	case Emitted:
		for i := range ev.Detail.Emits {
			c.emitted(nil, ev.Consumer, &ev.Detail.Emits[i])
		}
	case Outcome:
		c.outcome(ev)
	case HeldVerdict:
		c.heldVerdict(ev.Consumer, ev.Detail)
	case HoldExtended, HoldReopened, HoldLapsed:
		c.holdChanged(ev)
	case LinkSettled:
		c.linkSettled(ev.Detail.Link)
	case Credit:
		c.credit(c.cons[ev.Consumer], ev.Detail.Items, ev.Detail.Bytes)
	case Resumed:
		c.resumed(c.cons[ev.Consumer], ev.Detail.Keys)
	case Buried:
		c.buried(ev.Unit, ev.Detail.Err)
	case Pause:
		c.pause(c.cons[ev.Consumer], ev.Detail)
	case Unpause:
		c.unpause(c.cons[ev.Consumer], ev.Detail)
	case Reshape:
		c.reshape(ev.Detail)
	case Mark:
		c.mark()
	case Assign:
		c.assign(ev.Detail.Partition, ev.Detail.Epoch)
	case Revoke:
		c.revoke(ev.Detail.Partition)
	case Pressure:
		c.pressure(ev.Detail.On)
	case Tick:
		c.tick(ev.Detail.Now)
	case Drain:
		c.drain(ev.Detail.After)
	}
	c.adjustWindow()
	c.checkDrained()
	c.arm()
	return c.effects
}

// Counts are the totals so far.
func (c *Core) Counts() Counts {
	counts := c.counts
	counts.Consumers = make([]ConsumerCounts, len(c.cons))
	for i, k := range c.cons {
		k.counts.Waiting = k.queue.len() + k.ready.len()
		k.counts.Blocked = len(k.keys)
		counts.Consumers[i] = k.counts
	}
	return counts
}

// Live is the number of batches and lone messages that are not done with. With it at zero, nothing is owed to anybody.
func (c *Core) Live() int { return c.live }

// effect adds an effect. Fields that its kind does not use may hold what they held before: clearing them would cost more than the rest.
func (c *Core) effect(k EffectKind) *Effect {
	n := len(c.effects)
	if n < cap(c.effects) {
		c.effects = c.effects[:n+1]
	} else {
		c.effects = append(c.effects, Effect{})
	}
	e := &c.effects[n]
	e.Kind = k
	return e
}

// arrived makes a unit of a batch of the source.
func (c *Core) arrived(b *arena.Batch, bytes int64) {
	if c.draining {
		c.receipts = append(c.receipts, b.Receipts...)
		p := c.partition(b.Partition)
		c.effect(Settle).Settlement = Settlement{
			Returned: true, Void: p.revoked || p.epoch != b.Epoch, Partition: b.Partition, Epoch: b.Epoch,
			Receipts: c.receipts, Messages: b.Len(), Bytes: bytes,
		}
		c.effect(Free).Batch = b
		return
	}
	if b.Len() == 0 {
		c.effect(Free).Batch = b
		return
	}
	u := c.newUnit(b, bytes, 0)
	u.root = true
	c.counts.Accepted += uint64(u.n)
	c.flow.arrived(u.n, u.bytes)
	c.place(c.partition(b.Partition), u)
	c.spread(u)
}

// emitted makes a unit of what a consumer emitted. A unit with parents counts among what its parent unit still waits for.
func (c *Core) emitted(parent *unit, from ConsumerID, e *Emit) {
	if e.Batch.Len() == 0 || c.gaveUp {
		c.effect(Free).Batch = e.Batch
		return
	}
	u := c.newUnit(e.Batch, int64(e.Batch.Bytes()), e.Stream)
	u.links = append(u.links, e.Links...)
	c.cons[from].counts.Emitted += uint64(u.n)
	if parent != nil {
		u.parent = parent
		if mutate.On(mutate.SettleBeforeChild) {
			u.parent = nil
		} else {
			parent.whole++
		}
	}
	c.spread(u)
}

// spread owes a new unit to every consumer of its stream, and delivers where that is possible.
func (c *Core) spread(u *unit) {
	consumers := c.cfg.Graph.Streams[u.stream].Consumers
	if len(consumers) == 0 {
		c.effect(Release).Batch = u.batch
		c.wholeDone(u)
		return
	}
	u.whole = 1
	u.batch.Lend(len(consumers))
	if mutate.On(mutate.ReleaseEarly) && len(consumers) > 1 {
		u.batch.Lend(len(consumers) - 1)
	}
	for _, id := range consumers {
		if k := c.cons[id]; !k.pending() && k.open() && k.hasCredit() && !c.gaveUp {
			c.lendWhole(k, u)
		} else {
			c.enqueue(k, u)
			c.pump(k)
		}
	}
}

// outcome hears what one consumer says of one delivery.
func (c *Core) outcome(ev *Event) {
	u := c.unit(ev.Unit)
	if u == nil { // reported twice, or after the last borrower: what it brings belongs to nobody
		c.discard(ev.Detail)
		return
	}
	k := c.cons[ev.Consumer]
	if c.gaveUp {
		c.tooLate(ev.Consumer, ev.Detail)
	} else if d := ev.Detail; d != nil {
		for i := range d.Emits {
			c.emitted(u, ev.Consumer, &d.Emits[i])
		}
		for i := range d.Exceptions {
			c.except(k, u, &d.Exceptions[i])
		}
	}
	if ev.Last {
		c.returned(u)
	}
	c.pump(k)
}

// discard frees the batches of a report that counts no longer.
func (c *Core) discard(d *Detail) {
	if d == nil {
		return
	}
	for i := range d.Emits {
		c.effect(Free).Batch = d.Emits[i].Batch
	}
	for i := range d.Exceptions {
		if into := d.Exceptions[i].Into; into != nil {
			c.effect(Free).Batch = into
		}
	}
}

// returned hears that the last borrower of a unit's batch will not touch it again.
func (c *Core) returned(u *unit) {
	if !u.solo {
		c.effect(Release).Batch = u.batch
		c.lessWhole(u)
		return
	}
	u.out = false
	k := c.cons[u.consumer]
	switch u.state {
	case soloLent: // no exception: acknowledged
		c.finish(k, u, u.cleared)
	case soloReady: // its next delivery became due while it was out
		k.ready.push(u)
	case soloDone:
		c.effect(Release).Batch = u.batch
	}
	c.lessWhole(u)
}

// finish ends what a consumer owes for a lone message. resumed says that the consumer has already let go of the message's key.
func (c *Core) finish(k *consumer, s *unit, resumed bool) {
	s.state = soloDone
	if !s.out {
		c.effect(Release).Batch = s.batch
	}
	k.alone--
	c.headDone(k, s, resumed)
	c.lessWhole(s)
}

func (c *Core) tick(now Ticks) {
	if late := now - c.armed; c.armed != 0 && late > c.cfg.Late && !mutate.On(mutate.LateTickLapses) {
		c.lost += late
	}
	c.wheel.advance(now-c.lost, c.fire)
}

// fire is called for each timer that has run out.
func (c *Core) fire(t *timer) {
	switch t.kind {
	case timerUnit:
		c.unitDue(t.unit)
	case timerPause:
		c.revokeHolds(t.consumer)
	case timerDrain:
		c.giveUp()
	case timerWindow:
		c.resize()
	case timerGone:
		c.buryAll(t.consumer)
	}
}

// unitDue ends a backoff or a lease, or tries again to bury a message.
func (c *Core) unitDue(s *unit) {
	k := c.cons[s.consumer]
	switch s.state {
	case soloWaiting:
		c.makeReady(k, s)
		c.pump(k)
	case soloHeld:
		c.lapse(k, s)
	case soloUnburied:
		c.bury(k, s, s.cause)
	}
}

// arm asks for a Tick at the next deadline, if that has changed.
func (c *Core) arm() {
	at, ok := c.wheel.next()
	if !ok {
		at = 0
	} else {
		at = max(at+c.lost, 1)
	}
	if at != c.armed {
		c.armed = at
		c.effect(SetTimer).At = at
	}
}

func (c *Core) drain(after Ticks) {
	c.draining, c.drained = true, false
	if c.gaveUp {
		c.drained = true
		c.effect(Drained).Count = 0
		return
	}
	if after > 0 && !c.deadline.armed() {
		c.wheel.add(&c.deadline, c.wheel.now+after)
	}
}

func (c *Core) checkDrained() {
	if c.draining && !c.drained && (c.live == 0 || mutate.On(mutate.DrainTooSoon) && c.live == 1) {
		c.drained = true
		c.wheel.remove(&c.deadline)
		c.effect(Drained).Count = 0
	}
}

// giveUp returns what is left to the source: time is up.
func (c *Core) giveUp() {
	if c.drained {
		return
	}
	c.gaveUp, c.drained = true, true
	before := c.counts.Returned
	for _, id := range sortedKeys(c.parts) {
		c.giveBack(id, c.parts[id])
	}
	c.abandon()
	c.effect(Drained).Count = int(c.counts.Returned - before)
}
