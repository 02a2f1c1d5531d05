package main

import (
	"context"
	"fmt"
	"time"
)

// How many messages a run has at full size. Each takes about a second.
const (
	runMessages    = 8 << 20
	singleMessages = 2 << 20 // one message at a time
)

const perSecond = "deliveries/s"

// oursAt measures deliveries/s of Penstock, with batches of that many messages.
func oursAt(plugins, batch, total int) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		f := &feed{total: r.messages(total), batch: batch}
		if err := fanOut(ctx, r.in, f, plugins); err != nil {
			return nil, err
		}
		return []float64{rate(f.total*plugins, f.took())}, nil
	}
}

// batchesAt measures deliveries/s of bare channels.
func batchesAt(handlers, batch, total int) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		n, h := r.messages(total), bares(r.in, handlers)
		took, err := batchChannels(ctx, r.in, h, n, batch, nil)
		if err != nil {
			return nil, err
		}
		return []float64{rate(n*handlers, took)}, verifyBares(h, r.in, n)
	}
}

// limit measures deliveries/s of direct calls.
func limit(ctx context.Context, r *runner) ([]float64, error) {
	n, h := r.messages(runMessages), bares(r.in, 8)
	took, err := directCalls(ctx, r.in, h, n)
	if err != nil {
		return nil, err
	}
	return []float64{rate(n*len(h), took)}, verifyBares(h, r.in, n)
}

// byHand measures deliveries/s of the usual hand-written way.
func byHand(ctx context.Context, r *runner) ([]float64, error) {
	n, h := r.messages(singleMessages), bares(r.in, 8)
	c := newMessageChannels(ctx, r.in, h, nil)
	began := time.Now()
	for i := range n {
		if err := c.send(i); err != nil {
			return nil, err
		}
	}
	c.close()
	return []float64{rate(n*len(h), time.Since(began))}, verifyBares(h, r.in, n)
}

// oursAllocs counts the heap objects made for a message, once the first quarter has gone through.
func oursAllocs(ctx context.Context, r *runner) ([]float64, error) {
	var first, last uint64
	f := &feed{total: r.messages(2 * runMessages), batch: 64}
	f.warm = func() { first = mallocs() }
	f.last = func() { last = mallocs() }
	if err := fanOut(ctx, r.in, f, 8); err != nil {
		return nil, err
	}
	return []float64{float64(last-first) / float64(f.total-f.total/4)}, nil
}

// batchesAllocs counts the same of bare channels.
func batchesAllocs(ctx context.Context, r *runner) ([]float64, error) {
	var first uint64
	n, h := r.messages(2*runMessages), bares(r.in, 8)
	_, err := batchChannels(ctx, r.in, h, n, 64, func() { first = mallocs() })
	if err != nil {
		return nil, err
	}
	return []float64{float64(mallocs()-first) / float64(n-n/4)}, verifyBares(h, r.in, n)
}

// fanOutFigures are those of one stream to many plugins, or to one.
func fanOutFigures() []figure {
	const eight = "8 plugins, 1 KiB, batches of 64"
	speed := func(name string, w want) []row { return []row{{name, perSecond, w}} }
	list := []figure{
		{
			name: "fanout-8x1k", what: eight, against: "bare channels, batches of 64", size: 1024, rows: speed("fanout-8x1k", atLeast(0.6)),
			ours: oursAt(8, 64, runMessages), reference: batchesAt(8, 64, runMessages),
		},
		{
			name: "fanout-8x1k-limit", what: eight, against: "one goroutine copies and calls", size: 1024,
			rows: speed("fanout-8x1k-limit", atLeast(0.5)), ours: oursAt(8, 64, runMessages), reference: limit,
		},
		{
			name: "fanout-channels", what: eight, against: "a channel of pooled messages per handler", size: 1024,
			rows: speed("fanout-channels", atLeast(5)), ours: oursAt(8, 64, runMessages), reference: byHand,
		},
		{
			name: "fanout-allocs", what: eight + ": heap objects made per message", against: "bare channels, batches of 64", size: 1024,
			rows: []row{{"fanout-allocs", "allocs/message", want{"=", 0}}}, ours: oursAllocs, reference: batchesAllocs,
		},
		{
			name: "fanout-8x1k-256", what: "8 plugins, 1 KiB, batches of 256", against: "bare channels, batches of 256", size: 1024,
			rows: speed("fanout-8x1k-256", want{}), ours: oursAt(8, 256, runMessages), reference: batchesAt(8, 256, runMessages),
		},
	}
	for _, f := range list[:3] {
		f.name, f.procs, f.what = f.name+"-1p", 1, f.what+", GOMAXPROCS=1"
		f.rows = speed(f.name, want{})
		list = append(list, f)
	}
	for _, batch := range []int{1, 16, 64, 256} {
		total := runMessages
		if batch == 1 {
			total = singleMessages
		}
		name := fmt.Sprintf("fanout-1x128-%d", batch)
		list = append(list, figure{
			name: name, what: fmt.Sprintf("1 plugin, 128 B, batches of %d", batch), against: fmt.Sprintf("bare channels, batches of %d", batch),
			size: 128, rows: speed(name, want{}), ours: oursAt(1, batch, total), reference: batchesAt(1, batch, total),
		})
	}
	return list
}
