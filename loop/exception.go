package loop

import (
	"cmp"
	"slices"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/mutate"
)

// except hears of one message of u that k has not simply acknowledged. It leaves its batch, if it is still in one.
func (c *Core) except(k *consumer, u *unit, e *Exception) {
	s := u
	if !u.solo {
		s = c.split(k, u, e.Index, e.Into)
		s.attempt = 1
	} else if e.Into != nil {
		c.effect(Free).Batch = e.Into
	}
	switch e.What {
	case Failed, Retried:
		c.again(k, s, e.After, e.Cause)
	case Rejected:
		c.bury(k, s, e.Cause)
	case Held:
		c.hold(k, s, e)
	case Deferred:
		k.counts.Deferred++
		s.attempt--
		c.putBack(k, s)
	case Revoked:
		k.counts.Revoked++
		k.redeliver++
		s.attempt--
		c.putBack(k, s)
	}
}

// again ends an attempt without success: another follows after a while, or the message is buried.
func (c *Core) again(k *consumer, s *unit, after Ticks, cause error) {
	if k.Retry.Attempts > 0 && int(s.attempt) >= k.Retry.Attempts && !mutate.On(mutate.AttemptsUnbounded) {
		c.bury(k, s, cause)
		return
	}
	s.cause = cause
	if k.burying && !mutate.On(mutate.LentNotBuried) {
		c.bury(k, s, s.reason())
		return
	}
	k.counts.Retried++
	c.block(k, s)
	if after == 0 {
		after = c.backoff(&k.Retry, s.attempt)
	}
	if after == 0 || mutate.On(mutate.RetryTooEarly) {
		c.makeReady(k, s)
		return
	}
	s.state = soloWaiting
	c.wheel.add(&s.timer, c.wheel.now+after)
}

// backoff doubles with each attempt, up to the bound; the upper half of it is jitter.
func (c *Core) backoff(p *RetryPolicy, attempt int32) Ticks {
	d := p.Backoff
	for range attempt - 1 {
		if d >= p.Max {
			break
		}
		d *= 2
	}
	if p.Max > 0 {
		d = min(d, p.Max)
	}
	if d > 1 {
		d = d/2 + Ticks(c.cfg.Rand.Int64N(int64(d/2)+1))
	}
	return d
}

// bury sends a message to the dead letters. It is settled when it has arrived there.
func (c *Core) bury(k *consumer, s *unit, cause error) {
	c.block(k, s)
	s.state, s.cause = soloDying, cause
	e := c.effect(DeadLetter)
	e.Consumer, e.Unit, e.Batch = k.id, s.id, s.batch
	e.Letter = Letter{Stream: s.stream, Attempts: int(s.attempt), Cause: cause, First: s.first}
	if root, i := s.origin(0); root != nil {
		e.Letter.Partition, e.Letter.Receipt = root.batch.Partition, root.batch.Receipts[i]
	}
	if mutate.On(mutate.DeadBeforeDurable) {
		c.finish(k, s, false)
	}
}

// buried hears whether a dead letter is durable. If it is not, its plugin gets nothing more until a later try succeeds.
func (c *Core) buried(id UnitID, err error) {
	const pause = 1000 // ticks between tries
	s := c.unit(id)
	if s == nil || s.state != soloDying {
		return
	}
	k := c.cons[s.consumer]
	if k.burying && mutate.On(mutate.BuriedUnsettled) {
		return
	}
	if err != nil && !c.gaveUp && !mutate.On(mutate.BurialFailureIgnored) {
		s.state = soloUnburied
		if !s.stuck {
			s.stuck = true
			k.unburied++
		}
		c.wheel.add(&s.timer, c.wheel.now+pause)
		return
	}
	if s.stuck {
		s.stuck = false
		k.unburied--
	}
	if err == nil {
		k.counts.Dead++
	}
	c.finish(k, s, false)
	c.pump(k)
}

