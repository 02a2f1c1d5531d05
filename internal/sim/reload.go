package sim

import (
	"context"
	"fmt"
	"slices"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/loop"
)

// removal is how far a plug has come that is taken out.
type removal uint8

const (
	stays   removal = iota
	leaving         // it reads no stream any more
	gone            // the loops know that it gets what it is owed, and no more
	stopped
)

// reshaping is another graph on its way into a loop.
type reshaping struct {
	graph  loop.Graph
	window loop.Window
	after  loop.Ticks
}

// most plugs that reloads add, for each of which the arena has memory.
const mostAdded = 2

// reload changes the pipeline. Loops hear of it one by one, in steps of their own.
func (s *Sim) reload() {
	s.report.Reloads++
	switch s.rnd.IntN(8) {
	case 0, 1:
		s.addPlug()
	case 2, 3:
		s.removePlug()
	case 4, 5:
		s.changeReader()
	case 6:
		s.changeBounds()
	default:
		s.removePlug()
		s.addPlug()
	}
	for _, l := range s.loops {
		l.stale = true
	}
	if s.rnd.IntN(2) == 0 { // all at once, as far as they may
		for s.reshapeOne() {
			s.tracef("at once")
		}
	}
}

// serving are plugs that may be changed.
func (s *Sim) serving() (list []*plug) {
	for _, p := range s.plugs {
		if p.going == stays && p.swap == nil {
			list = append(list, p)
		}
	}
	return list
}

func (s *Sim) addPlug() {
	if s.added == mostAdded {
		return
	}
	s.added++
	var set *plugSetup
	if name := fmt.Sprintf("r%d", s.added); s.rnd.IntN(3) == 0 {
		set = randomSink(s.rnd, s.set, name)
	} else {
		set = randomPlug(s.rnd, s.set, name, s.rnd.IntN(3))
	}
	p := s.newPlug(set)
	p.waits = !set.sink && s.rnd.IntN(3) == 0
	if s.rnd.IntN(3) == 0 { // it takes its place first, and reads later
		p.later, set.from = set.from, nil
	}
	s.plugs = append(s.plugs, p)
	s.tracef("reload: %s is added, reads %q, later %q, emits %q, waits %v", set.name, set.from, p.later, set.emits, p.waits)
}

func (s *Sim) removePlug() {
	if list := s.serving(); len(list) > 1 || len(list) == 1 && s.rnd.IntN(4) == 0 {
		p := pick(s.rnd, list...)
		if len(s.holds) > 0 && s.rnd.IntN(2) == 0 { // rather one that holds something
			if holder := s.holds[0].debt.lane.p; slices.Contains(list, holder) {
				p = holder
			}
		}
		p.going, p.set.from, p.later = leaving, nil, nil
		if s.rnd.IntN(3) == 0 { // with the graph in which it reads nothing
			p.bidFarewell()
		}
		s.tracef("reload: %s is taken out", p.set.name)
	}
}

func (s *Sim) changeReader() {
	list := s.serving()
	if len(list) == 0 {
		return
	}
	p := pick(s.rnd, list...)
	set := p.set
	if p.later != nil {
		set.from, p.later = p.later, nil
	} else if set.from = set.reads(s.rnd, s.set); s.rnd.IntN(4) == 0 {
		set.from = nil
	}
	if !set.sink && s.rnd.IntN(2) == 0 {
		set.emits = set.makes(s.rnd)
		p.actor.Tune(actor.Tuning{Emits: set.emits, MaxEmit: maxEmit})
	}
	s.tracef("reload: %s reads %q and emits %q", set.name, set.from, set.emits)
}

// changeBounds changes the mailbox of a plug and the window of a source.
func (s *Sim) changeBounds() {
	if list := s.serving(); len(list) > 0 {
		set := pick(s.rnd, list...).set
		set.mailbox = pick[int64](s.rnd, 100, 1000, 10000)
		if s.rnd.IntN(2) == 0 {
			set.overflow = pick(s.rnd, loop.Block, loop.DropOldest)
		}
	}
	l := pick(s.rnd, s.loops...)
	l.newWindow = loop.Window{Messages: pick(s.rnd, 1, 10, 50, 1000), Bytes: pick[int64](s.rnd, 500, 5000, 1<<20)}
}

// goOn takes a reload one step further, if there is one.
func (s *Sim) goOn() bool {
	if len(s.words) > 0 && (s.ending || s.rnd.IntN(10) == 0) {
		word := s.words[0]
		s.words = s.words[1:]
		word()
		s.opt.Wait()
		return true
	}
	if s.ending || s.rnd.IntN(2) == 0 {
		return s.reshapeOne() || s.wake() || s.bidFarewell() || s.stopOne()
	}
	return false
}

// reshapeOne gives a loop the graph that is right for it. A plug is not attached to a loop while it is swapped.
func (s *Sim) reshapeOne() bool {
	from := s.rnd.IntN(len(s.loops))
	for i := range s.loops {
		if l := s.loops[(from+i)%len(s.loops)]; l.stale && l.reshape() {
			return true
		}
	}
	return false
}

