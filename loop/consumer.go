package loop

import (
	"slices"

	"github.com/penstock-dev/penstock/internal/mutate"
)

// consumer is a plugin or a sink, as one source's core sees it.
type consumer struct {
	Consumer
	id        ConsumerID
	counts    ConsumerCounts
	producers []ConsumerID // those that emit to a stream that it consumes

	queue  ring  // units owed whole, in the order of arrival
	queued int64 // their bytes
	ready  ring  // lone messages to be delivered before the queue

	sent, taken           uint64 // deliveries, ever
	sentBytes, takenBytes int64
	wanted                uint64 // the WantCredit that is out; 0 for none
	over                  bool   // so far behind that its producers pause
	gates                 int    // consumers behind among those that it emits to

	keys   map[uint64]*keyQueue
	filter *[filterSize]uint16 // keys in the map, by their low bits: most messages need no look-up
	resume []uint64            // keys that it may let go of, to be told with the next delivery

	holds      map[Token]*unit
	epoch      uint32
	paused     bool
	pauses     uint64 // the number of this pause
	quiet      bool   // Quiet has been said in this pause
	redeliver  int    // messages that a pause took back
	pauseTimer timer
	unburied   int // messages that the dead letters did not take: it gets no more until they do

	alone     int       // lone messages that it is owed
	burying   bool      // it is gone, and its time is up: what is owed to it goes to the dead letters
	retired   bool      // it is gone, and nothing is owed to it
	goneTimer timer     // when its time is up
	out       outgoings // for ages
}

const filterSize = 1 << 12

func newConsumer(id ConsumerID, cfg Consumer) *consumer {
	k := &consumer{
		Consumer: cfg, id: id, epoch: cfg.Epoch, keys: map[uint64]*keyQueue{}, filter: new([filterSize]uint16), holds: map[Token]*unit{},
		paused: cfg.Paused && !mutate.On(mutate.JoinsAwake), quiet: cfg.Paused,
	}
	k.pauseTimer.kind, k.pauseTimer.consumer = timerPause, k
	k.goneTimer.kind, k.goneTimer.consumer = timerGone, k
	return k
}

// hasCredit says whether its mailbox has room. One delivery always fits, however large.
func (k *consumer) hasCredit() bool {
	out := k.sent - k.taken
	if mutate.On(mutate.CreditOverrun) {
		return out <= uint64(k.Items)
	}
	return out == 0 || out < uint64(k.Items) && k.sentBytes-k.takenBytes < k.Bytes
}

// idle says whether it has nothing to do and nothing on the way.
func (k *consumer) idle() bool {
	return k.sent == k.taken && k.queue.len() == 0 && k.ready.len() == 0
}

func (k *consumer) pending() bool { return k.queue.len() > 0 || k.ready.len() > 0 || len(k.resume) > 0 }

// open says whether it may be given anything, credit apart.
func (k *consumer) open() bool { return !k.paused && k.gates == 0 && k.unburied == 0 }

// enqueue owes u to k. A consumer that drops what is oldest does so here.
func (c *Core) enqueue(k *consumer, u *unit) {
	k.queue.push(u)
	k.queued += u.bytes
	if k.Overflow == DropOldest || mutate.On(mutate.DropFromBlocking) {
		for k.queued > k.Mailbox && k.queue.len() > 1 {
			old := k.queue.pop()
			k.queued -= old.bytes
			k.counts.Dropped += uint64(old.n)
			if !mutate.On(mutate.DropKeepsBatch) {
				c.giveUpTurn(old)
			}
		}
	}
	c.gauge(k)
}

// giveUpTurn returns u's batch in the place of a consumer that is not shown it.
func (c *Core) giveUpTurn(u *unit) {
	if u.batch.Return() {
		c.returned(u)
	}
}

// pump delivers to k what is owed to it, as far as its credit goes.
func (c *Core) pump(k *consumer) {
	for k.pending() && k.open() && k.hasCredit() && !c.gaveUp {
		switch {
		case k.ready.len() > 0:
			c.lend(k, k.ready.pop())
		case len(k.resume) > 0:
			k.out.add(k.sent, c.seq)
			c.deliver(k, Delivery{Special: &Special{Resume: k.resume}})
			if mutate.On(mutate.ResumeUnanswered) {
				c.resumeUnanswered(k)
			}
			k.resume = nil
		default:
			u := k.queue.pop()
			k.queued -= u.bytes
			c.gauge(k)
			c.lendWhole(k, u)
		}
	}
	if k.pending() && k.open() {
		c.want(k, k.sent-(k.sent-k.taken)/2)
	}
	c.checkQuiet(k)
	c.checkGone(k)
}

// lendWhole delivers a batch, without the messages that have to wait behind their key.
func (c *Core) lendWhole(k *consumer, u *unit) {
	d := Delivery{Batch: u.batch, Unit: u.id, Stream: u.stream, Attempt: 1, Bytes: u.bytes}
	n := u.n
	if k.Order && len(k.keys) > 0 && len(u.batch.Hashes) > 0 {
		if pick := c.keepBack(k, u); pick != nil {
			if n = len(pick); n == 0 {
				c.giveUpTurn(u)
				return
			}
			d.Special = &Special{Pick: pick}
		}
	}
	k.counts.Delivered += uint64(n)
	k.out.add(k.sent, u.seq)
	c.deliver(k, d)
}

