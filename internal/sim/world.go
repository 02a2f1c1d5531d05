package sim

import (
	"errors"
	"math/rand/v2"
	"slices"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

type clockClock = clock.Clock

// simLoop is one source, its driver, and the world of that driver.
type simLoop struct {
	s        *Sim
	idx      int
	set      *sourceSetup
	driver   *loop.Driver
	graph    loop.Graph
	lanes    []*lane            // by ConsumerID
	byStream map[string][]*lane // consumers
	seq      uint64

	stale     bool // its graph is not that of the pipeline
	next      *reshaping
	window    loop.Window // the most that the source may have unsettled
	newWindow loop.Window // what that is to be

	source
	armed    int64 // the deadline that the core asked for
	pressure bool
	draining bool
	drained  bool
	gaveUp   bool
}

var _ loop.World = (*simLoop)(nil)

func (s *Sim) newLoop(idx int, set *sourceSetup) *simLoop {
	l := &simLoop{s: s, idx: idx, set: set, window: set.window, byStream: map[string][]*lane{}}
	graph, plugs := l.regraph()
	var boxes []chan<- loop.Delivery
	for _, p := range plugs {
		boxes = append(boxes, l.join(p).pipe)
	}
	l.next = &reshaping{graph: graph}
	l.reshaped()
	l.openSource()
	l.driver = loop.NewDriver(loop.DriverConfig{
		Core: loop.Config{
			Graph: graph, Window: set.window, Open: set.open, NewBatch: s.arena.NewBatch, Late: s.set.late,
			Rand: rand.New(rand.NewPCG(s.seed, uint64(100+idx))),
		},
		Mailboxes: boxes, World: l, Clock: s.clock, Evacuation: s.account(arena.Evacuation, "evacuation "+set.stream, 0),
		Go:      func(f func()) { s.later = append(s.later, f) },
		Observe: l.observe,
	})
	return l
}

// join gives a plug a place in the loop.
func (l *simLoop) join(p *plug) *lane {
	ln := &lane{
		p: p, l: l, id: loop.ConsumerID(len(l.lanes)), pipe: make(chan loop.Delivery, 1000), keys: map[uint64][]*debt{}, epoch: 1,
		revokeAt: never, emitted: map[string]uint64{}, goneUntil: never,
	}
	if p.started && p.actor != nil {
		ln.epoch = p.actor.Stats().Epoch
	}
	if p.waits {
		ln.paused = true
		ln.epoch++ // as in a pause; see observe
	}
	p.lanes = append(p.lanes, ln)
	l.lanes = append(l.lanes, ln)
	return ln
}

// observe sees every step of the core before its effects take place.
func (l *simLoop) observe(ev *loop.Event, effects []loop.Effect) {
	s := l.s
	s.note(uint64(l.idx), uint64(ev.Kind), uint64(ev.Consumer), uint64(ev.Unit), uint64(len(effects)))
	l.traceEvent(ev)
	switch ev.Kind {
	case loop.Outcome, loop.HeldVerdict, loop.Emitted:
		if d := ev.Detail; d != nil {
			for i := range d.Emits {
				l.emitsArrive(ev, &d.Emits[i])
			}
		}
	case loop.Tick:
		l.tick(int64(ev.Detail.Now))
	case loop.Pressure:
		l.pressure = ev.Detail.On
	case loop.Reshape:
		l.reshaped()
	case loop.Pause:
		ln := l.lanes[ev.Consumer]
		ln.paused, ln.revokeAt = true, s.now()+int64(ev.Detail.After)
		ln.epoch++ // whatever is held now, or will be before the end of the pause, may be revoked
	case loop.Unpause:
		ln := l.lanes[ev.Consumer]
		if ln.paused {
			ln.epoch--
		}
		ln.paused, ln.revokeAt = false, never
		if ev.Detail.Epoch > ln.epoch {
			ln.epoch, ln.revokeAt = ev.Detail.Epoch, s.now()+int64(ev.Detail.After)
		}
	}
	for i := range effects {
		e := &effects[i]
		s.note(uint64(e.Kind), uint64(e.Consumer), uint64(e.Delivery.Unit), uint64(e.At), e.Settlement.Cursor)
		l.traceEffect(e)
		switch e.Kind {
		case loop.Deliver:
			l.delivered(&e.Delivery)
		case loop.SetTimer:
			l.armed = int64(e.At)
		case loop.Drained:
			l.gaveUp = ev.Kind == loop.Tick // the time for draining is up
		}
	}
	if ev.Kind == loop.Tick {
		for _, ln := range l.lanes {
			ln.up = ln.up || ln.timeIsUp()
		}
	}
}

// tick moves the model's deadlines when a tick is late: who was not given time must not lose it.
func (l *simLoop) tick(now int64) {
	late := now - l.armed
	if l.armed == 0 || late <= int64(l.s.set.late) {
		return
	}
	was := l.armed - 1 // when it should have come, in milliseconds
	for _, h := range l.s.holds {
		if h.debt.lane.l == l && h.until > was && l.knows(h.debt.lane, h.since) {
			h.until += late
		}
	}
	for _, m := range l.s.messages[1:] {
		if m.loop == l && !m.complete {
			for _, d := range m.debts {
				if d.state == isFailed && d.notBefore > was && l.knows(d.lane, d.since) {
					d.notBefore += late
				}
			}
		}
	}
	for _, ln := range l.lanes {
		if ln.revokeAt > was && ln.revokeAt != never {
			ln.revokeAt += late
		}
		if ln.goneUntil > was && ln.goneUntil != never {
			ln.goneUntil += late
		}
	}
}

// knows says whether the core has surely heard of what happened at since: it is told after the model, and after the time.
func (l *simLoop) knows(ln *lane, since int64) bool { return since < l.s.now() && !ln.serving }

// delivered checks a delivery as the core asks for it.
func (l *simLoop) delivered(d *loop.Delivery) {
	s, ln := l.s, l.lanes[d.Consumer]
	set := &ln.c
	if ln.up || ln.retired {
		s.fail(Farewell, "a delivery to %q, whose time is up: %v, retired: %v", set.Name, ln.up, ln.retired)
	}
	if ln.paused || ln.stuck > 0 {
		s.fail(Asked, "a delivery to %q, paused: %v, letters that were refused: %d", set.Name, ln.paused, ln.stuck)
	}
	if !ln.serving && ln.out > 0 && (ln.out >= set.Items || ln.outBytes >= set.Bytes) {
		s.fail(Credit, "a delivery to %q, which has %d of at most %d and %d bytes of %d", set.Name, ln.out, set.Items, ln.outBytes, set.Bytes)
	}
	ln.out++
	ln.outBytes += d.Bytes
	if d.Batch == nil {
		return
	}
	for i := range d.Len() {
		if j := at(d, i); j >= d.Batch.Len() { // a message that is moved in this very step
			continue
		}
		if m := s.find(d.Batch.Payload(at(d, i))); m != nil {
			if owed := m.debtOf(ln); owed != nil {
				owed.delivered = true
			}
		}
	}
}

// at is the place in its batch of message i of a delivery.
func at(d *loop.Delivery, i int) int {
	if d.Special != nil && d.Special.Pick != nil {
		return int(d.Special.Pick[i])
	}
	return i
}

// emitsArrive checks emits as the core hears of them.
func (l *simLoop) emitsArrive(ev *loop.Event, e *loop.Emit) {
	s := l.s
	from := l.lanes[ev.Consumer]
	for i := range e.Batch.Len() {
		m := s.intact("emit", e.Batch.Payload(i), e.Batch.Key(i))
		if m == nil {
			return
		}
		stream := l.graph.Streams[e.Stream].Name
		switch {
		case !m.released:
			s.fail(EmittedOnce, "message %d, which %q emitted in an attempt without success, has come out", m.id, m.emitter.set.name)
		case m.arrived:
			s.fail(EmittedOnce, "message %d of %q has come out twice", m.id, m.emitter.set.name)
		case m.loop != l || m.stream != stream:
			s.fail(EmittedOnce, "message %d of %q has come out in %q", m.id, m.stream, stream)
		case ev.Kind == loop.Outcome && m.id < from.emitted[stream]:
			s.fail(EmitOrder, "message %d of %q has come out after %d", m.id, m.emitter.set.name, from.emitted[stream])
		}
		if ev.Kind == loop.Outcome {
			from.emitted[stream] = m.id
		}
		s.owe(m)
	}
}

// Settle checks what the source is told.
func (l *simLoop) Settle(st loop.Settlement) {
	s, p := l.s, l.parts[st.Partition]
	if st.Returned {
		l.takeBack(p, st)
		return
	}
	if p.epoch != st.Epoch || p.revoked {
		s.fail(Epochs, "settlement of epoch %d of partition %d, which is at %d, revoked: %v", st.Epoch, st.Partition, p.epoch, p.revoked)
		return
	}
	if l.gaveUp {
		s.fail(SettledOnce, "settlement of %v after all was given back", st.Receipts)
	}
	for _, r := range st.Receipts {
		m := p.byReceipt(r)
		switch {
		case m == nil:
			s.fail(SettledOnce, "receipt %d is unknown", r)
			return
		case m.settled || m.returned:
			s.fail(SettledOnce, "message %d is settled again", m.id)
		case !s.isComplete(m, true):
			s.fail(SettledLast, "message %d is settled; still owed: %s", m.id, s.owing)
		}
		m.settled = true
		l.unsettled--
	}
	if st.HasCursor {
		l.checkCursor(p, st.Cursor)
	}
}

// checkCursor checks that the cursor does not go back, and that all before it is settled.
func (l *simLoop) checkCursor(p *part, cursor uint64) {
	if p.hasCursor && cursor < p.cursor {
		l.s.fail(Cursor, "partition %d: cursor %d after %d", p.id, cursor, p.cursor)
	}
	p.cursor, p.hasCursor = cursor, true
	for p.checked < len(p.sent) && p.sent[p.checked].receipt <= cursor {
		if m := p.sent[p.checked]; !m.settled {
			l.s.fail(Cursor, "partition %d: cursor %d, but message %d with receipt %d is not settled", p.id, cursor, m.id, m.receipt)
		}
		p.checked++
	}
}

// takeBack checks what is given back to the source.
func (l *simLoop) takeBack(p *part, st loop.Settlement) {
	if st.Epoch != p.epoch || p.revoked {
		l.s.fail(Epochs, "epoch %d of partition %d is given back; it is at %d, revoked: %v", st.Epoch, st.Partition, p.epoch, p.revoked)
	}
	for _, r := range st.Receipts {
		m := p.byReceipt(r)
		if m == nil || m.settled || m.returned {
			l.s.fail(Returned, "receipt %d is given back, unknown, again or after it was settled", r)
			return
		}
		m.returned = true
		l.unsettled--
	}
}

// Bury checks a letter; the schedule answers it.
func (l *simLoop) Bury(unit loop.UnitID, consumer loop.ConsumerID, b *arena.Batch, letter loop.Letter) {
	s, ln := l.s, l.lanes[consumer]
	m := s.intact("dead letter", b.Payload(0), b.Key(0))
	if m == nil {
		return
	}
	d := m.debtOf(ln)
	switch {
	case d != nil && d.state == isOwed && ln.timeIsUp() && errors.Is(letter.Cause, loop.ErrRemoved):
	case d == nil || d.state != isRefused && d.state != isFailed:
		s.fail(DeadLetters, "message %d for %q is buried without a reason", m.id, ln.p.set.name)
		return
	case d.state == isFailed && ln.timeIsUp() && errors.Is(letter.Cause, loop.ErrRemoved):
	case d.state == isFailed && !d.exhausted() && !(d.either && d.attempts >= ln.p.set.retry.Attempts && ln.p.set.retry.Attempts > 0):
		s.fail(Attempts, "%v: buried after %d attempts, of %d", d, d.attempts, ln.p.set.retry.Attempts)
	case letter.Stream != l.stream(m.stream):
		s.fail(DeadLetters, "%v: letter of stream %d", d, letter.Stream)
	}
	d.state = isDying
	s.dying = append(s.dying, &burial{l: l, unit: unit, batch: b, debt: d})
}

func (l *simLoop) stream(name string) loop.StreamID {
	return loop.StreamID(slices.IndexFunc(l.graph.Streams, func(st loop.Stream) bool { return st.Name == name }))
}

// burial is a dead letter that has not been answered.
type burial struct {
	l     *simLoop
	unit  loop.UnitID
	batch *arena.Batch
	debt  *debt
}

var errFull = errors.New("no space for dead letters")

// answer says whether the letter is durable.
func (s *Sim) answer(i int, ok bool) {
	b := s.dying[i]
	s.dying = slices.Delete(s.dying, i, i+1)
	s.intact("dead letter, answered", b.batch.Payload(0), b.batch.Key(0))
	ln := b.debt.lane
	detail := &loop.Detail{}
	if ok {
		b.debt.state = isDead
		ln.dead++
		if ln.l.stuck[b.unit] {
			delete(ln.l.stuck, b.unit)
			ln.stuck--
		}
	} else {
		detail.Err = errFull
		b.debt.state = isRefused
		if !ln.l.stuck[b.unit] {
			ln.l.stuck[b.unit] = true
			ln.stuck++
		}
	}
	s.tracef("dead letter of %v: durable %v", b.debt, ok)
	b.l.driver.Post(loop.Event{Kind: loop.Buried, Unit: b.unit, Detail: detail})
}

// Lapse ends a lease, and checks that it is over.
func (l *simLoop) Lapse(handle loop.Handle) bool {
	s := l.s
	h := s.byHeld[handle.(*plugin.Held)]
	if h == nil {
		s.fail(Verdicts, "a hold is to lapse that nobody made")
		return false
	}
	ok := actor.Lapse(handle)
	if !ok {
		if h.state == holdOpen {
			s.fail(Verdicts, "%v: the lease does not lapse, though there is no verdict", h.debt)
		}
		h.doomed = h.doomed || s.revocable(h)
		return false
	}
	now := s.now()
	over, revocable := now >= h.until, h.doomed || s.revocable(h)
	switch {
	case l.gaveUp && h.state == holdOpen:
		h.debt.state = isFailed
	case h.state != holdOpen:
		s.fail(Verdicts, "%v: the lease lapses after a verdict", h.debt)
	case over:
		s.failed(h.debt, 0)
		if h.debt.either = revocable; revocable {
			h.debt.notBefore = now
		}
	case revocable:
		h.debt.state, h.debt.hold, h.debt.notBefore = isFailed, nil, now
	default:
		s.fail(Early, "%v: lapses at %d; its lease is until %d, it may be revoked from %d", h.debt, now, h.until, h.debt.lane.revokeAt)
	}
	h.state = holdLapsed
	return true
}

// revocable says whether a hold may end because its version is replaced.
func (s *Sim) revocable(h *hold) bool {
	ln := h.debt.lane
	return s.now() >= ln.revokeAt && h.epoch < ln.epoch || ln.timeIsUp()
}

// LinkSettled tells every loop.
func (l *simLoop) LinkSettled(link uint64) {
	for _, other := range l.s.loops {
		other.driver.Post(loop.Event{Kind: loop.LinkSettled, Detail: &loop.Detail{Link: link}})
	}
}

// Quiet checks that nothing is out, and tells the actor.
func (l *simLoop) Quiet(consumer loop.ConsumerID, pause uint64, count int) {
	ln := l.lanes[consumer]
	out := ln.out
	if ln.serving {
		out--
	}
	if out > 0 {
		l.s.fail(Versions, "%q is said to be quiet with %d deliveries out", ln.p.set.name, out)
	}
	for _, h := range l.s.holds {
		if h.debt.lane == ln && (h.state == holdOpen || h.state == holdLinked) {
			l.s.fail(Versions, "%q is said to be quiet with %v held", ln.p.set.name, h.debt)
		}
	}
	word := func() { ln.p.actor.Quiet(pause, count) }
	if s := l.s; s.chance(400) { // whoever runs the loop is held up before it says so
		s.words = append(s.words, word)
		return
	}
	word()
}

// Drained checks that it is so.
func (l *simLoop) Drained(count int) {
	s := l.s
	if !l.draining || l.drained {
		s.fail(Progress, "%q is drained though it was not asked, or twice", l.set.stream)
	}
	l.drained = true
	returned, left := 0, 0
	for _, m := range s.messages[1:] {
		if m.loop != l || !m.root || m.late {
			continue
		}
		switch {
		case m.returned:
			returned++
		case !m.settled && !m.void:
			left++
		}
		if !l.gaveUp && !s.isComplete(m, true) {
			s.fail(Progress, "%q is drained, but this is owed: %s", l.set.stream, s.owing)
		}
	}
	s.report.GaveUp = s.report.GaveUp || l.gaveUp
	if count != returned || left > 0 {
		s.fail(Returned, "%q is drained: %d given back, of which the core says %d, and %d left", l.set.stream, returned, count, left)
	}
}
