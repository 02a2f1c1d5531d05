package sourcetest

import (
	"context"

	"github.com/penstock-dev/penstock/source"
)

func keeps(f Features) bool { return f.Cursor || f.PerMessage }

// exams in the order in which they are held.
var exams = [...]exam{
	{"all messages come once, in order and unchanged", nil, examAll},
	{"large messages come unchanged", nil, examLarge},
	{"a full window stops reading", nil, examWindow},
	{"an exhausted budget is waited for", nil, examBudget},
	{"Run ends with its context", nil, examCancel},
	{"Run ends when the runtime takes no more", nil, examStopped},
	{"Settle does not block", nil, examSettle},
	{"messages put later come too", func(f Features) bool { return f.Append && !f.Ends }, examAppend},
	{"after a restart what is not settled comes, what is settled does not", keeps, examRestart},
	{"a checkpoint outlives a crash", keeps, examCheckpoint},
	{"a hole is not committed over", keeps, examHole},
	{"what was settled out of order is committed once the hole is closed", keeps, examOutOfOrder},
	{"returned messages come again", func(f Features) bool { return f.Returned }, examReturned},
	{"a revoked assignment settles nothing", func(f Features) bool { return f.Partitions > 0 && keeps(f) }, examRevoked},
}

func all(int) bool             { return true }
func every(Message) bool       { return true }
func (k *kit) goroutines() int { return max(1, k.Partitions) } // of a source, at most, that wait in Ready each

func examAll(k *kit) {
	n := k.putMessages(500, func(i int) int { return 10 + i%300 })
	s := k.start(IntakeConfig{})
	s.arrive(n)
	s.settle(source.Settled, every)
	if k.Ends {
		s.join("all had been read")
	} else {
		s.stop()
	}
	s.exactly(all, nil)
	s.ordered()
	s.closeSource()
	s.release()
}

func examLarge(k *kit) {
	n := k.putMessages(30, func(i int) int { return 10 + i*(k.MaxMessage-10)/29 })
	s := k.start(IntakeConfig{MaxBytes: k.MaxMessage})
	s.arrive(n)
	s.exactly(all, nil)
	s.ordered()
	s.finish()
}

func examWindow(k *kit) {
	const window, batch = 32, 8
	n := k.putMessages(400, bytesEach(1000))
	s := k.start(IntakeConfig{Window: window, MaxBatch: batch})
	for had := 0; had < n; {
		s.until("Ready to be called while the window is full", func() bool { return s.in.Blocked() > 0 || s.in.Len() >= n })
		if most := had + window + batch*k.goroutines(); s.in.Len() > most {
			s.k.Errorf("%d messages accepted of a window of %d: at most %d were allowed", s.in.Len()-had, window, most-had)
		}
		had = s.in.Len()
		s.settle(source.Settled, func(m Message) bool { return m.Index < had })
		s.until("reading to go on", func() bool { return s.in.Len() > had || s.in.Len() >= n })
	}
	s.exactly(all, nil)
	s.finish()
}

func examBudget(k *kit) {
	n := k.putMessages(400, bytesEach(1000))
	s := k.start(IntakeConfig{Budget: 16 * 4 << 10, SlabSize: 4 << 10}) // eleven slabs are the source's
	for rounds, refused := 0, uint64(0); ; rounds++ {
		s.until("a lease to be refused", func() bool { return s.in.arena.Stats().Refused > refused || s.in.Len() >= n })
		refused = s.in.arena.Stats().Refused
		had := s.in.Len()
		if rounds == 0 && had >= n {
			k.Errorf("all messages were accepted though the budget holds a tenth of them: is the source's memory the account's?")
		}
		if had >= n {
			break
		}
		s.settle(source.Settled, func(m Message) bool { return m.Index < had })
	}
	s.exactly(all, nil)
	s.finish()
}

// stuck is a session whose source has filled its window and waits in Ready.
func (k *kit) stuck() *session {
	k.putMessages(500, bytesEach(100))
	s := k.start(IntakeConfig{Window: 16, MaxBatch: 8})
	s.until("Ready to be called while the window is full", func() bool { return s.in.Blocked() > 0 })
	return s
}

func examCancel(k *kit) {
	s := k.stuck()
	s.finish()
	s = k.start(IntakeConfig{}) // not while it waits, but while it reads
	s.arrive(1)
	s.finish()
}

func examStopped(k *kit) {
	s := k.stuck()
	s.in.Stop()
	s.join("the runtime takes no more")
	had := s.in.Len()
	s.settle(source.Returned, every)
	s.closeSource()
	if s.in.Len() != had {
		k.Errorf("messages were accepted after Run had returned")
	}
	s.release()
	s.cancel()
}

func examSettle(k *kit) {
	s := k.stuck()
	held := s.in.Messages()
	s.within("Settle, one message at a time, while Run waits in Ready", func() {
		for _, m := range held { // the intake is not told: its window stays full
			s.src.Settle(source.Settlement{Partition: m.Partition, Epoch: m.Epoch, Receipts: []uint64{m.Receipt}, Cursor: m.Receipt, HasCursor: true})
		}
	})
	s.finish()
}

func examAppend(k *kit) {
	s := k.start(IntakeConfig{})
	for range 5 {
		s.arrive(k.putMessages(50, bytesEach(100)))
		s.settle(source.Settled, every)
	}
	s.exactly(all, nil)
	s.ordered()
	s.finish()
}

