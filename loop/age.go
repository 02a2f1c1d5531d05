package loop

// Ages are told from marks: what has arrived by the time of a mark is at least as old as the mark. So no message is stamped, and the clock
// is read once a mark instead of once a batch.

// mark is how far a source had come at one time.
type mark struct {
	at  Ticks
	seq uint64 // of the last unit that had been made
}

// maxMarks bounds how many are kept. When there are more, every other one goes, so that old ages are told less exactly.
const maxMarks = 128

// outgoings remembers the arrival of what is with a consumer: of its deliveries in their order, by their number.
type outgoings struct{ seq []uint64 }

const outgoingsSize = 128

// add notes that delivery n is of a unit with that sequence number.
func (o *outgoings) add(n, seq uint64) {
	if o.seq == nil {
		o.seq = make([]uint64, outgoingsSize)
	}
	o.seq[n%outgoingsSize] = seq
}

// mark remembers the time. Marks that no message is as old as are forgotten.
func (c *Core) mark() {
	oldest := c.oldest()
	keep := c.marks[:0]
	for _, m := range c.marks {
		if m.seq >= oldest && oldest != 0 {
			keep = append(keep, m)
		}
	}
	if len(keep) >= maxMarks {
		for i := range len(keep) / 2 {
			keep[i] = keep[2*i]
		}
		keep = keep[:len(keep)/2]
	}
	keep = append(keep, mark{at: c.wheel.now + c.lost, seq: c.seq})
	c.marks = keep
}

// oldest is the sequence number of the oldest message that is not settled; 0 if all are.
func (c *Core) oldest() (seq uint64) {
	for _, p := range c.parts {
		for n := p.first; n != nil; n = n.next {
			if n.unit != nil {
				seq = earlier(seq, n.unit.seq)
				break
			}
		}
	}
	return seq
}

func earlier(a, b uint64) uint64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// age is how long ago, at least, the unit with that sequence number was made; 0 for seq 0.
func (c *Core) age(now Ticks, seq uint64) Ticks {
	if seq == 0 {
		return 0
	}
	for _, m := range c.marks {
		if m.seq >= seq {
			return max(now-m.at, 0)
		}
	}
	return 0
}

// ages fills in how old the oldest messages are. taken says how many deliveries a consumer is done with by now.
func (c *Core) ages(now Ticks, taken func(ConsumerID) uint64, counts *Counts) {
	counts.Oldest = c.age(now, c.oldest())
	seqs := make([]uint64, len(c.cons))
	for i, k := range c.cons {
		if k.queue.len() > 0 {
			seqs[i] = k.queue.buf[k.queue.head].seq
		}
		done := taken(k.id)
		if out := k.sent - min(done, k.sent); out > 0 && k.out.seq != nil {
			counts.Consumers[i].Out = int(out)
			seqs[i] = earlier(seqs[i], k.out.seq[(k.sent-min(out, outgoingsSize))%outgoingsSize])
		}
	}
	for _, s := range c.units {
		if s != nil && s.n > 0 && s.solo && s.state != soloDone {
			seqs[s.consumer] = earlier(seqs[s.consumer], s.seq)
		}
	}
	for i, seq := range seqs {
		counts.Consumers[i].Oldest = c.age(now, seq)
	}
}
