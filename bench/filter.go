package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/buger/jsonparser"
	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/builtin"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

const (
	flightsFile    = "../examples/flights/flights.ndjson"
	flights        = 20_000 // in the file
	flightsLate    = 22     // of those: from Seattle, an hour late or more
	filterMessages = 16 << 20
	filterWhere    = `msg.delay >= 60 && msg.origin == "SEA"`
)

// flightBatches are the flights in slabs, as a source would leave them.
func flightBatches(a *arena.Arena) ([]*arena.Batch, error) {
	text, err := os.ReadFile(flightsFile)
	if err != nil {
		return nil, fmt.Errorf("run it in the directory bench: %w", err)
	}
	account, err := a.Account(arena.Sources, "flights", 0, 64<<20)
	if err != nil {
		return nil, err
	}
	var out []*arena.Batch
	lines := slices.Collect(bytes.Lines(text))
	for chunk := range slices.Chunk(lines, 256) {
		slab, err := account.Lease()
		if err != nil {
			return nil, err
		}
		b := a.NewBatch()
		b.Slab = slab
		off := 0
		for _, line := range chunk {
			n := copy(slab.Bytes()[off:], line)
			b.Frames = append(b.Frames, arena.Frame{Off: uint32(off), Len: uint32(n - 1)})
			b.Receipts = append(b.Receipts, uint64(len(b.Receipts)))
			off += n
		}
		out = append(out, b)
	}
	return out, nil
}

// emitted is the runtime's side of a message: it counts what is emitted.
type emitted struct{ count, bytes int }

var errNotHere = errors.New("a filter has no use for it")

// Hold implements plugin.Host.
func (*emitted) Hold(lend.Key, *plugin.Message, time.Duration) (*plugin.Held, error) {
	return nil, errNotHere
}

// Emit implements plugin.Host.
func (e *emitted) Emit(_ lend.Key, _ *plugin.Message, _ string, payload []byte, _ *plugin.Emission) error {
	e.count++
	e.bytes += len(payload)
	return nil
}

// Resolve implements plugin.Host.
func (*emitted) Flush(lend.Key) {}

func (*emitted) Resolve(lend.Key, *plugin.Message, arena.Ref) ([]byte, bool) { return nil, false }

// byHandFilter is the check as one would write it.
type byHandFilter struct{}

// Handle implements penstock.Handler.
func (byHandFilter) Handle(_ context.Context, m *penstock.Message) error {
	p := m.Payload()
	delay, err := jsonparser.GetInt(p, "delay")
	if err != nil {
		return plugin.Reject(fmt.Errorf("delay: %w", err))
	}
	if delay < 60 {
		return nil
	}
	origin, err := jsonparser.GetUnsafeString(p, "origin")
	if err != nil {
		return plugin.Reject(fmt.Errorf("origin: %w", err))
	}
	if origin == "SEA" {
		return m.Forward("big")
	}
	return nil
}

// builtInFilter is the plugin that a file names.
func builtInFilter() (plugin.Handler, error) {
	k := builtin.Filter()
	settings := k.Settings.(builtin.FilterSettings)
	settings.Where = filterWhere
	create, err := k.NewPlugin(settings, kind.Env{Name: "big", Emits: []string{"big"}})
	if err != nil {
		return nil, err
	}
	return create()
}

// filterWith measures messages/s of a handler, called as the runtime calls it, and the heap objects that it makes for each.
func filterWith(create func() (plugin.Handler, error)) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		a, err := arena.New(arena.Config{Budget: 128 << 20})
		if err != nil {
			return nil, err
		}
		batches, err := flightBatches(a)
		if err != nil {
			return nil, err
		}
		defer func() {
			for _, b := range batches {
				b.Free()
			}
		}()
		h, err := create()
		if err != nil {
			return nil, err
		}
		passes := max(r.messages(filterMessages)/flights, 1)
		host, m := &emitted{}, &plugin.Message{}
		if err := filterPass(ctx, batches, h, host, m); err != nil { // what is made once is made
			return nil, err
		}
		if host.count != flightsLate {
			return nil, fmt.Errorf("%d flights are forwarded instead of %d", host.count, flightsLate)
		}
		before, began := mallocs(), time.Now()
		for range passes {
			if err := filterPass(ctx, batches, h, host, m); err != nil {
				return nil, err
			}
		}
		took, made := time.Since(began), mallocs()-before
		if host.count != flightsLate*(passes+1) {
			return nil, fmt.Errorf("%d flights are forwarded in %d passes instead of %d", host.count, passes+1, flightsLate*(passes+1))
		}
		return []float64{rate(flights*passes, took), float64(made) / float64(flights*passes)}, nil
	}
}

// filterPass shows all batches to h.
func filterPass(ctx context.Context, batches []*arena.Batch, h plugin.Handler, host *emitted, m *plugin.Message) error {
	m.Describe(lend.Key{}, host, "flights", 1)
	for _, b := range batches {
		m.Open(lend.Key{}, b, 0)
		for i := range b.Frames {
			m.Next(lend.Key{}, i)
			if err := h.Handle(ctx, m); err != nil {
				return err
			}
		}
		m.Shut(lend.Key{})
	}
	return nil
}

func filterFigures() []figure {
	return []figure{{
		name: "filter", what: "20,000 flights as JSON, over and over again: " + filterWhere, against: "the same, written by hand with jsonparser",
		rows: []row{{"filter", "messages/s", atLeast(0.8)}, {"filter-allocs", "allocs/message", want{"=", 0}}},
		ours: filterWith(builtInFilter), reference: filterWith(func() (plugin.Handler, error) { return byHandFilter{}, nil }),
	}}
}
