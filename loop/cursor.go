package loop

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
	done       []uint64 // a bit for each settled message; nil while there is none
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

func (p *partition) append(u *unit) {
	if u.batch.Epoch != p.epoch { // of an assignment that had ended when it arrived: it has no place in this one
		p = &partition{epoch: u.batch.Epoch, revoked: true}
	}
	n := &node{unit: u, part: p, epoch: u.batch.Epoch, prev: p.last}
	if p.last == nil {
		p.first = n
	} else {
		p.last.next = n
	}
	p.last = n
	u.node = n
}

// lives says whether what n holds may still be settled.
func (c *Core) lives(n *node, id uint32) bool {
	p := n.part
	return !c.gaveUp && !p.revoked && c.parts[id] == p && n.epoch == p.epoch
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
	n.done = make([]uint64, (u.n+63)/64)
	for i := range u.n {
		if !u.isOpen(i) {
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
	p := u.node.part
	s := Settlement{Partition: u.batch.Partition, Epoch: u.batch.Epoch, Messages: len(receipts), Bytes: bytes}
	if c.lives(u.node, u.batch.Partition) {
		s.Receipts, s.Cursor, s.HasCursor = receipts, p.cursor, p.hasCursor
	} else {
		s.Void = true
	}
	c.effect(Settle).Settlement = s
}

// closeNode makes u's place a settled run, and joins it with settled neighbours.
func (c *Core) closeNode(u *unit) {
	n := u.node
	n.unit, n.done = nil, nil
	n.receipt = u.batch.Receipts[u.n-1]
	if prev := n.prev; prev != nil && prev.unit == nil && prev.epoch == n.epoch {
		n.part.unlink(prev)
	}
	if next := n.next; next != nil && next.unit == nil && next.epoch == n.epoch {
		n.part.unlink(n)
	}
	c.advance(n.part)
}

func (p *partition) unlink(n *node) {
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
}

// advance moves the cursor over what is settled without a hole.
func (c *Core) advance(p *partition) {
	for p.first != nil && p.first.unit == nil {
		p.cursor, p.hasCursor = p.first.receipt, true
		p.unlink(p.first)
	}
	n := p.first
	if n == nil || n.done == nil {
		return
	}
	for n.prefix < n.unit.n && n.done[n.prefix/64]&(1<<(n.prefix%64)) != 0 {
		n.prefix++
	}
	if n.prefix > 0 {
		p.cursor, p.hasCursor = n.unit.batch.Receipts[n.prefix-1], true
	}
}

// giveBack returns to the source what is not settled of one partition.
func (c *Core) giveBack(id uint32, p *partition) {
	for n := p.first; n != nil; n = n.next {
		if n.unit == nil {
			continue
		}
		from := len(c.receipts)
		for i, r := range n.unit.batch.Receipts {
			if n.done == nil || n.done[i/64]&(1<<(i%64)) == 0 {
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
