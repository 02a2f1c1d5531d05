package loop

import (
	"errors"
	"slices"

	"github.com/penstock-dev/penstock/internal/mutate"
)

// ErrRemoved is why a message is buried that was still owed to a consumer when its time was up after its removal.
var ErrRemoved = errors.New("its plugin or sink was taken out of the pipeline before it was done with the message")

// reshape gives the core another graph while messages are under way.
//
//	before   flights ─> a, b         after   flights ─> b, c         a is gone: it gets what it is owed, and no more
//
// What arrives or is emitted from now on goes by the new graph; what was owed stays owed. A consumer that is gone is Retired when nothing
// is owed to it. If that takes longer than After, what is left goes to the dead letters: nobody else will take it.
func (c *Core) reshape(d *Detail) {
	before := c.cfg.Graph
	c.cfg.Graph = *d.Graph
	if mutate.On(mutate.GoneStillReads) {
		c.stillReads(&before)
	}
	for i, cfg := range c.cfg.Graph.Consumers {
		if i == len(c.cons) {
			c.cons = append(c.cons, newConsumer(ConsumerID(i), cfg))
			continue
		}
		k := c.cons[i]
		cfg.Order = k.Order && !k.burying // a change of order takes another consumer
		k.Consumer = cfg
		if k.Gone && !k.retired && !k.burying && d.After > 0 && !k.goneTimer.armed() && !mutate.On(mutate.GoneNeverBuried) {
			if mutate.On(mutate.BuriedTooSoon) {
				d.After /= 2
			}
			c.wheel.add(&k.goneTimer, c.wheel.now+d.After)
		}
	}
	if mutate.On(mutate.LatecomerGetsOld) {
		c.lendToLatecomers(&before)
	}
	if d.Window != (Window{}) && !mutate.On(mutate.ReshapeKeepsWindow) {
		c.flow.limit(d.Window)
	}
	c.relate()
	c.flow.still = false
	for _, k := range c.cons {
		c.pump(k)
	}
}

// relate finds out who feeds whom, and who has to pause because of it.
func (c *Core) relate() {
	for _, k := range c.cons {
		k.producers, k.gates, k.over = k.producers[:0], 0, k.over && mutate.On(mutate.ReshapeForgetsGates)
	}
	for id, k := range c.cons {
		for _, s := range k.Emits {
			for _, to := range c.cfg.Graph.Streams[s].Consumers {
				c.cons[to].producers = append(c.cons[to].producers, ConsumerID(id))
			}
		}
	}
	for _, k := range c.cons {
		c.gauge(k)
	}
}

// checkGone says, once, that nothing is owed to a consumer that is gone.
func (c *Core) checkGone(k *consumer) {
	if !k.Gone || k.retired && !mutate.On(mutate.RetiredTwice) {
		return
	}
	if (k.alone > 0 || k.queue.len() > 0) && !mutate.On(mutate.RetiredWhileOwed) {
		return
	}
	if k.sent != k.taken && !mutate.On(mutate.RetiredWithMail) {
		c.want(k, k.sent)
		return
	}
	k.retired = true
	c.wheel.remove(&k.goneTimer)
	k.filter, k.resume = nil, nil
	clear(k.keys) // of which the consumer was not told that they go on
	k.out = outgoings{}
	c.effect(Retired).Consumer = k.id
}

// buryAll sends what a consumer that is gone has not been given, and what it gives back, to the dead letters.
func (c *Core) buryAll(k *consumer) {
	k.burying, k.Order, k.resume = true, false, nil
	clear(k.keys)
	*k.filter = [filterSize]uint16{}
	for k.ready.len() > 0 {
		k.ready.pop()
	}
	for _, s := range c.lone(k) {
		switch s.state {
		case soloReady, soloWaiting, soloQueued:
			c.wheel.remove(&s.timer)
			c.bury(k, s, s.reason())
		case soloHeld:
			if mutate.On(mutate.RemovedHoldLost) {
				c.endHold(k, s)
				c.finish(k, s, true)
				continue
			}
			s.revoking = true
			c.lapse(k, s)
		}
	}
	for k.queue.len() > 0 {
		u := k.queue.pop()
		k.queued -= u.bytes
		for i := range u.n {
			c.bury(k, c.split(k, u, uint32(i), nil), ErrRemoved)
		}
		c.giveUpTurn(u)
	}
	c.gauge(k)
	c.checkGone(k)
}

// lone are the lone messages that k is owed, in the order of arrival: the dead letters of a key are in its order.
func (c *Core) lone(k *consumer) (list []*unit) {
	for _, s := range c.units {
		if s != nil && s.n > 0 && s.solo && s.consumer == k.id {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *unit) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	return list
}

// reason is why a message is buried that a consumer did not get to.
func (u *unit) reason() error {
	if u.cause != nil {
		return errors.Join(ErrRemoved, u.cause)
	}
	return ErrRemoved
}
