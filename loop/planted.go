package loop

// What planted bugs need beyond a condition: see package mutate. None of it is reached in builds without the tag penstock_mutate.

// resumeUnanswered lets keys go on before the actor has reported what it kept back of them.
func (c *Core) resumeUnanswered(k *consumer) {
	for _, h := range k.resume {
		if q := k.keys[h]; q != nil && q.head == nil {
			c.drainKey(k, h, q)
		}
	}
}

// another is another consumer of the stream that s came by, if there is one.
func (c *Core) another(k *consumer, s *unit) *consumer {
	for _, id := range c.cfg.Graph.Streams[s.stream].Consumers {
		if id != k.id {
			return c.cons[id]
		}
	}
	return k
}
