package penstock

import (
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/sink"
)

// Stats are the figures so far. It may be called at any time while Run runs, and after it.
func (rt *Runtime) Stats() Summary {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.final != nil {
		return *rt.final
	}
	return rt.summary()
}

// summary adds up what loops and actors have seen. rt.mu is held.
func (rt *Runtime) summary() Summary {
	t := rt.top.Load()
	s := rt.past
	s.Rows = nil
	rows := make(map[*consumer]*Row, len(t.consumers))
	for _, c := range t.consumers {
		r := c.row()
		rows[c] = &r
	}
	for _, in := range t.intakes {
		counts := in.driver.Counts()
		s.Rows = append(s.Rows, in.row(&counts))
		s.add(&counts, in.bad.Load())
		for id, c := range in.graph.Load().consumers {
			if r := rows[c.last()]; r != nil && id < len(counts.Consumers) {
				r.add(&counts.Consumers[id])
			}
		}
	}
	for _, c := range t.consumers {
		s.Rows = append(s.Rows, *rows[c])
	}
	return s
}

// last is the consumer that has c's place now.
func (c *consumer) last() *consumer {
	for c.heir != nil {
		c = c.heir
	}
	return c
}

// add adds what a loop has counted to the totals.
func (s *Summary) add(counts *loop.Counts, bad uint64) {
	s.Accepted += counts.Accepted
	s.Settled += counts.Settled
	s.Returned += counts.Returned
	s.Bad += bad
	for _, n := range counts.Consumers {
		s.Retried += n.Retried
		s.Held += n.Held
		s.Dead += n.Dead
		s.Dropped += n.Dropped
	}
}

// add adds what a loop has counted of a consumer.
func (r *Row) add(n *loop.ConsumerCounts) {
	r.Delivered += n.Delivered
	r.Retried += n.Retried
	r.Held += n.Held
	r.Lapsed += n.Lapsed
	r.Deferred += n.Deferred
	r.Dead += n.Dead
	r.Dropped += n.Dropped
	r.Emitted += n.Emitted
	r.Waiting += n.Waiting
	r.Mailbox += n.Out
	r.Oldest = max(r.Oldest, time.Duration(n.Oldest)*time.Millisecond)
}

func (in *intake) row(counts *loop.Counts) Row {
	r := Row{
		Name: in.spec.Name, Kind: "source", State: in.state(), Accepted: counts.Accepted, Settled: counts.Settled, Returned: counts.Returned,
		Bad: in.bad.Load(), Oldest: time.Duration(counts.Oldest) * time.Millisecond,
	}
	r.accumulate(in.past)
	if err := in.failure.Load(); err != nil {
		r.Error = (*err).Error()
	}
	return r
}

// accumulate adds what another source of the same name has counted.
func (r *Row) accumulate(past Row) {
	r.Accepted += past.Accepted
	r.Settled += past.Settled
	r.Returned += past.Returned
	r.Bad += past.Bad
}

// state is where the source is.
func (in *intake) state() string {
	select {
	case <-in.ended:
		if in.failure.Load() != nil {
			return "failed"
		}
		return "ended"
	default:
	}
	select {
	case <-in.stopped:
		return "draining"
	default:
		return "running"
	}
}

func (c *consumer) row() Row {
	r := c.past
	r.Name, r.Kind = c.name, c.kind()
	if c.actor == nil {
		r.Failures += c.to.Failures()
		if s, ok := c.to.Serving().(sink.Reporter); ok {
			status := s.Status()
			r.State, r.Error = status.State, status.Detail
			r.Failures += status.Failures
		}
		return r
	}
	a := c.actor.Stats()
	r.State, r.Version = a.State.String(), a.Version
	r.Panics += a.Panics
	r.Restarts += a.Restarts
	r.Overdue += a.Overdue
	return r
}

// Memory is the use of the byte budget now.
func (rt *Runtime) Memory() arena.Stats { return rt.arena.Stats() }
