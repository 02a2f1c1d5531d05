package sim

import (
	"context"
	"time"

	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

const millisecond = time.Millisecond

func ticks(d time.Duration) loop.Ticks { return loop.TicksOf(d) }

func (s *Sim) chance(inThousand int) bool { return inThousand > 0 && s.rnd.IntN(1000) < inThousand }

// play makes the history: steps as the dice fall, then an end in which everything is answered.
func (s *Sim) play() {
	s.steps(s.set.steps)
	if s.set.giveUp {
		s.drain(loop.Ticks(1 + s.rnd.IntN(200)))
		s.steps(s.rnd.IntN(100))
	}
	s.end()
}

func (s *Sim) steps(n int) {
	for range n {
		if s.failure != nil {
			return
		}
		if !s.act() {
			s.passTime()
		}
		s.follow()
	}
}

// follow does what follows each step by itself: what drivers want run apart, and swaps that can go on.
func (s *Sim) follow() {
	s.report.Steps++
	for len(s.later) > 0 {
		f := s.later[0]
		s.later = s.later[1:]
		f()
	}
	for _, p := range s.plugs {
		if p.swap != nil {
			s.opt.Wait()
			p.stepSwap()
		}
	}
}

// act takes one step, if there is one but waiting.
func (s *Sim) act() bool {
	for range 10 {
		if s.try(s.rnd.IntN(18)) {
			return true
		}
	}
	return s.progress()
}

// progress takes one step that brings the end nearer.
func (s *Sim) progress() bool {
	from := s.rnd.IntN(progressKinds)
	for i := range progressKinds {
		if s.try((from + i) % progressKinds) {
			return true
		}
	}
	return false
}

const progressKinds = 7

// try takes a step of one kind, if there is one. The first kinds are those that the end needs.
func (s *Sim) try(kind int) bool {
	switch kind {
	case 0:
		l := s.loops[s.rnd.IntN(len(s.loops))]
		if !l.mayArrive() || l.draining && !s.chance(20) {
			return s.ending && s.arriveAny()
		}
		l.arrive()
	case 1, 2:
		return s.serve()
	case 3:
		return s.finishWriting()
	case 4:
		if len(s.dying) == 0 {
			return false
		}
		s.answer(s.rnd.IntN(len(s.dying)), s.ending || !s.chance(s.set.deadFails))
	case 5:
		if len(s.holds) == 0 {
			return false
		}
		s.verdict(s.holds[s.rnd.IntN(len(s.holds))])
	case 6:
		return s.goOn()
	case 7, 8, 9:
		return s.serve()
	case 10:
		if len(s.holds) > 0 {
			s.touch(s.holds[s.rnd.IntN(len(s.holds))])
		}
		return false
	case 11:
		return s.chance(500) && s.passTime()
	case 12:
		if s.chance(s.set.lateRate) {
			s.jump()
		}
		return false
	case 13:
		return s.chance(s.set.swapRate) && s.swapOne()
	case 14:
		return s.chance(20) && s.revokeOne()
	case 15:
		return s.chance(30) && s.orphan()
	case 16:
		if s.ending || !s.chance(s.set.reloadRate) {
			return false
		}
		s.reload()
	default:
		s.lookAtHeld()
		return false
	}
	return true
}

func (s *Sim) arriveAny() bool {
	for _, l := range s.loops {
		if !l.draining && l.mayArrive() {
			l.arrive()
			return true
		}
	}
	return false
}

// serve gives one delivery to its plug, and has it served.
func (s *Sim) serve() bool {
	var waiting []*lane
	for _, l := range s.loops {
		for _, ln := range l.lanes {
			if len(ln.pipe) > 0 {
				waiting = append(waiting, ln)
			}
		}
	}
	for _, p := range s.plugs {
		if p.swap != nil && p.stepChange() {
			return true
		}
	}
	if len(waiting) == 0 {
		return false
	}
	ln := waiting[s.rnd.IntN(len(waiting))]
	d := <-ln.pipe
	if k := ln.p.out; k != nil {
		k.giving, k.bytes = ln, d.Bytes
		ln.box <- d
		s.opt.Wait()
		return true
	}
	if !ln.p.set.order && d.Batch != nil && s.chance(s.set.panicRate/4) {
		ln.revoke(&d)
		return true
	}
	ln.box <- d
	ln.serving = true
	for len(ln.box) > 0 { // the change of a swap that was canceled may come first
		if !ln.p.actor.Step() {
			s.fail(Progress, "%q does not serve what is in its mailbox", ln.p.set.name)
			break
		}
		if ln.p.swap != nil { // that step may have been its change: it goes on in a goroutine of its own
			s.opt.Wait()
		}
	}
	ln.serving = false
	ln.out--
	ln.outBytes -= d.Bytes
	return true
}

// revoke gives a delivery back unseen, as an engine does whose process is gone.
func (ln *lane) revoke(d *loop.Delivery) {
	ln.l.s.tracef("%s: unit %x comes back unseen", ln.p.set.name, uint64(d.Unit))
	detail := &loop.Detail{}
	for i := range d.Len() {
		detail.Exceptions = append(detail.Exceptions, loop.Exception{Index: uint32(at(d, i)), What: loop.Revoked})
	}
	ln.serving = true
	d.Lane.Report(d.Unit, false, detail)
	if d.Batch.Return() {
		d.Lane.Report(d.Unit, true, nil)
	}
	d.Lane.Done(d)
	ln.serving = false
	ln.out--
	ln.outBytes -= d.Bytes
}

func (s *Sim) finishWriting() bool {
	for _, p := range s.plugs {
		if p.out != nil && len(p.out.open) > 0 && (s.ending || s.rnd.IntN(2) == 0) {
			p.out.step()
			return true
		}
	}
	return false
}

// touch does something with a hold that is not its verdict.
func (s *Sim) touch(h *hold) {
	if s.rnd.IntN(2) == 0 {
		s.extend(h)
	} else {
		s.holdEmit(h)
	}
}

// lookAtHeld checks that bytes that are held stay where and what they are.
func (s *Sim) lookAtHeld() {
	for _, h := range s.holds {
		if h.state == holdGiven {
			continue // linked, and then acknowledged
		}
		if m := s.intact("held", h.held.Payload(), h.held.Key()); m != h.debt.m {
			s.fail(Bytes, "%v: its hold shows another message", h.debt)
		}
	}
}

// meanwhile is what happens elsewhere while a handler is at work.
func (s *Sim) meanwhile() {
	switch s.rnd.IntN(20) {
	case 0:
		if len(s.holds) > 0 {
			s.verdict(s.holds[s.rnd.IntN(len(s.holds))])
		}
	case 1:
		s.clock.advance(time.Duration(s.rnd.IntN(20))*millisecond, false)
	case 2:
		if len(s.dying) > 0 {
			s.answer(s.rnd.IntN(len(s.dying)), s.ending || !s.chance(s.set.deadFails))
		}
	}
}

// passTime moves the clock, most often to the next timer. It reports false if there is none.
func (s *Sim) passTime() bool {
	d, ok := s.clock.next()
	switch {
	case !ok:
		s.clock.advance(millisecond, false)
		return false
	case s.rnd.IntN(4) == 0 && !s.ending:
		d = min(d, time.Duration(1+s.rnd.IntN(10))*millisecond)
	case s.rnd.IntN(4) == 0:
		d += time.Duration(s.rnd.IntN(5)) * millisecond
	}
	s.clock.advance(d, s.rnd.IntN(4) == 0)
	return true
}

// jump is a machine that stood still: timers fire long after their time.
func (s *Sim) jump() {
	d := time.Duration(1+s.rnd.IntN(pick(s.rnd, 100, 1000, 20000))) * millisecond
	s.tracef("the machine stands still for %v", d)
	s.clock.advance(d, true)
}

func (s *Sim) swapOne() bool {
	p := s.plugs[s.rnd.IntN(len(s.plugs))]
	if p.set.sink || p.swap != nil || len(p.lanes) == 0 || p.waits || p.going != stays {
		return false
	}
	p.beginSwap()
	return true
}

func (s *Sim) revokeOne() bool {
	l := s.loops[s.rnd.IntN(len(s.loops))]
	p := l.parts[s.rnd.IntN(len(l.parts))]
	if p.revoked || l.draining {
		return false
	}
	l.revoke(p)
	return true
}

// orphan has a plugin emit a message that has no parent.
func (s *Sim) orphan() bool {
	p := s.plugs[s.rnd.IntN(len(s.plugs))]
	if p.set.sink || len(p.lanes) == 0 || p.going == stopped || p.lanes[0].l.draining || len(p.emitsTo(p.lanes[0].l)) == 0 || !p.emits.Room() {
		return false
	}
	child := s.newChild(p, &message{loop: p.lanes[0].l})
	child.released = true
	var opts []plugin.EmitOption
	if child.key != "" {
		opts = append(opts, plugin.WithKey([]byte(child.key)))
	}
	s.tracef("%s: emits message %d to %q, without a parent", p.set.name, child.id, child.stream)
	if err := p.env.Emit(context.Background(), child.stream, s.payload(child), opts...); err != nil {
		s.fail(EmittedOnce, "%q: emit without a parent: %v", p.set.name, err)
	}
	return true
}
