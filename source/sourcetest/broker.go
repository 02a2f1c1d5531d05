package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/source"
)

// Broker is a message broker in memory, and a Fixture: what it keeps outlives its sources. It shows how a source with partitions,
// assignments and negative acknowledgement keeps the contract.
//
// It has partitions, each a log; Put deals messages out in turns. Cumulative, it keeps one offset for each partition, as Kafka does: the
// cursor of a settlement commits, and what is returned comes again after the next assignment or restart. Otherwise it keeps each message
// until that one is settled, as JetStream or RabbitMQ do, and sends again what is returned. It has no network, no durability beyond the
// process, no acknowledgement timeout, and serves one source at a time.
type Broker struct {
	Cumulative bool

	fault fault // what a broken variant does wrong; for the kit's own tests

	mu     sync.Mutex
	parts  []*logPart
	put    int
	client *brokerSource // the last one opened
}

// logPart is one partition.
type logPart struct {
	log  [][]byte
	done []bool // settled, for each message

	epoch uint32
	todo  []int          // to be given, in order
	tags  map[uint64]int // receipt -> message, of this assignment
	tag   uint64         // the last receipt given
}

var (
	_ Fixture    = (*Broker)(nil)
	_ Rebalancer = (*Broker)(nil)
)

// NewBroker makes a broker with n partitions, at least one.
func NewBroker(n int) *Broker {
	b := &Broker{}
	for range n {
		b.parts = append(b.parts, &logPart{})
	}
	return b
}

// Put appends messages, to one partition after the other.
func (b *Broker) Put(_ testing.TB, messages [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range messages {
		p := b.parts[b.put%len(b.parts)]
		if b.fault != deafToNew || b.client == nil {
			p.todo = append(p.todo, len(p.log))
		}
		p.log = append(p.log, m)
		p.done = append(p.done, false)
		b.put++
	}
	b.wake()
}

// Open makes a source.
func (b *Broker) Open(testing.TB) source.Source {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.client = &brokerSource{b: b, work: make(chan struct{}, 1)}
	return b.client
}

// Rebalance revokes all partitions of the open source and assigns them again.
func (b *Broker) Rebalance(testing.TB) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.parts {
		b.client.in.Revoke(uint32(i))
		b.assign(i)
	}
	b.wake()
}

// assign gives partition i to the client anew: all that is not settled is to be given. The caller holds b.mu.
func (b *Broker) assign(i int) {
	p := b.parts[i]
	p.epoch = b.client.in.Assign(uint32(i))
	p.todo, p.tags, p.tag = nil, map[uint64]int{}, 0
	for n, done := range p.done {
		if !done || b.fault == redeliverSettled {
			p.todo = append(p.todo, n)
		}
	}
}

// wake tells the client that there may be work. The caller holds b.mu.
func (b *Broker) wake() {
	if b.client != nil {
		select {
		case b.client.work <- struct{}{}:
		default:
		}
	}
}

// brokerSource is one client of a Broker.
type brokerSource struct {
	b    *Broker
	in   source.Intake // set by Run, guarded by b.mu
	work chan struct{}
	turn int
}

var (
	_ source.Source       = (*brokerSource)(nil)
	_ source.Checkpointer = (*brokerSource)(nil)
)

// Run gives what is to be given until ctx ends.
func (s *brokerSource) Run(ctx context.Context, in source.Intake) error {
	s.b.mu.Lock()
	s.in = in
	for i := range s.b.parts {
		s.b.assign(i)
	}
	s.b.mu.Unlock()
	if s.b.fault == leakGoroutine {
		go func() { <-make(chan struct{}) }()
	}
	for {
		err := s.give(ctx, in)
		switch {
		case errors.Is(err, source.ErrEpoch): // a rebalance came between: the partition has been assigned again
		case errors.Is(err, source.ErrStopped) && s.b.fault == ignoreStopped:
			<-ctx.Done()
		case errors.Is(err, source.ErrStopped) || ctx.Err() != nil && s.b.fault != ignoreContext:
			return nil
		case err != nil:
			return err
		}
	}
}

