package loop

import "slices"

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

// stillReads has consumers that are gone read what they read in the graph before.
func (c *Core) stillReads(before *Graph) {
	streams := slices.Clone(c.cfg.Graph.Streams)
	for i := range before.Streams {
		for _, id := range before.Streams[i].Consumers {
			if c.cfg.Graph.Consumers[id].Gone && !slices.Contains(streams[i].Consumers, id) {
				streams[i].Consumers = append(slices.Clone(streams[i].Consumers), id)
			}
		}
	}
	c.cfg.Graph.Streams = streams
}

// lendToLatecomers owes what is with consumers of a stream to those that read it from now on, too.
func (c *Core) lendToLatecomers(before *Graph) {
	for _, u := range c.units {
		if u == nil || u.n == 0 || u.solo || u.whole == 0 || u.batch.Borrowers() == 0 || int(u.stream) >= len(before.Streams) {
			continue
		}
		for _, id := range c.cfg.Graph.Streams[u.stream].Consumers {
			if !slices.Contains(before.Streams[u.stream].Consumers, id) {
				u.batch.Lend(1)
				c.enqueue(c.cons[id], u)
			}
		}
	}
}
