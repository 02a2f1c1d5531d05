package sinktest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/sink"
)

const (
	slabSize = 2 << 20
	budget   = 256 << 20
	patience = 10 * time.Second // for sinks that finish in goroutines of their own
	poison   = 0xDB
)

// rig plays the runtime for one sink.
type rig struct {
	testing.TB
	fx      Fixture
	sink    sink.Sink
	arena   *arena.Arena
	account *arena.Account
	ctx     context.Context
	keep    bool                  // do not poison
	onDone  func(m *lentMsg)      // called for each message that is done without error, before it is poisoned
	changed chan struct{}         // something is done
	lent    []*lent               // all batches, in the order in which they were lent
	byBatch map[*sink.Batch]*lent // the same
	next    int                   // number of the last message of failing
	mu      sync.Mutex            // guards the messages' fate and onDone
}

// lent is one batch on loan.
type lent struct {
	batch *sink.Batch
	mem   *arena.Batch
	at    []int // index in mem of each message
	msgs  []*lentMsg
}

// lentMsg is one message, with a copy of what it was.
type lentMsg struct {
	Message
	block   []byte // headers as lent
	done    int
	err     error
	retried bool
}

func newRig(t testing.TB, fx Fixture) *rig {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: budget, SlabSize: slabSize})
	if err != nil {
		t.Fatalf("kit: %v", err)
	}
	acc, err := a.Account(arena.Sources, "sinktest", 0, budget)
	if err != nil {
		t.Fatalf("kit: %v", err)
	}
	r := &rig{
		TB: t, fx: fx, arena: a, account: acc, ctx: context.Background(), next: 1000,
		changed: make(chan struct{}, 1), byBatch: map[*sink.Batch]*lent{},
	}
	r.open()
	return r
}

// open makes and opens a sink on the destination.
func (r *rig) open() {
	r.Helper()
	s, err := r.fx.New()
	if err != nil {
		r.Fatalf("New: %v", err)
	}
	r.sink = s
	if err := r.guard("Open", func() error { return s.Open(r.ctx, r.fx.Env) }); err != nil {
		r.Fatalf("Open: %v", err)
	}
}