// wake lets a plug begin that has its places.
func (s *Sim) wake() bool {
	for _, p := range s.plugs {
		if p.waits && p.going == stays && (s.ending || s.rnd.IntN(4) == 0) {
			p.waits = false
			s.tracef("%s begins", p.set.name)
			for _, ln := range p.lanes {
				ln.l.driver.Lane(ln.id).Post(loop.Unpause, &loop.Detail{})
			}
			return true
		}
	}
	return false
}

// bidFarewell tells the loops that a plug is gone which reads no stream any more.
func (s *Sim) bidFarewell() bool {
	for _, p := range s.plugs {
		if p.going == leaving && !p.reading() && (s.ending || s.rnd.IntN(3) == 0) {
			p.bidFarewell()
			return true
		}
	}
	return false
}

func (p *plug) bidFarewell() {
	p.going = gone
	if p.patience = pick[loop.Ticks](p.s.rnd, 0, 1, 10, 30, 300, 5000); p.waits { // it will not begin any more
		p.patience = max(p.patience, 1)
	}
	p.s.tracef("%s is gone, and has %d for what it is owed", p.set.name, p.patience)
	for _, ln := range p.lanes {
		ln.l.stale = true
	}
}

// reading says whether a loop still has the plug among the readers of a stream.
func (p *plug) reading() bool {
	for _, ln := range p.lanes {
		for _, list := range ln.l.byStream {
			if slices.Contains(list, ln) {
				return true
			}
		}
	}
	return false
}

// stopOne stops a plug that all loops have retired.
func (s *Sim) stopOne() bool {
	for _, p := range s.plugs {
		if p.going != gone || p.swap != nil || slices.ContainsFunc(p.lanes, func(ln *lane) bool { return !ln.retired }) {
			continue
		}
		s.tracef("%s is stopped", p.set.name)
		p.stop()
		p.going = stopped
		s.report.Removed++
		return true
	}
	return false
}

// reshape gives the loop's core another graph.
func (l *simLoop) reshape() bool {
	s := l.s
	g, plugs := l.regraph()
	for _, p := range plugs[len(l.lanes):] {
		if p.swap != nil {
			return false
		}
	}
	l.stale = false
	next := &reshaping{graph: g, window: l.newWindow}
	l.newWindow = loop.Window{}
	before := len(l.lanes)
	for i, p := range plugs {
		if i >= before {
			l.join(p)
		}
		if p.going == gone && !l.lanes[i].gone {
			next.after = max(next.after, p.patience)
		}
	}
	boxes := make([]chan<- loop.Delivery, 0, len(plugs)-before)
	for _, ln := range l.lanes[before:] {
		boxes = append(boxes, ln.pipe)
	}
	l.next = next
	s.tracef("%s: another graph, %d consumers, window %+v", l.set.stream, len(plugs), next.window)
	l.driver.Reshape(&g, boxes, next.window, next.after)
	for _, ln := range l.lanes[before:] {
		ln.attach()
	}
	return true
}

// reshaped hears that the core has its graph: what comes from now on is owed by that one.
func (l *simLoop) reshaped() {
	g, next := l.next.graph, l.next
	l.graph, l.next = g, nil
	if next.window != (loop.Window{}) {
		l.window = next.window
	}
	for i := range g.Consumers {
		ln := l.lanes[i]
		ln.c = g.Consumers[i]
		ln.drops = ln.drops || ln.c.Overflow == loop.DropOldest
		if ln.c.Gone {
			if !ln.gone || ln.goneUntil == never && next.after > 0 {
				ln.goneUntil = never
				if next.after > 0 {
					ln.goneUntil = l.s.now() + int64(next.after)
				}
			}
			ln.gone = true
		}
	}
	clear(l.byStream)
	for _, st := range g.Streams {
		for _, id := range st.Consumers {
			l.byStream[st.Name] = append(l.byStream[st.Name], l.lanes[id])
		}
	}
}

// Retired checks that nothing is owed to a consumer that is gone.
func (l *simLoop) Retired(consumer loop.ConsumerID) {
	s, ln := l.s, l.lanes[consumer]
	out := ln.out
	if ln.serving {
		out--
	}
	name := ln.p.set.name
	switch {
	case !ln.gone || ln.retired:
		s.fail(Farewell, "%q is retired, gone: %v, retired before: %v", name, ln.gone, ln.retired)
	case out > 0 || ln.stuck > 0 && !l.gaveUp:
		s.fail(Farewell, "%q is retired with %d deliveries out and %d letters that were refused", name, out, ln.stuck)
	}
	ln.retired = true
	if l.gaveUp {
		return
	}
	for _, m := range s.messages[1:] {
		if m.loop != l || m.complete || !m.arrived {
			continue
		}
		d := m.debtOf(ln)
		if d == nil || d.over() {
			continue
		}
		if d.state == isOwed && !d.delivered && ln.drops {
			s.drop(d)
			continue
		}
		s.fail(Farewell, "%q is retired, and is owed %v, in state %d", name, d, d.state)
		return
	}
}

// timeIsUp says whether what is owed to a consumer that is gone may be buried.
func (ln *lane) timeIsUp() bool { return ln.gone && ln.l.s.now() >= ln.goneUntil }

// start makes a plug serve that has its first place in a loop.
func (p *plug) start() {
	if p.started {
		return
	}
	p.started = true
	if p.set.sink {
		p.out.start()
	} else if err := p.actor.Prepare(context.Background()); err != nil {
		panic(err)
	}
}
