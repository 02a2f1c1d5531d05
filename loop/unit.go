package loop

import (
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/mutate"
)

// soloState is where a lone message is.
type soloState uint8

const (
	soloNone     soloState = iota
	soloReady              // to be delivered as soon as there is credit
	soloLent               // with its consumer
	soloWaiting            // for its backoff
	soloQueued             // behind its key
	soloHeld               // its consumer has it in hand, within a lease
	soloLapsing            // its lease is over, unless a verdict was quicker
	soloDying              // on its way to the dead letters
	soloUnburied           // the dead letters did not take it; to be tried again
	soloDone
)

// unit is a batch, or one message that has left its batch, until all that is owed for it has been given.
type unit struct {
	id     UnitID
	batch  *arena.Batch
	n      int
	bytes  int64
	stream StreamID
	seq    uint64 // order of making: arrival
	root   bool
	solo   bool

	whole  int     // what is owed for all messages at once
	open   []int32 // what is owed for message i alone; empty until something is
	opened int     // messages with open > 0
	homes  []*unit // a solo of message i, whose memory others may share
	parent *unit
	links  []uint64
	node   *node // root: place in the partition
	part   *partition

	// solo only
	index    uint32 // in parent
	consumer ConsumerID
	attempt  int32
	state    soloState
	out      bool // with its consumer, even if a verdict has come
	round    bool // it is of the round of its key that is out
	cleared  bool // its last delivery told the consumer to let go of the key
	stuck    bool // the dead letters have refused it
	revoking bool // the lease ends because the instance was replaced: that is no attempt
	hash     uint64
	token    Token
	handle   Handle
	cause    error
	first    Ticks // when it left its batch
	timer    timer
}

func (c *Core) newUnit(b *arena.Batch, bytes int64, stream StreamID) *unit {
	var u *unit
	if n := len(c.spare); n > 0 {
		u = c.spare[n-1]
		c.spare = c.spare[:n-1]
	} else {
		u = &unit{id: UnitID(len(c.units))}
		c.units = append(c.units, u)
	}
	u.id += 1 << 32
	c.seq++
	c.live++
	u.batch, u.stream, u.seq = b, stream, c.seq
	if b != nil {
		u.n, u.bytes = b.Len(), bytes
	}
	return u
}

// unit finds a live unit; nil if id is stale.
func (c *Core) unit(id UnitID) *unit {
	i := int(uint32(id))
	if i == 0 || i >= len(c.units) || c.units[i].id != id || c.units[i].n == 0 {
		return nil
	}
	return c.units[i]
}

func (c *Core) freeUnit(u *unit) {
	c.wheel.remove(&u.timer)
	for _, l := range u.links {
		if !c.gaveUp { // else it has not settled
			c.effect(AnnounceLink).Link = l
		}
	}
	c.effect(Free).Batch = u.batch
	c.live--
	clear(u.homes)
	*u = unit{id: u.id, open: u.open[:0], homes: u.homes[:0], links: u.links[:0]}
	c.spare = append(c.spare, u)
}

// owe counts one more thing that is owed for message i alone.
func (u *unit) owe(i uint32) {
	if len(u.open) == 0 {
		u.open = zeroed(u.open, u.n)
	}
	if u.open[i]++; u.open[i] == 1 {
		u.opened++
	}
}

func zeroed[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

func (u *unit) isOpen(i int) bool { return len(u.open) > 0 && u.open[i] > 0 }

// lessWhole gives one of the things that are owed for the unit as a whole.
func (c *Core) lessWhole(u *unit) {
	if u.whole--; u.whole == 0 {
		c.wholeDone(u)
	}
}

// lessOpen gives one of the things that are owed for message i alone.
func (c *Core) lessOpen(u *unit, i uint32) {
	if u.open[i]--; u.open[i] > 0 {
		return
	}
	u.opened--
	if u.whole == 0 {
		c.messageDone(u, i)
	}
}

// wholeDone settles every message of u that is not open. What is open is now owed for its parent's message too.
func (c *Core) wholeDone(u *unit) {
	switch {
	case u.root:
		c.settleWhole(u)
	case u.solo:
		if u.opened == 0 {
			c.closeSolo(u)
			return
		}
	case u.parent != nil:
		if u.opened > 0 && !mutate.On(mutate.OpenNotHoisted) {
			for i := range u.open {
				if u.open[i] > 0 {
					u.parent.owe(u.parentOf(uint32(i)))
				}
			}
		}
		c.lessWhole(u.parent)
	}
	if u.opened == 0 {
		c.freeUnit(u)
	}
}

// messageDone settles one message of a unit whose whole is done.
func (c *Core) messageDone(u *unit, i uint32) {
	switch {
	case u.root:
		c.settleOne(u, i)
	case u.solo:
		c.closeSolo(u)
		return
	case u.parent != nil:
		c.lessOpen(u.parent, u.parentOf(i))
	}
	if u.opened == 0 {
		c.freeUnit(u)
	}
}

func (c *Core) closeSolo(s *unit) {
	parent, i := s.parent, s.index
	if parent.homes[i] == s {
		parent.homes[i] = nil
	}
	c.freeUnit(s)
	c.lessOpen(parent, i)
}

// origin is the source's message that message i of u comes from; nil if it comes from none.
func (u *unit) origin(i uint32) (root *unit, index uint32) {
	for !u.root {
		if u.parent == nil {
			return nil, 0
		}
		if u.solo {
			i = u.index
		} else {
			i = u.parentOf(i)
		}
		u = u.parent
	}
	return u, i
}

func (u *unit) parentOf(i uint32) uint32 {
	if u.parent.solo {
		return 0
	}
	return u.batch.Parents[i]
}

// split takes message i out of u, as owed to k: it lives on alone, in memory of its own. into is that memory, if there is some already.
func (c *Core) split(k *consumer, u *unit, i uint32, into *arena.Batch) *unit {
	s := c.newUnit(nil, 0, u.stream)
	s.solo, s.n, s.whole = true, 1, 1
	s.parent, s.index, s.consumer = u, i, k.id
	k.alone++
	s.seq, s.first = u.seq, c.wheel.now+c.lost
	if len(u.batch.Hashes) > 0 {
		s.hash = u.batch.Hashes[i]
	}
	s.timer.kind, s.timer.unit = timerUnit, s
	u.owe(i)
	if len(u.homes) == 0 {
		u.homes = zeroed(u.homes, u.n)
	}
	switch home := u.homes[i]; {
	case into != nil:
		s.batch = into
	case home != nil && home.state != soloDone:
		s.batch = c.cfg.NewBatch()
		e := c.effect(Share)
		e.Batch, e.Into = home.batch, s.batch
	default:
		s.batch = c.cfg.NewBatch()
		e := c.effect(Evacuate)
		e.Batch, e.Index, e.Into = u.batch, i, s.batch
	}
	u.homes[i] = s
	f := &u.batch.Frames[i]
	s.bytes = int64(f.Len) + int64(f.HdrLen)
	return s
}

// before orders messages as they arrived.
func (u *unit) before(t *unit) bool {
	if u.seq != t.seq {
		return u.seq < t.seq
	}
	return u.index < t.index
}