// finish closes the sink if the exam has not, looks at what must hold after every exam, and gives the memory back.
func (r *rig) finish() {
	r.Helper()
	if r.sink != nil {
		if err := r.close(); err != nil {
			r.Errorf("Close: %v", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lent {
		for i, m := range l.msgs {
			if m.done != 1 {
				r.Errorf("message %d of its batch (%s) was done %d times, want once", i, show(m.Payload), m.done)
			}
		}
		l.mem.Free()
	}
	if err := errors.Join(r.account.Close(), r.arena.Close()); err != nil {
		r.Errorf("kit: %v", err)
	}
}

// guard makes a panic of the sink a failure of the exam.
func (r *rig) guard(what string, f func() error) (err error) {
	r.Helper()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			r.Errorf("%s panicked: %v", what, v)
		}
	}()
	return f()
}

// text makes a message whose payload begins with a number and has size bytes, without line ends.
func text(number, size int) Message {
	p := fmt.Appendf(nil, "%06d", number)
	for len(p) < size {
		p = append(p, byte('a'+(number+len(p))%26))
	}
	return Message{Payload: p}
}

// texts makes n messages, numbered from from.
func texts(from, n, size int) []Message {
	msgs := make([]Message, n)
	for i := range msgs {
		msgs[i] = text(from+i, size)
	}
	return msgs
}

// lend puts msgs in memory of the arena and makes a batch of those that pick names; of all if it is nil.
func (r *rig) lend(msgs []Message, pick []uint32) *lent {
	r.Helper()
	slab, err := r.account.Lease()
	if err != nil {
		r.Fatalf("kit: %v", err)
	}
	b := r.arena.NewBatch()
	b.Slab = slab
	mem := slab.Bytes()
	off := 0
	put := func(p []byte) (uint32, uint32) {
		at := off
		off += copy(mem[at:], p)
		if off-at < len(p) {
			r.Fatalf("kit: a batch of more than %d bytes", len(mem))
		}
		return uint32(at), uint32(len(p))
	}
	l := &lent{mem: b}
	all := make([]*lentMsg, len(msgs))
	for i, m := range msgs {
		var f arena.Frame
		lm := &lentMsg{Message: m}
		for _, h := range m.Headers {
			lm.block = arena.AppendHeader(lm.block, h.Name, h.Value)
		}
		f.HdrOff, f.HdrLen = put(lm.block)
		f.KeyOff, f.KeyLen = put(m.Key)
		f.Off, f.Len = put(m.Payload)
		b.Frames, b.Receipts = append(b.Frames, f), append(b.Receipts, uint64(i))
		all[i] = lm
	}
	if pick == nil {
		for i := range msgs {
			l.at = append(l.at, i)
		}
	}
	for _, i := range pick {
		l.at = append(l.at, int(i))
	}
	for _, i := range l.at {
		l.msgs = append(l.msgs, all[i])
	}
	l.batch = sink.NewBatch(b, pick, "exam", r.settled)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lent = append(r.lent, l)
	r.byBatch[l.batch] = l
	return l
}

// settled takes a message back: it looks whether its bytes are as they were, and spoils them.
func (r *rig) settled(b *sink.Batch, i int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.byBatch[b]
	m := l.msgs[i]
	m.done++
	m.err = err
	at := l.at[i]
	payload, key, headers := l.mem.Payload(at), l.mem.Key(at), l.mem.Headers(at)
	if !bytes.Equal(payload, m.Payload) || !bytes.Equal(key, m.Key) || !bytes.Equal(headers, m.block) {
		r.Errorf("the sink changed bytes that it was lent: payload is %s, was %s", show(payload), show(m.Payload))
	}
	if err == nil && r.onDone != nil {
		r.onDone(m)
	}
	if !r.keep {
		for _, p := range [][]byte{payload, key, headers} {
			for j := range p {
				p[j] = poison
			}
		}
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// write calls Write, and fails what is left when it fails, as the runtime does.
func (r *rig) write(l *lent) error {
	r.Helper()
	err := r.guard("Write", func() error { return r.sink.Write(r.ctx, l.batch) })
	if err != nil {
		l.batch.Fail(err)
	}
	return err
}

// flush calls Flush; after nil it waits until everything is done, after an error it fails what is left.
func (r *rig) flush() error {
	r.Helper()
	return r.ended("Flush", r.guard("Flush", func() error { return r.sink.Flush(r.ctx) }))
}

func (r *rig) close() error {
	r.Helper()
	s := r.sink
	r.sink = nil
	return r.ended("Close", r.guard("Close", func() error { return s.Close(r.ctx) }))
}

func (r *rig) ended(what string, err error) error {
	r.Helper()
	if err != nil {
		for _, l := range r.lent {
			l.batch.Fail(err)
		}
		return err
	}
	wait := cmp.Or(r.fx.patience, patience)
	late := time.NewTimer(wait)
	defer late.Stop()
	for {
		left := 0
		for _, l := range r.lent {
			left += l.batch.Left()
		}
		if left == 0 {
			return nil
		}
		select {
		case <-r.changed:
		case <-late.C:
			r.Fatalf("%s returned nil, but %d messages are not done after %v", what, left, wait)
		}
	}
}

// must fails the exam if err is not nil.
func (r *rig) must(what string, err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("%s: %v", what, err)
	}
}

// read is what has arrived.
func (r *rig) read() []Message {
	r.Helper()
	got, err := r.fx.Read()
	if err != nil {
		r.Fatalf("fixture: Read: %v", err)
	}
	return got
}

// arrived compares what has arrived with want, one by one.
func (r *rig) arrived(want []Message) {
	r.Helper()
	got := r.read()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i].Payload, want[i].Payload) {
			r.Fatalf("message %d arrived as %s, want %s (lost, repeated, out of order, or its bytes were used after Done)", i, show(got[i].Payload),
				show(want[i].Payload))
		}
		if r.fx.Promises.Headers {
			r.sameMeta(i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		r.Fatalf("%d messages arrived, want %d", len(got), len(want))
	}
}

func (r *rig) sameMeta(i int, got, want Message) {
	r.Helper()
	if !bytes.Equal(got.Key, want.Key) {
		r.Errorf("message %d arrived with key %s, want %s", i, show(got.Key), show(want.Key))
	}
	if len(got.Headers) != len(want.Headers) {
		r.Errorf("message %d arrived with %d headers, want %d", i, len(got.Headers), len(want.Headers))
		return
	}
	for j, h := range want.Headers {
		if g := got.Headers[j]; g.Name != h.Name || !bytes.Equal(g.Value, h.Value) {
			r.Errorf("message %d arrived with header %q: %s, want %q: %s", i, g.Name, show(g.Value), h.Name, show(h.Value))
		}
	}
}

// split parts the messages of all batches by how they ended; those tried again count by the second try only.
func (r *rig) split() (good, failed []Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lent {
		for _, m := range l.msgs {
			switch {
			case m.done == 0 || m.retried:
			case m.err == nil:
				good = append(good, m.Message)
			default:
				failed = append(failed, m.Message)
			}
		}
	}
	return good, failed
}

// show is the beginning of p, for messages.
func show(p []byte) string {
	const most = 24
	if len(p) <= most {
		return fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%q... (%d bytes)", p[:most], len(p))
}