// hold leaves a message with its consumer, within a lease.
func (c *Core) hold(k *consumer, s *unit, e *Exception) {
	k.counts.Held++
	c.block(k, s)
	s.state, s.token, s.handle = soloHeld, e.Token, e.From
	k.holds[e.Token] = s
	if k.burying { // its time was up while the message was lent
		s.revoking, e.After = true, 0
	}
	c.wheel.add(&s.timer, c.wheel.now+e.After)
	if (k.paused || e.Token.Epoch < k.epoch) && !k.pauseTimer.armed() { // its instance is being, or has been, replaced
		c.limitHolds(k, 0)
	}
}

// heldVerdict ends a hold as its holder says. One that the core no longer knows has been answered with ErrLeaseLost.
func (c *Core) heldVerdict(id ConsumerID, d *Detail) {
	k := c.cons[id]
	s := k.holds[d.Token]
	if s == nil {
		c.discard(d)
		return
	}
	c.endHold(k, s)
	for i := range d.Emits {
		c.emitted(s, id, &d.Emits[i])
	}
	if d.Link != 0 && !mutate.On(mutate.LinkEarly) {
		s.whole++
		c.links[d.Link] = append(c.links[d.Link], s)
	}
	if len(d.Exceptions) > 0 {
		c.except(k, s, &d.Exceptions[0])
	} else {
		c.finish(k, s, false)
	}
	c.pump(k)
}

func (c *Core) endHold(k *consumer, s *unit) {
	delete(k.holds, s.token)
	c.wheel.remove(&s.timer)
	s.handle, s.revoking = nil, false
}

func (c *Core) holdChanged(ev *Event) {
	k := c.cons[ev.Consumer]
	s := k.holds[ev.Detail.Token]
	if s == nil {
		return
	}
	switch ev.Kind {
	case HoldExtended:
		if s.state == soloHeld && !s.revoking && !mutate.On(mutate.ExtendIgnored) {
			c.wheel.remove(&s.timer)
			c.wheel.add(&s.timer, c.wheel.now+ev.Detail.After)
		}
	case HoldReopened:
		if s.state == soloLapsing {
			c.lapse(k, s)
		}
	case HoldLapsed:
		c.lapsed(k, s)
	}
}

// lapse asks the holder to give up. A verdict that was quicker still counts: then HoldLapsed does not come, and the verdict does.
func (c *Core) lapse(k *consumer, s *unit) {
	c.wheel.remove(&s.timer)
	s.state = soloLapsing
	if mutate.On(mutate.LapseUnasked) {
		c.lapsed(k, s)
		return
	}
	e := c.effect(LapseHold)
	e.Consumer, e.Token, e.Handle = k.id, s.token, s.handle
}

// lapsed ends a hold that had no verdict: that was an attempt, unless it was the instance that ended.
func (c *Core) lapsed(k *consumer, s *unit) {
	if s.state != soloLapsing {
		return
	}
	revoked := s.revoking
	c.endHold(k, s)
	if revoked {
		k.counts.Revoked++
		k.redeliver++
		if s.attempt--; mutate.On(mutate.RevokedCounted) {
			s.attempt++
		}
		c.makeReady(k, s)
	} else {
		k.counts.Lapsed++
		if mutate.On(mutate.LapseUncounted) {
			s.attempt--
		}
		c.again(k, s, 0, ErrLapsed)
	}
	c.pump(k)
}

// revokeHolds ends the holds of instances that are to be, or have been, replaced.
func (c *Core) revokeHolds(k *consumer) {
	for _, t := range sortedTokens(k.holds) {
		s := k.holds[t]
		if k.paused || t.Epoch < k.epoch {
			s.revoking = true
			if s.state == soloHeld {
				c.lapse(k, s)
			}
		}
	}
}

func (c *Core) linkSettled(link uint64) {
	waiting := c.links[link]
	delete(c.links, link)
	for _, s := range waiting {
		c.lessWhole(s)
	}
}

// sortedTokens makes the order of effects the same in every run.
func sortedTokens(m map[Token]*unit) []Token {
	keys := make([]Token, 0, len(m))
	for t := range m {
		keys = append(keys, t)
	}
	slices.SortFunc(keys, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
	})
	return keys
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// frameBytes is what a message counts towards its source's window.
func frameBytes(f *arena.Frame) int64 { return int64(f.Len) + int64(f.HdrLen) }
