package sourcetest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/source"
)

// IntakeConfig is what an Intake gives a source to work with. The zero value is usable.
type IntakeConfig struct {
	Name     string      // in Env; empty means "exam"
	DataDir  string      // in Env; empty means a temporary directory
	Window   int         // unsettled messages from which on Ready blocks; 0 means no bound
	Budget   int64       // of the arena, in bytes; 0 means 16 MiB. The source has 70 % of it
	SlabSize int         // in bytes; 0 means 16 KiB
	MaxBytes int         // the largest message; 0 means 1 MiB
	MaxBatch int         // the most messages in a batch; 0 means 64
	Clock    clock.Clock // nil means clock.System
}

// Message is what an Intake has accepted. Payload is a copy.
type Message struct {
	Payload   []byte
	Receipt   uint64
	Partition uint32
	Epoch     uint32
	Batch     int // counts batches from 0
	Index     int // counts messages from 0
}

// Intake is the runtime's side of a source, for tests: it records what it is given, keeps the memory until messages are settled, and notes
// each breach of the contract. All methods may be called concurrently.
type Intake struct {
	env     source.Env
	window  int
	arena   *arena.Arena
	account *arena.Account

	settling sync.Mutex // one call of Settle at a time

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something has changed
	entries  []*entry
	batches  int
	granted  int // calls of Ready that were answered with nil and not used by an Accept
	blocked  int // calls of Ready that wait
	pending  int
	stopped  bool
	ended    bool // Run has returned
	epochs   map[uint32]uint32
	assigned map[uint32]bool
	lines    map[line]*assignment
	breaches []string
	reports  []error
}

type line struct{ partition, epoch uint32 }

// assignment is what was accepted under one epoch of a partition, in order.
type assignment struct {
	entries  []*entry
	receipts map[uint64]bool
	settled  int // the contiguous settled prefix
}

type entry struct {
	Message
	batch   *held
	done    bool // settled or returned
	settled bool
}

// held is a batch whose memory is kept until all its messages are done.
type held struct {
	b    *arena.Batch
	left int
}

var _ source.Intake = (*Intake)(nil)

// NewIntake makes an Intake with an arena of its own. Call Close when Run has returned.
func NewIntake(t testing.TB, cfg IntakeConfig) *Intake {
	t.Helper()
	def := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	def(&cfg.SlabSize, 16<<10)
	def(&cfg.MaxBytes, 1<<20)
	def(&cfg.MaxBatch, 64)
	def(&cfg.Window, 1<<30)
	if cfg.Budget == 0 {
		cfg.Budget = 16 << 20
	}
	if cfg.Name == "" {
		cfg.Name = "exam"
	}
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	a, err := arena.New(arena.Config{Budget: cfg.Budget, SlabSize: cfg.SlabSize})
	if err != nil {
		t.Fatal(err)
	}
	account, err := a.Account(arena.Sources, cfg.Name, 0, cfg.Budget)
	if err != nil {
		t.Fatal(err)
	}
	return &Intake{
		env: source.Env{
			Name: cfg.Name, Stream: cfg.Name, DataDir: cfg.DataDir, Logger: slog.New(slog.DiscardHandler), Clock: cfg.Clock,
			MaxBytes: cfg.MaxBytes, MaxBatch: cfg.MaxBatch,
		},
		window: cfg.Window, arena: a, account: account, changed: make(chan struct{}),
		epochs: map[uint32]uint32{}, assigned: map[uint32]bool{}, lines: map[line]*assignment{},
	}
}

// Account is the memory of the source.
func (in *Intake) Account() *arena.Account { return in.account }

// NewBatch is an empty batch.
func (in *Intake) NewBatch() *arena.Batch { return in.arena.NewBatch() }

// Env is what the configuration says.
func (in *Intake) Env() source.Env { return in.env }

// Ready blocks while the window is full.
func (in *Intake) Ready(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case in.stopped:
			return source.ErrStopped
		case ctx.Err() != nil:
			return ctx.Err()
		case in.pending < in.window:
			in.granted++
			return nil
		}
		changed := in.changed
		in.blocked++
		in.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		in.mu.Lock()
		in.blocked--
	}
}

