package loop

// abandon lets go of all that is with nobody, when the time for draining is up: it has been given back to the source. What is with a
// consumer, or on its way to the dead letters, goes when it comes back. From now on nothing is delivered and nothing settles.
func (c *Core) abandon() {
	for i := range c.cons {
		k := c.cons[i]
		for k.ready.len() > 0 {
			k.ready.pop()
		}
		if k.resume = nil; !k.retired {
			*k.filter = [filterSize]uint16{}
		}
		clear(k.keys)
	}
	for _, link := range sortedKeys(c.links) {
		c.linkSettled(link)
	}
	for _, u := range c.units {
		if u != nil && u.n > 0 && u.solo {
			c.abandonSolo(u)
		}
	}
	for i := range c.cons {
		k := c.cons[i]
		for k.queue.len() > 0 {
			u := k.queue.pop()
			k.queued -= u.bytes
			c.giveUpTurn(u)
		}
	}
	for _, k := range c.cons {
		c.checkGone(k)
	}
}

func (c *Core) abandonSolo(s *unit) {
	k := c.cons[s.consumer]
	switch s.state {
	case soloReady, soloWaiting, soloQueued, soloUnburied:
	case soloHeld:
		c.lapse(k, s)
		c.endHold(k, s)
	case soloLapsing:
		c.endHold(k, s)
	default: // lent, dying or done
		return
	}
	c.wheel.remove(&s.timer)
	c.finish(k, s, true)
}

// tooLate hears what a consumer says when all has been given up: its batches are freed, and its holds end.
func (c *Core) tooLate(id ConsumerID, d *Detail) {
	c.discard(d)
	for i := 0; d != nil && i < len(d.Exceptions); i++ {
		if x := &d.Exceptions[i]; x.What == Held {
			e := c.effect(LapseHold)
			e.Consumer, e.Token, e.Handle = id, x.Token, x.From
		}
	}
}