func examRestart(k *kit) {
	n := k.putMessages(300, bytesEach(100))
	s := k.start(IntakeConfig{})
	s.arrive(n)
	first := map[int]bool{}
	for _, m := range s.in.Messages()[:200] {
		i, _ := k.number(m)
		first[i] = true
	}
	s.settle(source.Settled, func(m Message) bool { return m.Index < 200 })
	s.finish()

	s = k.start(IntakeConfig{})
	s.arrive(n - 200)
	s.settle(source.Settled, every)
	s.finish()
	s.exactly(func(i int) bool { return !first[i] }, nil)

	more := k.putMessages(10, bytesEach(100))
	s = k.start(IntakeConfig{})
	s.arrive(more - n)
	s.finish()
	s.exactly(func(i int) bool { return i >= n }, nil)
}

func examCheckpoint(k *kit) {
	n := k.putMessages(100, bytesEach(100))
	crashed := k.start(IntakeConfig{})
	c, ok := crashed.src.(source.Checkpointer)
	if !ok {
		crashed.finish()
		k.Skip("the source is no Checkpointer")
	}
	crashed.arrive(n)
	rank := map[int]int{} // message -> place among those accepted
	for _, m := range crashed.in.Messages() {
		i, _ := k.number(m)
		rank[i] = m.Index
	}
	crashed.settle(source.Settled, func(m Message) bool { return m.Index < 60 })
	if err := c.Checkpoint(context.Background()); err != nil {
		k.Errorf("Checkpoint: %v", err)
	}
	crashed.settle(source.Settled, func(m Message) bool { return m.Index < 80 })
	crashed.stop()

	s := k.start(IntakeConfig{})
	s.until("all messages that were never settled", func() bool {
		missing := n - 80
		for _, m := range s.in.Messages() {
			if i, ok := k.number(m); ok && rank[i] >= 80 {
				missing--
			}
		}
		return missing <= 0
	})
	s.finish()
	s.exactly(func(i int) bool { return rank[i] >= 80 }, func(i int) bool { return rank[i] >= 60 })
	crashed.closeSource()
	crashed.release()
}

// holes is, in each partition, all but the first five messages.
func (s *session) holes() func(m Message) bool {
	rank, seen := map[int]int{}, map[uint32]int{}
	for _, m := range s.in.Messages() {
		rank[m.Index] = seen[m.Partition]
		seen[m.Partition]++
	}
	return func(m Message) bool { return rank[m.Index] >= 5 }
}

func examHole(k *kit) {
	n := k.putMessages(100, bytesEach(100))
	s := k.start(IntakeConfig{})
	s.arrive(n)
	behind := s.holes()
	hole := map[int]bool{}
	for _, m := range s.in.Messages() {
		if i, _ := k.number(m); !behind(m) {
			hole[i] = true
		}
	}
	s.settle(source.Settled, behind)
	s.finish()

	s = k.start(IntakeConfig{})
	if k.PerMessage {
		s.arrive(len(hole))
	} else {
		s.arrive(n)
	}
	s.finish()
	s.exactly(func(i int) bool { return hole[i] || !k.PerMessage }, nil)
}

func examOutOfOrder(k *kit) {
	n := k.putMessages(100, bytesEach(100))
	s := k.start(IntakeConfig{})
	s.arrive(n)
	behind := s.holes()
	s.settle(source.Settled, behind)
	s.settle(source.Settled, every)
	s.finish()

	more := k.putMessages(20, bytesEach(100))
	s = k.start(IntakeConfig{})
	s.arrive(more - n)
	s.finish()
	s.exactly(func(i int) bool { return i >= n }, nil)
}

func examReturned(k *kit) {
	n := k.putMessages(100, bytesEach(100))
	s := k.start(IntakeConfig{})
	s.arrive(n)
	odd := func(m Message) bool { i, _ := k.number(m); return m.Index < n && i%2 == 1 }
	s.settle(source.Settled, func(m Message) bool { return m.Index < n && !odd(m) })
	s.settle(source.Returned, odd)
	s.arrive(n + n/2)
	s.settle(source.Settled, every)
	seen := s.numbers()
	for i := range n {
		if want := 1 + i%2; seen[i] != want {
			k.Errorf("message %d came %d times, want %d", i, seen[i], want)
		}
	}
	s.finish()
}

func examRevoked(k *kit) {
	re, ok := k.fixture.(Rebalancer)
	if !ok {
		k.Skip("the fixture is no Rebalancer")
	}
	n := k.putMessages(100, bytesEach(100))
	s := k.start(IntakeConfig{})
	s.arrive(n)
	old := s.in.Messages()
	re.Rebalance(k)
	s.arrive(2 * n) // nothing was settled: all comes again under the new assignments
	latest := map[uint32]Message{}
	for _, m := range old {
		latest[m.Partition] = m
	}
	s.within("Settle of a revoked assignment", func() {
		for p, m := range latest {
			st := source.Settlement{Partition: p, Epoch: m.Epoch, Cursor: m.Receipt, HasCursor: true}
			for _, o := range old {
				if o.Partition == p {
					st.Receipts = append(st.Receipts, o.Receipt)
				}
			}
			s.src.Settle(st)
		}
	})
	for _, m := range s.in.Messages()[n:] {
		if m.Epoch <= latest[m.Partition].Epoch {
			k.Errorf("partition %d: after a new assignment a message came under epoch %d", m.Partition, m.Epoch)
		}
	}
	s.finish()

	s = k.start(IntakeConfig{})
	s.arrive(n)
	s.finish()
	s.exactly(all, nil)
}
