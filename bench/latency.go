package main

import (
	"context"
	"slices"
	"time"

	"github.com/penstock-dev/penstock"
)

// One message at a time: the next one is read when the one before is done with. What is timed is the way from before the copy to where the
// sender's side learns that the last of eight handlers is done: the settlement with us, the last count down in the hand-written way.
// Waking a goroutine is a part of both.

const latencyMessages = 100_000

// percentiles are p50 and p99 in microseconds, without the first tenth.
func percentiles(took []time.Duration) []float64 {
	took = took[len(took)/10:]
	slices.Sort(took)
	at := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))]) / float64(time.Microsecond) }
	return []float64{at(0.50), at(0.99)}
}

// oursOneByOne measures the latency of Penstock.
func oursOneByOne(ctx context.Context, r *runner) ([]float64, error) {
	n := r.messages(latencyMessages)
	took := make([]time.Duration, 0, n)
	handlers, plugins := lents(r.in, 8)
	f := &feed{from: &stamped{messages: r.in}, size: r.in.size, total: n, batch: 1, pace: make(chan struct{}, 1)}
	sent := f.from.(*stamped)
	f.heard = func(int) {
		took = append(took, time.Since(sent.at))
		f.pace <- struct{}{}
	}
	f.pace <- struct{}{}
	if _, err := runPipeline(ctx, penstock.Pipeline{Sources: []penstock.Source{{Name: "input", From: f}}, Plugins: plugins}, f); err != nil {
		return nil, err
	}
	for _, h := range handlers {
		if err := h.verify(r.in, n); err != nil {
			return nil, err
		}
	}
	return percentiles(took), nil
}

// stamped notes when the last read began.
type stamped struct {
	messages
	at time.Time
}

// read implements messages.
func (s *stamped) read(dst []byte, i int) (int, error) {
	s.at = time.Now()
	return s.messages.read(dst, i)
}

// byHandOneByOne measures the latency of the usual hand-written way.
func byHandOneByOne(ctx context.Context, r *runner) ([]float64, error) {
	n, h := r.messages(latencyMessages), bares(r.in, 8)
	took := make([]time.Duration, 0, n)
	next := make(chan struct{}, 1)
	var began time.Time
	c := newMessageChannels(ctx, r.in, h, func() {
		took = append(took, time.Since(began))
		next <- struct{}{}
	})
	for i := range n {
		began = time.Now()
		if err := c.send(i); err != nil {
			return nil, err
		}
		<-next
	}
	c.close()
	return percentiles(took), verifyBares(h, r.in, n)
}

func latencyFigures() []figure {
	return []figure{{
		name: "latency-8", what: "8 plugins, 1 KiB, the next message when the one before is settled; lower is better",
		against: "a channel of pooled messages per handler", size: 1024,
		rows: []row{{"latency-8", "us, p50", atMost(2.5)}, {"latency-8-p99", "us, p99", want{}}},
		ours: oursOneByOne, reference: byHandOneByOne,
	}}
}
