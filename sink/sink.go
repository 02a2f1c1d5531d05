// Package sink is the contract between Penstock and whatever messages go to.
//
// A sink is driven by one goroutine, which lends it batches and asks it to flush; the sink says, range by range and possibly later,
// which messages have been written. Only then are they settled.
//
//	Open ─> Write(b1) Write(b2) Flush ─> b1.Done b2.Done ─> Write ... ─> Flush ─> Close
package sink

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/source"
)

// Env is what a sink may use of the world.
type Env = source.Env

// Sink writes the messages of the streams that it consumes. Open, Write, Flush and Close are called one at a time.
type Sink interface {
	// Open is called once, before the first Write.
	Open(ctx context.Context, env Env) error
	// Write lends b to the sink, until [Batch.Done] has been called for each of its messages: by Write itself, by Flush, or by a goroutine
	// of the sink. A non-nil error fails every message of b that is not done yet.
	Write(ctx context.Context, b *Batch) error
	// Flush writes out what has been buffered, as durably as the sink was asked to be. When it has returned nil, every message given
	// before is done or is on its way in a request of its own. An error fails all messages that are not done.
	Flush(ctx context.Context) error
	// Close is called once, after the last Flush.
	Close(ctx context.Context) error
}

// Reporter is an optional interface of a sink: what it says about itself, for summaries, metrics and readiness. Status may be called
// concurrently with everything else, and does not block.
type Reporter interface{ Status() Status }

// Status is how a sink gets on with its destination.
type Status struct {
	State  string    // "ok", "retrying", "open" (a breaker that lets nothing through), or another word of the sink's own
	Detail string    // why, in a sentence; empty if there is nothing to say
	Since  time.Time // when it came into this state

	Failures uint64 // attempts of its own that have failed, apart from those that Write and Flush have returned an error for
}

// Batch is some messages, on loan to a sink. Each message's bytes are valid until it is done. Its methods may be called concurrently.
type Batch struct {
	batch  *arena.Batch
	pick   []uint32
	n      int
	stream string

	mu      sync.Mutex
	done    []bool
	left    int
	settled func(b *Batch, i int, err error)
}

// NewBatch makes a Batch of the messages of b that pick names, of all if pick is nil. done is called once for each message, under the
// batch's lock. It is called by the runtime, and by tests of sinks.
func NewBatch(b *arena.Batch, pick []uint32, stream string, done func(b *Batch, i int, err error)) *Batch {
	s := &Batch{batch: b, pick: pick, n: b.Len(), stream: stream, settled: done}
	if pick != nil {
		s.n = len(pick)
	}
	s.left, s.done = s.n, make([]bool, s.n)
	return s
}

// Len is the number of messages.
func (b *Batch) Len() int { return b.n }

// Bytes is the sum of the payloads' lengths.
func (b *Batch) Bytes() (n int) {
	for i := range b.n {
		n += int(b.batch.Frames[b.at(i)].Len)
	}
	return n
}

func (b *Batch) at(i int) int {
	if b.pick == nil {
		return i
	}
	return int(b.pick[i])
}

// Payload is the payload of message i, lent.
func (b *Batch) Payload(i int) []byte { return b.batch.Payload(b.at(i)) }

// Key is the key of message i, lent; nil if it has none.
func (b *Batch) Key(i int) []byte { return b.batch.Key(b.at(i)) }

// Header is the value of a header of message i, lent; nil if there is none.
func (b *Batch) Header(i int, name string) []byte {
	return arena.Header(b.batch.Headers(b.at(i)), name)
}

// Headers is the header block of message i, lent, for [arena.NextHeader].
func (b *Batch) Headers(i int) []byte { return b.batch.Headers(b.at(i)) }

// Stream is the stream that the messages came by.
func (b *Batch) Stream() string { return b.stream }

// Done says that the messages lo to hi-1 are written (err nil), or have failed with err, which is a verdict as a handler gives it. From
// then on their bytes are not the sink's. It panics if a message of the range was done before.
func (b *Batch) Done(lo, hi int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := lo; i < hi; i++ {
		if b.done[i] {
			panic(fmt.Sprintf("sink: message %d of a batch of %d done twice", i, b.n))
		}
		b.done[i] = true
		b.left--
		b.settled(b, i, err)
	}
}

// Fail makes every message that is not done yet fail with err. It is called by the runtime.
func (b *Batch) Fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.done {
		if !b.done[i] {
			b.done[i] = true
			b.left--
			b.settled(b, i, err)
		}
	}
}

// Left is the number of messages that are not done.
func (b *Batch) Left() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left
}
