package sim

import "github.com/penstock-dev/penstock/loop"

// drain asks every loop that has not been asked to end.
func (s *Sim) drain(after loop.Ticks) {
	for _, l := range s.loops {
		if !l.draining {
			l.draining = true
			s.tracef("%s: drain within %d", l.set.stream, after)
			l.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{After: after}})
		}
	}
}

// end has everything answered: nothing fails any more, and nothing new comes after what the sources still have.
func (s *Sim) end() {
	s.ending = true
	const most = 200_000
	for n := 0; s.failure == nil; n++ {
		sent := true
		for _, l := range s.loops {
			sent = sent && (l.left == 0 || l.draining)
		}
		if sent {
			s.drain(0)
		}
		if s.progress() || s.swapDone() {
			s.follow()
			continue
		}
		if s.still() && !s.timers() {
			break
		}
		if !s.timers() || n > most {
			s.fail(Progress, "nothing can move, and this is left: %s", s.left())
			return
		}
		s.passTime()
		s.follow()
	}
	if s.failure == nil {
		s.lookAtAll()
	}
	for _, l := range s.loops {
		l.letGo()
	}
}

// swapDone says whether a swap has ended that nobody has looked at: one that fails as it begins, with nothing else left to move.
func (s *Sim) swapDone() bool {
	for _, p := range s.plugs {
		if p.swap != nil && p.swap.done {
			return true
		}
	}
	return false
}

func (s *Sim) timers() bool { _, ok := s.clock.next(); return ok }

// still says whether nothing is under way that the model knows of.
func (s *Sim) still() bool {
	for _, l := range s.loops {
		if !l.drained {
			return false
		}
	}
	for _, p := range s.plugs {
		if p.swap != nil || p.waits && p.going == stays || p.going != stays && p.going != stopped {
			return false
		}
	}
	return len(s.words) == 0
}

// left describes what has not come to an end.
func (s *Sim) left() string {
	for _, p := range s.plugs {
		if p.swap != nil {
			return "a swap of " + p.set.name
		}
		if p.going == gone {
			return "the retirement of " + p.set.name
		}
	}
	for _, l := range s.loops {
		if l.left > 0 && !l.draining {
			return "messages that " + l.set.stream + " may not read"
		}
	}
	for _, m := range s.messages[1:] {
		if (m.root || m.released) && !s.isComplete(m, true) {
			return s.owing
		}
	}
	return "a drain"
}

// lookAtAll checks what must be so at the end.
func (s *Sim) lookAtAll() {
	for _, m := range s.messages[1:] {
		switch l := m.loop; {
		case l.gaveUp:
		case m.root && !m.late && !m.void && !m.settled && !m.returned:
			s.fail(SettledOnce, "message %d was neither settled nor given back", m.id)
		case !l.gaveUp && (m.root && !m.late || m.released) && !s.isComplete(m, true): // what is given up goes no further
			s.fail(SettledLast, "at the end of %q, this is owed: %v", l.set.stream, s.owing)
		}
	}
	for _, l := range s.loops {
		for _, p := range l.parts {
			if n := len(p.sent); n > 0 && !p.revoked && !l.gaveUp && !p.sent[n-1].late && p.cursor != p.sent[n-1].receipt {
				s.fail(Cursor, "partition %d ends at %d, its cursor is %d", p.id, p.sent[n-1].receipt, p.cursor)
			}
		}
		l.lookAtCounts()
	}
}

// lookAtCounts compares what the core has counted with what the model has.
func (l *simLoop) lookAtCounts() {
	accepted := uint64(0)
	for _, m := range l.s.messages[1:] {
		if m.loop == l && m.root && !m.late {
			accepted++
		}
	}
	c := l.driver.Counts()
	if l.gaveUp {
		return // what is still with handlers is neither
	}
	if c.Accepted != accepted || c.Accepted != c.Settled {
		l.s.fail(Figures, "%q: %d accepted and %d settled, by the model %d", l.set.stream, c.Accepted, c.Settled, accepted)
	}
	for i, ln := range l.lanes {
		k := &c.Consumers[i]
		if k.Dropped != uint64(ln.dropped) && !l.gaveUp || k.Dead != uint64(ln.dead) || k.Held != uint64(ln.held) || k.Waiting != 0 || k.Blocked != 0 {
			l.s.fail(Figures, "%q for %q: %+v; by the model %d dropped, %d dead, %d held", l.set.stream, ln.p.set.name, *k, ln.dropped, ln.dead, ln.held)
		}
		if len(ln.pipe) > 0 {
			l.s.fail(Progress, "%q has mail at the end", ln.p.set.name)
		}
	}
}
