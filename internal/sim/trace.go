package sim

import (
	"fmt"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
)

// ids names the messages of a batch.
func (s *Sim) ids(b *arena.Batch) string {
	if b == nil {
		return ""
	}
	list := []uint64{}
	for i := range b.Len() {
		if b.Slab == nil {
			return fmt.Sprintf("%d messages, slab gone", b.Len())
		}
		if m := s.find(b.Payload(i)); m != nil {
			list = append(list, m.id)
		}
	}
	return fmt.Sprint(list)
}

func (l *simLoop) traceEvent(ev *loop.Event) {
	s := l.s
	if s.opt.Trace == nil || ev.Kind == loop.Tick {
		return
	}
	line := fmt.Sprintf("  %s > %v unit %x", l.set.stream, ev.Kind, uint64(ev.Unit))
	if int(ev.Consumer) < len(l.lanes) {
		line += " of " + l.lanes[ev.Consumer].p.set.name
	}
	if ev.Last {
		line += " last"
	}
	if ev.Batch != nil {
		line += " " + s.ids(ev.Batch)
	}
	if d := ev.Detail; d != nil {
		for _, e := range d.Emits {
			line += fmt.Sprintf("; emits %s", s.ids(e.Batch))
		}
		for _, e := range d.Exceptions {
			line += fmt.Sprintf("; %d %v after %d token %v", e.Index, e.What, e.After, e.Token)
		}
		line += fmt.Sprintf("; token %v link %d keys %x items %d after %d epoch %d on %v", d.Token, d.Link, d.Keys, d.Items, d.After, d.Epoch, d.On)
	}
	s.tracef("%s", line)
}

func (l *simLoop) traceEffect(e *loop.Effect) {
	s := l.s
	if s.opt.Trace == nil {
		return
	}
	line := fmt.Sprintf("  %s     < %v", l.set.stream, e.Kind)
	switch e.Kind {
	case loop.Deliver:
		d := &e.Delivery
		line += fmt.Sprintf(" unit %x to %s, %s, attempt %d", uint64(d.Unit), l.lanes[d.Consumer].p.set.name, s.ids(d.Batch), d.Attempt)
		if d.Special != nil {
			line += fmt.Sprintf(", %+v", *d.Special)
		}
	case loop.Settle:
		line += fmt.Sprintf(" %+v", e.Settlement)
	case loop.SetTimer:
		line += fmt.Sprintf(" %d", e.At)
	case loop.WantCredit:
		line += fmt.Sprintf(" %s %d", l.lanes[e.Consumer].p.set.name, e.Items)
	case loop.SetWindow:
		line += fmt.Sprintf(" %+v", e.Window)
	case loop.LapseHold, loop.DeadLetter, loop.Quiet:
		line += fmt.Sprintf(" %s unit %x token %v", l.lanes[e.Consumer].p.set.name, uint64(e.Unit), e.Token)
	case loop.AnnounceLink:
		line += fmt.Sprintf(" %d", e.Link)
	}
	s.tracef("%s", line)
}