// Accept records b.
func (in *Intake) Accept(b *arena.Batch) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		in.breach("Accept after Run has returned")
	}
	if in.granted--; in.granted < 0 {
		in.granted = 0
		in.breach("Accept without a Ready before it: call Ready for each batch")
	}
	switch {
	case in.stopped:
		b.Free()
		return source.ErrStopped
	case b.Epoch != in.epochs[b.Partition] || b.Epoch != 0 && !in.assigned[b.Partition]:
		if b.Epoch > in.epochs[b.Partition] {
			in.breach("partition %d: epoch %d was never assigned", b.Partition, b.Epoch)
		}
		b.Free()
		return source.ErrEpoch
	case !in.sound(b):
		b.Free()
		return fmt.Errorf("sourcetest: not a sound batch: %s", in.breaches[len(in.breaches)-1])
	}
	h := &held{b: b, left: b.Len()}
	l := line{b.Partition, b.Epoch}
	as := in.lines[l]
	if as == nil {
		as = &assignment{receipts: map[uint64]bool{}}
		in.lines[l] = as
	}
	for i, receipt := range b.Receipts {
		if as.receipts[receipt] {
			in.breach("partition %d, epoch %d: receipt %d came twice", b.Partition, b.Epoch, receipt)
		}
		as.receipts[receipt] = true
		e := &entry{batch: h, Message: Message{
			Payload: bytes.Clone(b.Payload(i)), Receipt: receipt, Partition: b.Partition, Epoch: b.Epoch, Batch: in.batches, Index: len(in.entries),
		}}
		in.entries = append(in.entries, e)
		as.entries = append(as.entries, e)
	}
	in.batches++
	in.pending += b.Len()
	in.broadcast()
	return nil
}

// sound reports whether b is what a batch must be. The caller holds in.mu.
func (in *Intake) sound(b *arena.Batch) bool {
	n := len(in.breaches)
	switch {
	case b.Len() == 0:
		in.breach("an empty batch")
	case b.Slab == nil:
		in.breach("a batch without slab")
	case len(b.Receipts) != b.Len():
		in.breach("a batch of %d frames with %d receipts", b.Len(), len(b.Receipts))
	case b.Len() > in.env.MaxBatch:
		in.breach("a batch of %d messages, Env.MaxBatch is %d", b.Len(), in.env.MaxBatch)
	default:
		size := uint64(len(b.Slab.Bytes()))
		for i, f := range b.Frames {
			if uint64(f.Off)+uint64(f.Len) > size || uint64(f.KeyOff)+uint64(f.KeyLen) > size || uint64(f.HdrOff)+uint64(f.HdrLen) > size {
				in.breach("frame %d lies outside of its slab of %d bytes: %+v", i, size, f)
			}
			if int(f.Len) > in.env.MaxBytes {
				in.breach("a message of %d bytes, Env.MaxBytes is %d", f.Len, in.env.MaxBytes)
			}
		}
	}
	return len(in.breaches) == n
}

// Assign starts an assignment.
func (in *Intake) Assign(partition uint32) (epoch uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.assigned[partition] {
		in.breach("partition %d was assigned again without a Revoke", partition)
	}
	in.assigned[partition] = true
	in.epochs[partition]++
	return in.epochs[partition]
}

// Revoke ends an assignment. Its messages are done: they will never be settled.
func (in *Intake) Revoke(partition uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.assigned[partition] {
		in.breach("partition %d was revoked, but it is not assigned", partition)
	}
	in.assigned[partition] = false
	if as := in.lines[line{partition, in.epochs[partition]}]; as != nil {
		for _, e := range as.entries {
			in.finish(e)
		}
	}
	in.broadcast()
}

// Report records err.
func (in *Intake) Report(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reports = append(in.reports, err)
	in.broadcast()
}

// Stop takes no more messages: Ready and Accept answer ErrStopped from now on.
func (in *Intake) Stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stopped = true
	in.broadcast()
}

// Ended says that Run has returned: a later Accept is a breach.
func (in *Intake) Ended() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended, in.stopped = true, true
	in.broadcast()
}

// breach notes a breach of the contract. The caller holds in.mu.
func (in *Intake) breach(format string, args ...any) {
	in.breaches = append(in.breaches, fmt.Sprintf(format, args...))
}

// broadcast wakes all who wait for a change. The caller holds in.mu.
func (in *Intake) broadcast() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// finish lets go of e's memory. The caller holds in.mu.
func (in *Intake) finish(e *entry) {
	if e.done {
		return
	}
	e.done = true
	in.pending--
	if e.batch.left--; e.batch.left == 0 {
		e.batch.b.Free()
	}
}
