package loop

import (
	"slices"
	"sort"

	"github.com/penstock-dev/penstock/internal/mutate"
)

// keyQueue is a key, of one consumer, that has a message which is not done with. Later messages of the key wait in it.
//
// The consumer's actor keeps the key back too, from the exception on: what it meets of the key comes back as Deferred. So the order
// holds only if the actor lets go of the key before anything later is delivered, and after all that it kept back has been reported. The
// mailbox is first in, first out, and so are the reports; so word to let go, sent through the mailbox, is answered after the last
// Deferred. That word is either Special.Resume on the head's own redelivery, or a delivery without a batch, answered by Resumed.
//
// When the key goes on, those that waited are delivered in rounds: were all of them sent at once, the next that is not acknowledged would
// bring all behind it back, again and again. Until the last of them is acknowledged the key stays, and what is later waits in turn.
type keyQueue struct {
	head     *unit   // the message that the key waits for; nil while word to let go is on its way, or a round is out
	waiting  []*unit // sorted by arrival, from start on
	start    int
	out      int  // of a round: delivered or about to be, and not acknowledged
	resuming bool // word to let go is on its way
}

// roundLength bounds what one exception can bring back.
const roundLength = 32

// keepBack takes out of u the messages whose key is not done with, and returns those that are left; nil if that is all.
func (c *Core) keepBack(k *consumer, u *unit) (pick []uint32) {
	if mutate.On(mutate.BypassBlockedKey) {
		return nil
	}
	hashes := u.batch.Hashes
	kept := false
	for i, h := range hashes {
		if k.filter[h%filterSize] > 0 && h != 0 {
			if q := k.keys[h]; q != nil {
				if !kept {
					kept = true
					pick = make([]uint32, i, len(hashes))
					for j := range pick {
						pick[j] = uint32(j)
					}
				}
				s := c.split(k, u, uint32(i), nil)
				k.counts.Deferred++
				s.state = soloQueued
				q.insert(s)
				continue
			}
		}
		if kept {
			pick = append(pick, uint32(i))
		}
	}
	return pick
}

// insert puts s where its arrival belongs. Most often that is the end; what comes back from a round belongs to the start.
func (q *keyQueue) insert(s *unit) {
	n := len(q.waiting)
	if n == q.start || q.waiting[n-1].before(s) || mutate.On(mutate.InsertUnsorted) {
		q.waiting = append(q.waiting, s)
		return
	}
	i := q.start + sort.Search(n-q.start, func(i int) bool { return s.before(q.waiting[q.start+i]) })
	if q.start == 0 || i-q.start > n-i {
		q.waiting = slices.Insert(q.waiting, i, s)
		return
	}
	copy(q.waiting[q.start-1:], q.waiting[q.start:i])
	q.start--
	q.waiting[i-1] = s
}

// take removes the first n that wait. The result is valid until the next insert.
func (q *keyQueue) take(n int) []*unit {
	first := q.waiting[q.start : q.start+n]
	q.start += n
	return first
}

// tidy gives up the room in front of what waits, when it is most of the memory.
func (q *keyQueue) tidy() {
	if q.start > roundLength && q.start > len(q.waiting)/2 {
		n := copy(q.waiting, q.waiting[q.start-roundLength:])
		clear(q.waiting[n:])
		q.waiting, q.start = q.waiting[:n], roundLength
	}
}

// block makes later messages of s's key wait until s is done with.
func (c *Core) block(k *consumer, s *unit) {
	if !k.Order || s.hash == 0 {
		return
	}
	c.leaveRound(k, s)
	q := k.keys[s.hash]
	if q == nil {
		q = c.openKey(k, s.hash)
	}
	q.head = s
	s.cleared = false
}

func (c *Core) openKey(k *consumer, h uint64) *keyQueue {
	q := &keyQueue{}
	k.keys[h] = q
	k.filter[h%filterSize]++
	return q
}

// headDone lets the key of s go on, if it was s that it waited for, or the last of a round.
func (c *Core) headDone(k *consumer, s *unit, resumed bool) {
	q := k.keys[s.hash]
	if q == nil {
		return
	}
	c.leaveRound(k, s)
	switch {
	case q.head == s && !resumed:
		q.head = nil
		c.sendResume(k, s.hash, q)
		c.pump(k)
	case q.head == s:
		q.head = nil
		c.drainKey(k, s.hash, q)
	case q.head == nil && !q.resuming && q.out == 0:
		c.drainKey(k, s.hash, q)
	}
}

// leaveRound takes s out of the round of its key that is out, if it is in one.
func (c *Core) leaveRound(k *consumer, s *unit) {
	if s.round {
		s.round = false
		if q := k.keys[s.hash]; q != nil {
			q.out--
		}
	}
}

// sendResume has the consumer told to let go of a key.
func (c *Core) sendResume(k *consumer, h uint64, q *keyQueue) {
	q.resuming = true
	k.resume = append(k.resume, h)
}

// resumed hears that k's actor has let go of keys, and has reported all that it had kept back.
func (c *Core) resumed(k *consumer, keys []uint64) {
	for _, h := range keys {
		if q := k.keys[h]; q != nil && q.resuming {
			q.resuming = false
			c.drainKey(k, h, q)
		}
	}
	c.pump(k)
}

// drainKey makes the first of those that waited behind a key ready, in order; if there are none, the key is done with.
func (c *Core) drainKey(k *consumer, h uint64, q *keyQueue) {
	if mutate.On(mutate.ForgetDeferred) && len(q.waiting) > q.start+1 {
		q.waiting = q.waiting[:len(q.waiting)-1]
	}
	round := q.take(min(len(q.waiting)-q.start, roundLength))
	if len(round) == 0 {
		delete(k.keys, h)
		k.filter[h%filterSize]--
		return
	}
	if mutate.On(mutate.DrainReversed) {
		slices.Reverse(round)
	}
	q.out = len(round)
	for i, s := range round {
		round[i] = nil
		s.round = true
		c.makeReady(k, s)
	}
	q.tidy()
}

// putBack takes a message that was not shown to the handler: it waits behind its key, or is ready.
func (c *Core) putBack(k *consumer, s *unit) {
	if !k.Order || s.hash == 0 {
		c.makeReady(k, s)
		return
	}
	c.leaveRound(k, s)
	q := k.keys[s.hash]
	switch {
	case q != nil && q.head == s: // the head itself, on its way to the handler: it goes again, with word to let go
		s.cleared = false
		c.makeReady(k, s)
		return
	case q == nil: // nothing is known of the key here, but the actor keeps it back
		q = c.openKey(k, s.hash)
		c.sendResume(k, s.hash, q)
	case q.head == nil && !q.resuming: // of a round that was taken back
		c.sendResume(k, s.hash, q)
	}
	s.state = soloQueued
	q.insert(s)
}
