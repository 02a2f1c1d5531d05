package penstock

import "github.com/penstock-dev/penstock/arena"

// Stats are the figures so far. It may be called at any time while Run runs, and after it.
func (rt *Runtime) Stats() Summary {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.final != nil {
		return *rt.final
	}
	return rt.summary()
}

// summary adds up what loops and actors have seen.
func (rt *Runtime) summary() Summary {
	var s Summary
	rows := make([]Row, len(rt.consumers))
	for i, c := range rt.consumers {
		rows[i] = c.row()
	}
	for _, in := range rt.intakes {
		counts, bad := in.driver.Counts(), in.bad.Load()
		s.Rows = append(s.Rows, Row{
			Name: in.spec.Name, Kind: "source", Accepted: counts.Accepted, Settled: counts.Settled, Returned: counts.Returned, Bad: bad,
		})
		s.Accepted += counts.Accepted
		s.Settled += counts.Settled
		s.Returned += counts.Returned
		s.Bad += bad
		for id, n := range counts.Consumers {
			r := &rows[in.graph.consumers[id]]
			r.Delivered += n.Delivered
			r.Retried += n.Retried
			r.Held += n.Held
			r.Lapsed += n.Lapsed
			r.Deferred += n.Deferred
			r.Dead += n.Dead
			r.Dropped += n.Dropped
			r.Emitted += n.Emitted
			r.Waiting += n.Waiting
			s.Retried += n.Retried
			s.Held += n.Held
			s.Dead += n.Dead
			s.Dropped += n.Dropped
		}
	}
	s.Rows = append(s.Rows, rows...)
	return s
}

func (c *consumer) row() Row {
	if c.actor == nil {
		return Row{Name: c.name, Kind: "sink", Failures: c.sink.Failures()}
	}
	a := c.actor.Stats()
	return Row{
		Name: c.name, Kind: "plugin", State: a.State.String(), Panics: a.Panics, Restarts: a.Restarts, Overdue: a.Overdue,
	}
}

// Memory is the use of the byte budget now.
func (rt *Runtime) Memory() arena.Stats { return rt.arena.Stats() }