// give waits for work and gives one batch.
func (s *brokerSource) give(ctx context.Context, in source.Intake) error {
	for !s.b.hasWork() {
		select {
		case <-s.work:
		case <-ctx.Done():
			if s.b.fault == ignoreContext {
				<-make(chan struct{})
			}
			return ctx.Err()
		}
	}
	if s.b.fault != ignoreReady {
		if err := in.Ready(ctx); err != nil {
			if s.b.fault == ignoreContext {
				<-make(chan struct{})
			}
			return err
		}
	}
	slab, err := s.lease(ctx, in)
	if err != nil {
		return err
	}
	b := in.NewBatch()
	b.Slab = slab
	if err := s.fill(b, in.Env().MaxBatch); err != nil || b.Len() == 0 {
		b.Free()
		return err
	}
	return s.accept(in, b)
}

// lease leases a slab, and waits while there is no room.
func (s *brokerSource) lease(ctx context.Context, in source.Intake) (*arena.Slab, error) {
	for {
		slab, err := in.Account().Lease()
		if err == nil || !errors.Is(err, arena.ErrBudget) || s.b.fault == giveUpOnBudget {
			return slab, err
		}
		if err := in.Account().Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// fill puts messages of one partition into b, as many as there are and fit its slab; one that is larger gets a lease of its own.
func (s *brokerSource) fill(b *arena.Batch, most int) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	for range s.b.parts {
		s.turn++
		i := s.turn % len(s.b.parts)
		p := s.b.parts[i]
		if len(p.todo) == 0 {
			continue
		}
		b.Partition, b.Epoch = uint32(i), p.epoch
		if n := len(p.log[p.todo[0]]); n > len(b.Slab.Bytes()) {
			large, err := s.in.Account().LeaseLarge(n)
			if err != nil {
				return err
			}
			b.ReleaseSlab()
			b.Slab = large
			if err := large.Grow(n); err != nil {
				return fmt.Errorf("broker: message of %d bytes: %w", n, err)
			}
		}
		at := 0
		for len(p.todo) > 0 && b.Len() < most && at+len(p.log[p.todo[0]]) <= len(b.Slab.Bytes()) {
			n := p.todo[0]
			p.todo = p.todo[1:]
			copy(b.Slab.Bytes()[at:], p.log[n])
			b.Frames = append(b.Frames, arena.Frame{Off: uint32(at), Len: uint32(len(p.log[n]))})
			b.Receipts = append(b.Receipts, p.receipt(n, s.b.Cumulative))
			at += len(p.log[n])
		}
		return nil
	}
	return nil
}

// receipt is what message n is given as: one more than its place, or a tag that is used once.
func (p *logPart) receipt(n int, cumulative bool) uint64 {
	if p.tag++; cumulative {
		p.tag = uint64(n) + 1
	}
	p.tags[p.tag] = n
	return p.tag
}

func (b *Broker) hasWork() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.parts {
		if len(p.todo) > 0 {
			return true
		}
	}
	return false
}

// Settle commits, or has messages sent again.
func (s *brokerSource) Settle(st source.Settlement) {
	b := s.b
	if b.fault == blockSettle {
		<-make(chan struct{})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.parts[st.Partition]
	if p.epoch != st.Epoch && b.fault != settleRevoked || s != b.client {
		return
	}
	switch {
	case b.Cumulative:
		cursor := st.Cursor
		if b.fault == commitOverHole && st.Outcome == source.Settled {
			cursor = max(cursor, st.Receipts[len(st.Receipts)-1])
		}
		if b.fault == forgetLate && len(st.Receipts) > 0 && cursor > st.Receipts[len(st.Receipts)-1] {
			return
		}
		for n := range min(cursor, uint64(len(p.done))) {
			p.done[n] = true
		}
	case st.Outcome == source.Settled:
		for _, r := range st.Receipts {
			if n, ok := p.tags[r]; ok && b.fault != forgetSettled {
				p.done[n] = true
			}
		}
	case b.fault != forgetReturned:
		for _, r := range st.Receipts {
			if n, ok := p.tags[r]; ok && !p.done[n] {
				p.todo = append(p.todo, n)
			}
		}
		b.wake()
	}
}

// Checkpoint does nothing, as Close.
func (s *brokerSource) Checkpoint(context.Context) error { return nil }

// Close does nothing: all that is settled has been noted.
func (s *brokerSource) Close(context.Context) error { return nil }