// lend delivers a lone message.
func (c *Core) lend(k *consumer, s *unit) {
	s.state, s.out = soloLent, true
	s.attempt++
	s.whole++
	s.batch.Lend(1)
	special := &Special{Solo: true}
	if q := k.keys[s.hash]; k.Order && q != nil && q.head == s {
		special.Resume, s.cleared = []uint64{s.hash}, true
	}
	k.counts.Delivered++
	if mutate.On(mutate.RetryToAnother) {
		k = c.another(k, s)
	}
	k.out.add(k.sent, s.seq)
	c.deliver(k, Delivery{Batch: s.batch, Unit: s.id, Stream: s.stream, Attempt: s.attempt, Bytes: s.bytes, Special: special})
}

func (c *Core) deliver(k *consumer, d Delivery) {
	d.Consumer = k.id
	k.sent++
	k.sentBytes += d.Bytes
	c.effect(Deliver).Delivery = d
}

// want asks to be told when k has taken level deliveries.
func (c *Core) want(k *consumer, level uint64) {
	if k.taken >= level || k.wanted == level || mutate.On(mutate.CreditNotAsked) {
		return
	}
	k.wanted = level
	e := c.effect(WantCredit)
	e.Consumer, e.Items = k.id, level
}

func (c *Core) credit(k *consumer, items uint64, bytes int64) {
	if items <= k.taken {
		return
	}
	k.taken, k.takenBytes = items, bytes
	c.flow.still = false
	if k.wanted != 0 && items >= k.wanted {
		k.wanted = 0
	}
	c.pump(k)
}

// makeReady puts a lone message among those to be delivered first; at once, or when it has come back.
func (c *Core) makeReady(k *consumer, s *unit) {
	if k.burying && !mutate.On(mutate.LentNotBuried) {
		c.bury(k, s, s.reason())
		return
	}
	s.state = soloReady
	if !s.out || mutate.On(mutate.SoloTwice) {
		k.ready.push(s)
	}
}

// gauge pauses those who emit to k while it is far behind, and lets them go on when it has caught up. A consumer that drops what is
// oldest holds up nobody.
func (c *Core) gauge(k *consumer) {
	const many = 64
	over := k.queued >= k.Mailbox || k.queue.len() >= many
	if k.over {
		over = k.queued >= k.Mailbox/2 || k.queue.len() >= many/2
	}
	if over == k.over || k.Overflow == DropOldest || len(k.producers) == 0 {
		return
	}
	k.over = over
	for _, id := range k.producers {
		p := c.cons[id]
		if over {
			p.gates++
			continue
		}
		if mutate.On(mutate.GateStuck) {
			continue
		}
		if p.gates--; p.gates == 0 {
			c.pump(p)
		}
	}
}

// pause stops delivery to k, so that its instance can be exchanged.
func (c *Core) pause(k *consumer, d *Detail) {
	if k.paused {
		return
	}
	k.paused, k.quiet, k.redeliver, k.pauses = true, false, 0, d.Pause
	c.limitHolds(k, d.After)
	c.checkQuiet(k)
}

// unpause lets k go on, with an instance of another epoch perhaps. Holds of older ones that are left have to end.
func (c *Core) unpause(k *consumer, d *Detail) {
	k.paused = false
	c.flow.still = false
	if d.Epoch > k.epoch {
		k.epoch = d.Epoch
		c.limitHolds(k, d.After)
		if mutate.On(mutate.SwapReverses) {
			for _, q := range k.keys {
				slices.Reverse(q.waiting[q.start:])
			}
		}
	} else {
		c.wheel.remove(&k.pauseTimer)
	}
	if d.On { // what it failed with was the one before
		for _, s := range c.lone(k) {
			if s.state == soloWaiting {
				c.wheel.remove(&s.timer)
				c.makeReady(k, s)
			}
		}
	}
	c.pump(k)
}

func (c *Core) limitHolds(k *consumer, after Ticks) {
	c.wheel.remove(&k.pauseTimer)
	c.wheel.add(&k.pauseTimer, c.wheel.now+after)
}

// checkQuiet says, once in a pause, that nothing of k is out.
func (c *Core) checkQuiet(k *consumer) {
	if !k.paused || k.quiet {
		return
	}
	if k.sent != k.taken && !mutate.On(mutate.QuietWithMail) {
		c.want(k, k.sent)
		return
	}
	if len(k.holds) > 0 && !mutate.On(mutate.QuietWithHolds) {
		return
	}
	k.quiet = true
	c.wheel.remove(&k.pauseTimer)
	e := c.effect(Quiet)
	e.Consumer, e.Pause, e.Count = k.id, k.pauses, k.redeliver
}

// ring is a queue of units that reuses its memory.
type ring struct {
	buf  []*unit
	head int
	n    int
}

func (r *ring) len() int { return r.n }

func (r *ring) push(u *unit) {
	if r.n == len(r.buf) {
		grown := make([]*unit, max(16, 2*len(r.buf)))
		for i := range r.n {
			grown[i] = r.buf[(r.head+i)%len(r.buf)]
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)%len(r.buf)] = u
	r.n++
}

func (r *ring) pop() *unit {
	u := r.buf[r.head]
	r.buf[r.head] = nil
	r.head = (r.head + 1) % len(r.buf)
	r.n--
	return u
}
