package loop

import (
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/mutate"
)

// partition keeps, for one partition of the source, what has arrived and is not all settled, in order; and the cursor, the end of the
// contiguous settled prefix.
//
//	first ─> [unit, partly settled] ─> [settled up to r] ─> [unit] ─> [unit] <─ last
//
// Neighbours that are settled become one node, so the list is as long as there are holes, not as the way behind the first hole.
type partition struct {
	epoch     uint32
	revoked   bool
	cursor    uint64
	hasCursor bool
	first     *node
	last      *node
}

// node is a place in a partition: a unit that is not all settled, or a run that is.
type node struct {
	next, prev *node
	unit       *unit  // nil once settled
	receipt    uint64 // the last one of a settled run
	part       *partition
	epoch      uint32
	done       []uint64 // a bit for each settled message; empty while there is none
	prefix     int      // messages settled from the start
}

func (c *Core) partition(id uint32) *partition {
	p := c.parts[id]
	if p == nil {
		p = &partition{}
		c.parts[id] = p
	}
	return p
}

// assign begins a new assignment. Nothing of an older one is settled from now on.
func (c *Core) assign(id, epoch uint32) {
	c.parts[id] = &partition{epoch: epoch}
}

// revoke ends an assignment. What is under way finishes, and settles nothing.
func (c *Core) revoke(id uint32) { c.partition(id).revoked = true }

func (c *Core) place(p *partition, u *unit) {
	if u.batch.Epoch != p.epoch { // of an assignment that had ended when it arrived: it has no place in this one
		p = &partition{epoch: u.batch.Epoch, revoked: true}
	}
	n := c.newNode()
	*n = node{unit: u, part: p, epoch: u.batch.Epoch, prev: p.last, done: n.done[:0]}
	if p.last == nil {
		p.first = n
	} else {
		p.last.next = n
	}
	p.last = n
	u.node, u.part = n, p
}

func (c *Core) newNode() *node {
	if n := c.nodes; n != nil {
		c.nodes = n.next
		return n
	}
	return &node{}
}

// lives says whether a message of b, which has its place in p, may still be settled.
func (c *Core) lives(p *partition, b *arena.Batch) bool {
	return !c.gaveUp && (!p.revoked || mutate.On(mutate.RevokedSettles)) && c.parts[b.Partition] == p && b.Epoch == p.epoch
}

// settleWhole settles every message of a root unit that is not open.
func (c *Core) settleWhole(u *unit) {
	n := u.node
	b := u.batch
	if u.opened == 0 {
		c.settled(u.n, u.bytes)
		c.closeNode(u)
		c.tell(u, b.Receipts, u.bytes)
		return
	}
	from := len(c.receipts)
	bytes := int64(0)
	n.done = zeroed(n.done, (u.n+63)/64)
	for i := range u.n {
		if !u.isOpen(i) || mutate.On(mutate.DoubleSettle) {
			n.done[i/64] |= 1 << (i % 64)
			bytes += frameBytes(&b.Frames[i])
			c.receipts = append(c.receipts, b.Receipts[i])
		}
	}
	c.settled(len(c.receipts)-from, bytes)
	c.advance(n.part)
	if len(c.receipts) > from {
		c.tell(u, c.receipts[from:len(c.receipts):len(c.receipts)], bytes)
	}
}

// settleOne settles message i of a root unit whose whole is done.
func (c *Core) settleOne(u *unit, i uint32) {
	bytes := frameBytes(&u.batch.Frames[i])
	u.node.done[i/64] |= 1 << (i % 64)
	c.settled(1, bytes)
	if u.opened == 0 {
		c.closeNode(u)
	} else {
		c.advance(u.node.part)
	}
	c.tell(u, u.batch.Receipts[i:i+1:i+1], bytes)
}

func (c *Core) settled(messages int, bytes int64) {
	if !c.gaveUp {
		c.counts.Settled += uint64(messages)
	}
	c.flow.settled(messages, bytes)
}

// tell reports receipts and cursor to the source. For an assignment that has ended it says nothing to the source, but it does say that
// memory and window are free.
func (c *Core) tell(u *unit, receipts []uint64, bytes int64) {
	p := u.part
	s := Settlement{Partition: u.batch.Partition, Epoch: u.batch.Epoch, Messages: len(receipts), Bytes: bytes}
	if c.lives(p, u.batch) {
		s.Receipts, s.Cursor, s.HasCursor = receipts, p.cursor, p.hasCursor
	} else {
		s.Void = true
	}
	c.effect(Settle).Settlement = s
}

// closeNode makes u's place a settled run, and joins it with settled neighbours.
func (c *Core) closeNode(u *unit) {
	n, p := u.node, u.node.part
	n.unit, n.done = nil, n.done[:0]
	n.receipt = u.batch.Receipts[u.n-1]
	if mutate.On(mutate.CursorBackwards) {
		n.receipt = u.batch.Receipts[0]
	}
	if prev := n.prev; prev != nil && prev.unit == nil && prev.epoch == n.epoch {
		c.unlink(prev)
	}
	if next := n.next; next != nil && next.unit == nil && next.epoch == n.epoch {
		c.unlink(n)
	}
	c.advance(p)
}

// unlink takes n out of its partition, for reuse.
func (c *Core) unlink(n *node) {
	p := n.part
	if n.prev == nil {
		p.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		p.last = n.prev
	} else {
		n.next.prev = n.prev
	}
	*n = node{next: c.nodes, done: n.done}
	c.nodes = n
}

// advance moves the cursor over what is settled without a hole.
func (c *Core) advance(p *partition) {
	for p.first != nil && p.first.unit == nil {
		p.cursor, p.hasCursor = p.first.receipt, true
		c.unlink(p.first)
	}
	n := p.first
	if n == nil || len(n.done) == 0 {
		return
	}
	for n.prefix < n.unit.n && (mutate.On(mutate.CommitOverHole) || n.done[n.prefix/64]&(1<<(n.prefix%64)) != 0) {
		n.prefix++
	}
	if n.prefix > 0 {
		p.cursor, p.hasCursor = n.unit.batch.Receipts[n.prefix-1], true
	}
}

// giveBack returns to the source what is not settled of one partition. What is left of an assignment that has ended is not the source's.
func (c *Core) giveBack(id uint32, p *partition) {
	if p.revoked {
		return
	}
	for n := p.first; n != nil; n = n.next {
		if n.unit == nil {
			continue
		}
		from := len(c.receipts)
		for i, r := range n.unit.batch.Receipts {
			if len(n.done) == 0 || n.done[i/64]&(1<<(i%64)) == 0 || mutate.On(mutate.GiveBackSettled) {
				c.receipts = append(c.receipts, r)
			}
		}
		returned := c.receipts[from:len(c.receipts):len(c.receipts)]
		c.counts.Returned += uint64(len(returned))
		c.effect(Settle).Settlement = Settlement{
			Returned: true, Partition: id, Epoch: n.epoch, Receipts: returned, Messages: len(returned),
		}
	}
}
