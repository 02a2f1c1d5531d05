package sim

import (
	"fmt"
	"sort"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
)

// source is the arriving side of a loop.
type source struct {
	account   *arena.Account
	slab      *arena.Slab // that reads go to; several share one
	off       uint32
	left      int // messages to come
	unsettled int
	parts     []*part
	stuck     map[loop.UnitID]bool // letters that were refused before
}

// part is a partition of a source.
type part struct {
	id        uint32
	epoch     uint32
	revoked   bool
	next      uint64     // receipt
	sent      []*message // of this epoch, in order
	checked   int
	cursor    uint64
	hasCursor bool
}

func (p *part) byReceipt(r uint64) *message {
	i := sort.Search(len(p.sent), func(i int) bool { return p.sent[i].receipt >= r })
	if i < len(p.sent) && p.sent[i].receipt == r {
		return p.sent[i]
	}
	return nil
}

func (l *simLoop) openSource() {
	l.account = l.s.account(arena.Sources, l.set.stream, 1)
	l.left = l.set.messages
	l.stuck = map[loop.UnitID]bool{}
	for i := range l.set.partitions {
		l.parts = append(l.parts, &part{id: uint32(i), next: 1})
	}
}

// mayArrive says whether the source may read: window and memory have room.
func (l *simLoop) mayArrive() bool {
	if l.left == 0 {
		return false
	}
	shut := make(chan struct{})
	close(shut)
	if !l.driver.Gate().Wait(shut, nil) {
		return false
	}
	if l.pressure {
		l.s.fail(WindowKept, "%q may read though there is no memory for what stays", l.set.stream)
	}
	if l.unsettled >= l.window.Messages {
		l.s.fail(WindowKept, "%q may read with %d unsettled messages of at most %d", l.set.stream, l.unsettled, l.window.Messages)
	}
	return l.slab != nil && l.off+maxRootPayload+64 < uint32(len(l.slab.Bytes())) || l.account.Room()
}

// arrive reads a batch.
func (l *simLoop) arrive() {
	s, r := l.s, l.s.rnd
	if l.slab == nil || l.off+maxRootPayload+64 >= uint32(len(l.slab.Bytes())) {
		l.letGo()
		slab, err := l.account.Lease()
		if err != nil {
			return
		}
		l.slab, l.off = slab, 0
	}
	p := l.parts[r.IntN(len(l.parts))]
	if p.revoked {
		p = l.reassign(p)
	}
	b := s.arena.NewBatch()
	l.slab.Retain()
	b.Slab, b.Partition, b.Epoch = l.slab, p.id, p.epoch
	for n := 1 + r.IntN(l.set.batch); n > 0 && l.left > 0 && l.off+maxRootPayload+64 < uint32(len(l.slab.Bytes())); n-- {
		l.read(b, p)
	}
	s.tracef("%s: %d messages arrive, partition %d epoch %d", l.set.stream, b.Len(), p.id, p.epoch)
	l.driver.Arrive(b)
}

// read makes one message.
func (l *simLoop) read(b *arena.Batch, p *part) {
	s, r := l.s, l.s.rnd
	m := s.newMessage(l, l.set.stream)
	m.root, m.part, m.receipt, m.late = true, p, p.next, l.draining
	p.next += 1 + r.Uint64N(10)
	m.size = payloadHead + 4 + r.IntN(l.set.size)
	if l.set.keys > 0 && r.IntN(10) > 0 {
		m.key = fmt.Sprintf("k%03d", r.IntN(l.set.keys))
	}
	mem := l.slab.Bytes()
	f := arena.Frame{Off: l.off, Len: uint32(m.size)}
	m.render(mem[f.Off : f.Off+f.Len])
	l.off += f.Len
	if m.key != "" {
		f.KeyOff, f.KeyLen = f.Off+payloadHead, uint32(len(m.key))
		if r.IntN(3) == 0 { // the key apart from the payload
			f.KeyOff = l.off
			l.off += uint32(copy(mem[l.off:], m.key))
		}
	}
	if r.IntN(4) == 0 {
		m.hdr = true
		block := arena.AppendHeader(nil, "id", fmt.Append(nil, m.id))
		f.HdrOff, f.HdrLen = l.off, uint32(len(block))
		l.off += uint32(copy(mem[l.off:], block))
	}
	b.Frames = append(b.Frames, f)
	b.Receipts = append(b.Receipts, m.receipt)
	if l.set.keys > 0 {
		b.Hashes = append(b.Hashes, hashOf([]byte(m.key)))
	}
	l.left--
	l.unsettled++
	p.sent = append(p.sent, m)
	if m.arrived = true; !m.late {
		s.owe(m)
	}
}

func (s *Sim) newMessage(l *simLoop, stream string) *message {
	m := &message{id: uint64(len(s.messages)), loop: l, stream: stream}
	s.messages = append(s.messages, m)
	return m
}

func (l *simLoop) letGo() {
	if l.slab != nil {
		l.slab.Release()
		l.slab = nil
	}
}

// revoke ends the assignment of a partition: what is unsettled is void.
func (l *simLoop) revoke(p *part) {
	p.revoked = true
	l.s.tracef("%s: partition %d revoked", l.set.stream, p.id)
	for _, m := range p.sent {
		if !m.settled && !m.returned {
			l.unsettled--
			m.void = true
		}
	}
	l.driver.Post(loop.Event{Kind: loop.Revoke, Detail: &loop.Detail{Partition: p.id}})
}

// reassign begins a new assignment of a partition, from where its cursor is.
func (l *simLoop) reassign(p *part) *part {
	q := &part{id: p.id, epoch: p.epoch + 1, next: p.cursor + 1}
	l.parts[p.id] = q
	l.s.tracef("%s: partition %d assigned again", l.set.stream, p.id)
	l.driver.Post(loop.Event{Kind: loop.Assign, Detail: &loop.Detail{Partition: q.id, Epoch: q.epoch}})
	return q
}
