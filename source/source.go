// Package source is the contract between Penstock and whatever messages come from.
//
// A source reads into memory that the runtime gives it, says where the frames are, and is told later what became of each message. It
// keeps no message: what has not been settled when it stops is its producer's, or its own cursor's, to send again.
//
//	Run:    Ready ─> read into a slab ─> Accept ─> Ready ─> ...
//	Settle:                                   receipts, cursor <─ loop
package source

import (
	"context"
	"log/slog"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
)

// Source makes the messages of one stream.
type Source interface {
	// Run reads until the input ends (nil), ctx ends (nil or the context's error), or the source fails for good. It is called once. When
	// it has returned it gives no further batch, but Settle may still be called, up to Close.
	Run(ctx context.Context, in Intake) error

	// Settle is told what became of messages. Calls come one at a time and in order, possibly while Run runs, and must not block: what
	// takes time is handed to the source's own goroutines. s and its slices are valid until Settle returns.
	Settle(s Settlement)

	// Close is called once, after Run has returned and the last Settle: what was settled is made durable, connections are closed.
	Close(ctx context.Context) error
}

// Checkpointer is an optional interface of a source that keeps a cursor: Checkpoint writes down what has been settled so far. The
// runtime calls it about once a second while things are settled, from a goroutine of its own.
type Checkpointer interface {
	Checkpoint(ctx context.Context) error
}

// Preparer is an optional interface of a source: Prepare does, before Run, what may fail for good, such as binding its address, so that a
// pipeline that cannot work does not start, and one that works is not changed for it. It is called once. If Run is not called after it,
// Close is.
type Preparer interface {
	Prepare(ctx context.Context, env Env) error
}

// Outcome is what became of the messages of one Settlement.
type Outcome uint8

const (
	// Settled: every plugin owed the message has acknowledged or rejected it, and everything emitted from it has settled.
	Settled Outcome = iota
	// Returned: the runtime stops before the message is settled; the source should have it sent again.
	Returned
)

// Settlement says what became of some messages of one partition.
type Settlement struct {
	Outcome   Outcome
	Partition uint32
	Epoch     uint32   // the assignment under which the messages were accepted; a revoked one is never settled
	Receipts  []uint64 // the receipts of these messages, in the order in which they were accepted
	// Cursor is the receipt of the last message of the contiguous settled prefix of this assignment; it never goes back. HasCursor is false
	// until there is one.
	Cursor    uint64
	HasCursor bool
}

// Intake is the runtime's side of a source. Its methods may be called from any goroutine of the source.
type Intake interface {
	// Account is the memory that the source reads into.
	Account() *arena.Account
	// NewBatch is an empty batch to be filled: Slab (one reference goes with it), Frames and Receipts, one for each frame; Partition and
	// Epoch where there are partitions. Keys need not be set where the pipeline computes them.
	NewBatch() *arena.Batch
	// Ready blocks while the source's window is full. It returns ctx's error when ctx ends, and [ErrStopped] when the runtime takes no more.
	Ready(ctx context.Context) error
	// Accept takes b over, whatever it returns; the caller must not touch it again. It does not block. It fails with [ErrStopped] when the
	// runtime takes no more, with [ErrEpoch] if b's epoch is not that of its partition, and with an error naming the key
	// function misbehaves; then no message of b has been accepted.
	Accept(b *arena.Batch) error
	// Assign starts an assignment of a partition and returns its epoch, from 1. Sources without partitions use partition 0, epoch 0, and
	// never call it.
	Assign(partition uint32) (epoch uint32)
	// Revoke ends the assignment: messages of it that are under way finish, but nothing of it is settled from now on.
	Revoke(partition uint32)
	// Report counts and logs bad input that cost nobody else anything.
	Report(err error)
	// Env is what the source may use of the world.
	Env() Env
}

// Env is what a source, or a sink, may use of the world.
type Env struct {
	Name     string // of the source or sink in the pipeline
	Stream   string
	DataDir  string // the runtime's data directory; may not exist yet
	Logger   *slog.Logger
	Clock    clock.Clock
	MaxBytes int  // the largest message, in bytes
	MaxBatch int  // the most messages in a batch
	Takeover bool // sink: it takes the place of another while the pipeline runs, and what that has written is this pipeline's
}

// sentinel is an error without parameters.
type sentinel string

// Error is the sentence itself.
func (e sentinel) Error() string { return string(e) }

const (
	// ErrStopped says that the runtime takes no more messages.
	ErrStopped = sentinel("the runtime takes no more messages: it is draining or has stopped")
	// ErrEpoch says that a batch belongs to an assignment that has ended.
	ErrEpoch = sentinel("the batch's partition is no longer assigned under this epoch: drop it, its new owner will read it again")
)
