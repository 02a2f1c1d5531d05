package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// heldMessages is how many messages are held.
const heldMessages = 1000

// keeper is a plugin that holds some of the messages, spread over the traffic, and keeps them until it is told.
type keeper struct {
	checker
	every int
	held  []*penstock.Held
}

// Handle implements penstock.Handler.
func (k *keeper) Handle(_ context.Context, m *penstock.Message) error {
	k.see(m.Payload())
	if int(k.count)%k.every != 0 || len(k.held) == heldMessages {
		return nil
	}
	held, err := m.Hold(time.Hour)
	if err == nil {
		k.held = append(k.held, held)
	}
	return err
}

// holding measures, while messages are held and all others are settled, the bytes of the budget that are in use and the Go heap.
func holding(ctx context.Context, r *runner) ([]float64, error) {
	n := r.messages(runMessages / 4)
	k := &keeper{checker: newChecker(r.in), every: n / heldMessages}
	settled := make(chan struct{})
	f := &feed{from: r.in, size: r.in.size, total: n, batch: 64}
	f.heard = func(int) {
		if f.settled == n-heldMessages {
			close(settled)
		}
	}
	rt, err := penstock.New(quiet(penstock.Pipeline{
		Sources: []penstock.Source{{Name: "input", From: f}},
		Plugins: []penstock.Plugin{{Name: "keeper", From: []string{"input"}, New: func() (penstock.Handler, error) { return k, nil }}},
	}))
	if err != nil {
		return nil, err
	}
	before := heap()
	ended := make(chan error, 1)
	go func() {
		_, err := rt.Run(ctx)
		ended <- err
	}()
	select {
	case <-settled:
	case err := <-ended:
		return nil, fmt.Errorf("ended before the held messages were acknowledged: %w", errors.Join(err, f.verify()))
	}
	pinned, grown := pinned(rt.Memory()), heap()-before
	for i, h := range k.held { // their bytes are still what they were
		if p := h.Payload(); len(p) != r.in.size {
			return nil, fmt.Errorf("held message %d has %d bytes", i, len(p))
		}
		if err := h.Ack(); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(<-ended, f.verify(), k.verify(r.in, n)); err != nil {
		return nil, err
	}
	return []float64{float64(pinned), float64(grown)}, nil
}

// pinned is what of the budget is in use: whole slabs, by whomever.
func pinned(s arena.Stats) int64 {
	return s.Used[arena.Sources] + s.Used[arena.Emits] + s.Used[arena.Evacuation]
}

// heap is the size of what lives on the Go heap, in bytes.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// ownSize is the size of the messages that are held.
func ownSize(_ context.Context, r *runner) ([]float64, error) {
	own := float64(heldMessages * r.in.size)
	return []float64{own, own}, nil
}

func heldFigures() []figure {
	return []figure{{
		name: "held-message", what: "1,000 messages of 1 KiB held, all others settled: bytes of the budget in use; lower is better",
		against: "their own size", size: 1024,
		rows: []row{{"held-message", "bytes", atMost(2)}, {"held-message-heap", "bytes of Go heap", want{}}},
		ours: holding, reference: ownSize,
	}}
}
