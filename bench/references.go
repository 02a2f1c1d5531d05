package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// rate is n in so much time, by the second.
func rate(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// shared is a batch of the reference with bare channels.
type shared struct {
	payloads []byte
	left     atomic.Int32
}

// buffersInUse is how many batches the reference with bare channels cycles through.
const buffersInUse = 8

// batchChannels is the reference that is as fast as channels are: batches of messages go to n handlers by bare channels, copied from the
// input into a few reused buffers, and one atomic count a batch says when a buffer is free again. Nothing is tracked, nothing could be
// retried. atWarm is called, if it is there, after a quarter of the messages; then the rest is what is timed.
func batchChannels(ctx context.Context, in *input, handlers []*bare, total, batch int, atWarm func()) (time.Duration, error) {
	free := make(chan *shared, buffersInUse)
	for range buffersInUse {
		free <- &shared{payloads: make([]byte, batch*in.size)}
	}
	var running sync.WaitGroup
	to := make([]chan *shared, len(handlers))
	for i := range handlers {
		to[i] = make(chan *shared, buffersInUse)
		running.Go(func() { serveBatches(ctx, handlers[i], to[i], free, in.size) })
	}
	began := time.Now()
	for sent := 0; sent < total; {
		b := <-free
		n, err := in.read(b.payloads[:min(batch, total-sent)*in.size], sent)
		if err != nil {
			return 0, err
		}
		b.payloads = b.payloads[:n*in.size]
		b.left.Store(int32(len(to)))
		for _, c := range to {
			c <- b
		}
		if atWarm != nil && sent < total/4 && sent+n >= total/4 {
			atWarm()
		}
		sent += n
	}
	for _, c := range to {
		close(c)
	}
	running.Wait()
	return time.Since(began), nil
}

func serveBatches(ctx context.Context, h handler, from <-chan *shared, free chan<- *shared, size int) {
	for b := range from {
		for p := b.payloads; len(p) > 0; p = p[size:] {
			if err := h.Handle(ctx, p[:size:size]); err != nil {
				return
			}
		}
		if b.left.Add(-1) == 0 {
			free <- b
		}
	}
}

// directCalls is the limit: one goroutine copies each payload into one buffer, which stays in its cache, and calls the handlers.
func directCalls(ctx context.Context, in *input, handlers []*bare, total int) (time.Duration, error) {
	called := make([]handler, len(handlers))
	for i, h := range handlers {
		called[i] = h
	}
	buffer := make([]byte, in.size)
	began := time.Now()
	for i := range total {
		if _, err := in.read(buffer, i); err != nil {
			return 0, err
		}
		for _, h := range called {
			if err := h.Handle(ctx, buffer); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}

// pooled is a message of the usual hand-written way.
type pooled struct {
	payload []byte
	left    atomic.Int32
}

// messageChannels is the usual hand-written way: each handler has a channel, messages come from a pool, and whoever is done last with one
// puts it back there.
type messageChannels struct {
	in      *input
	pool    sync.Pool
	to      []chan *pooled
	running sync.WaitGroup
	done    func() // called for each message that all are done with; may be nil
}

// places is how many messages may wait for a handler.
const places = 256

func newMessageChannels(ctx context.Context, in *input, handlers []*bare, done func()) *messageChannels {
	c := &messageChannels{in: in, to: make([]chan *pooled, len(handlers)), done: done}
	c.pool.New = func() any { return &pooled{payload: make([]byte, in.size)} }
	for i, h := range handlers {
		c.to[i] = make(chan *pooled, places)
		c.running.Go(func() { c.serve(ctx, h, c.to[i]) })
	}
	return c
}

func (c *messageChannels) serve(ctx context.Context, h handler, from <-chan *pooled) {
	for m := range from {
		if err := h.Handle(ctx, m.payload); err != nil {
			return
		}
		if m.left.Add(-1) == 0 {
			c.pool.Put(m)
			if c.done != nil {
				c.done()
			}
		}
	}
}

// send reads message i and gives it to all.
func (c *messageChannels) send(i int) error {
	m := c.pool.Get().(*pooled)
	if _, err := c.in.read(m.payload, i); err != nil {
		return err
	}
	m.left.Store(int32(len(c.to)))
	for _, to := range c.to {
		to <- m
	}
	return nil
}

// close waits until everything has been handled.
func (c *messageChannels) close() {
	for _, to := range c.to {
		close(to)
	}
	c.running.Wait()
}

// mallocs is the number of heap objects made so far.
func mallocs() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs
}
