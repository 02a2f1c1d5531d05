package sim

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
)

// sinkRun is a sink of the run: the real driver of sinks, with a sink that is done when the schedule says so.
type sinkRun struct {
	p      *plug
	sink   *actor.Sink
	giving *lane // whose delivery is being given
	bytes  int64
	open   []*writing
}

// writing is a batch that the sink has been lent.
type writing struct {
	b     *sink.Batch
	lane  *lane
	bytes int64
	debts []*debt
	done  int
}

var _ sink.Sink = (*sinkRun)(nil)

func newSinkRun(p *plug) *sinkRun {
	k := &sinkRun{p: p}
	k.sink = actor.NewSink(actor.SinkConfig{Name: p.set.name, Sink: k, Places: 4, Clock: p.s.clock, Logger: slog.New(&panics{s: p.s})})
	return k
}

func (k *sinkRun) start() {
	if err := k.sink.Start(context.Background()); err != nil {
		panic(err)
	}
}

func (k *sinkRun) stop() {
	if err := k.sink.Stop(context.Background()); err != nil {
		k.p.s.fail(Misuse, "stopping %q: %v", k.p.set.name, err)
	}
}

// Open does nothing.
func (k *sinkRun) Open(context.Context, sink.Env) error { return nil }

// Flush does nothing: requests are under way.
func (k *sinkRun) Flush(context.Context) error { return nil }

// Close does nothing.
func (k *sinkRun) Close(context.Context) error { return nil }

// Write checks what is lent.
func (k *sinkRun) Write(_ context.Context, b *sink.Batch) error {
	s := k.p.s
	w := &writing{b: b, lane: k.giving, bytes: k.bytes}
	for i := range b.Len() {
		m := s.intact(fmt.Sprintf("%q was lent", k.p.set.name), b.Payload(i), b.Key(i))
		if m == nil {
			return nil
		}
		d := m.debtOf(k.giving)
		if d == nil || b.Stream() != m.stream {
			s.fail(Asked, "message %d of %q is lent to %q as of %q", m.id, m.stream, k.p.set.name, b.Stream())
			return nil
		}
		s.tracef("%s: is lent message %d", k.p.set.name, m.id)
		s.shown(d, d.attempts+1)
		w.debts = append(w.debts, d)
	}
	k.open = append(k.open, w)
	return nil
}

// step is done with some messages of some batch.
func (k *sinkRun) step() {
	s := k.p.s
	i := s.rnd.IntN(len(k.open))
	w := k.open[i]
	lo := w.done
	hi := lo + 1 + s.rnd.IntN(w.b.Len()-lo)
	err := k.verdict(w.debts[lo:hi])
	w.done = hi
	last := hi == w.b.Len()
	for j := lo; j < hi; j++ { // their bytes are lent until then
		s.intact(fmt.Sprintf("%q writes", k.p.set.name), w.b.Payload(j), w.b.Key(j))
	}
	s.tracef("%s: done with %d to %d of a batch of %d: %v", k.p.set.name, lo, hi, w.b.Len(), err)
	if last {
		k.open = append(k.open[:i], k.open[i+1:]...)
		w.lane.serving = true
	}
	w.b.Done(lo, hi, err)
	if last {
		w.lane.serving = false
		w.lane.out--
		w.lane.outBytes -= w.bytes
	}
}

// verdict is one for some messages.
func (k *sinkRun) verdict(debts []*debt) (err error) {
	s := k.p.s
	kind := -1
	if tame := s.ending || debts[0].attempts > 8; !tame && s.chance(s.set.retryRate) {
		kind = s.rnd.IntN(3)
	}
	for _, d := range debts {
		switch kind {
		case -1:
			s.done(d, nil)
		case 0:
			s.failed(d, 0)
			err = errScripted
		case 1:
			s.failed(d, 20)
			err = plugin.Retry(errScripted, 20*millisecond)
		default:
			s.refused(d)
			err = plugin.Reject(errScripted)
		}
	}
	return err
}
