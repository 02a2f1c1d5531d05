package loop

import (
	"slices"

	"github.com/penstock-dev/penstock/internal/mutate"
)

// keyQueue is a key, of one consumer, that has a message which is not done with. Later messages of the key wait in it.
//
// The consumer's actor keeps the key back too, from the exception on: what it meets of the key comes back as Deferred. So the order
// holds only if the actor lets go of the key before anything later is delivered, and after all that it kept back has been reported. The
// mailbox is first in, first out, and so are the reports; so word to let go, sent through the mailbox, is answered after the last
// Deferred. That word is either Special.Resume on the head's own redelivery, or a delivery without a batch, answered by Resumed.
type keyQueue struct {
	head    *unit   // the message that the key waits for; nil while word to let go is on its way
	waiting []*unit // sorted by arrival
}

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

// insert puts s where its arrival belongs. Most often that is the end.
func (q *keyQueue) insert(s *unit) {
	i := len(q.waiting)
	for i > 0 && s.before(q.waiting[i-1]) && !mutate.On(mutate.InsertUnsorted) {
		i--
	}
	q.waiting = slices.Insert(q.waiting, i, s)
}

// block makes later messages of s's key wait until s is done with.
func (c *Core) block(k *consumer, s *unit) {
	if !k.Order || s.hash == 0 {
		return
	}
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

// headDone lets the key of s go on, if it was s that it waited for.
func (c *Core) headDone(k *consumer, s *unit, resumed bool) {
	q := k.keys[s.hash]
	if q == nil || q.head != s {
		return
	}
	q.head = nil
	if resumed {
		c.drainKey(k, s.hash, q)
		return
	}
	k.resume = append(k.resume, s.hash)
	c.pump(k)
}

// resumed hears that k's actor has let go of keys, and has reported all that it had kept back.
func (c *Core) resumed(k *consumer, keys []uint64) {
	for _, h := range keys {
		if q := k.keys[h]; q != nil && q.head == nil {
			c.drainKey(k, h, q)
		}
	}
	c.pump(k)
}

// drainKey makes all that waited behind a key ready, in order. Whatever is delivered later comes after it.
func (c *Core) drainKey(k *consumer, h uint64, q *keyQueue) {
	delete(k.keys, h)
	k.filter[h%filterSize]--
	if mutate.On(mutate.ForgetDeferred) && len(q.waiting) > 1 {
		q.waiting = q.waiting[:len(q.waiting)-1]
	}
	if mutate.On(mutate.DrainReversed) {
		slices.Reverse(q.waiting)
	}
	for _, s := range q.waiting {
		c.makeReady(k, s)
	}
}

// putBack takes a message that was not shown to the handler: it waits behind its key, or is ready.
func (c *Core) putBack(k *consumer, s *unit) {
	if !k.Order || s.hash == 0 {
		c.makeReady(k, s)
		return
	}
	q := k.keys[s.hash]
	switch {
	case q != nil && q.head == s: // the head itself, on its way to the handler: it goes again, with word to let go
		s.cleared = false
		c.makeReady(k, s)
		return
	case q == nil: // nothing is known of the key here, but the actor keeps it back
		q = c.openKey(k, s.hash)
		k.resume = append(k.resume, s.hash)
	}
	s.state = soloQueued
	q.insert(s)
}
