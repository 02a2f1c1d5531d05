package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-dev/penstock/source"
)

// Features says what a source promises, and so which exams it sits.
type Features struct {
	Ends       bool          // Run returns by itself when all has been read
	Append     bool          // what is put while Run runs is read too; not together with Ends
	Cursor     bool          // what is settled, as a contiguous prefix, does not come again after a restart
	PerMessage bool          // each message is settled for itself: after a restart exactly those that are not settled come
	Returned   bool          // what is returned comes again while Run runs
	Partitions int           // how many partitions the source uses; 0 if it never calls Assign
	Binary     bool          // payloads may hold any byte, otherwise none that ends a line
	MaxMessage int           // the largest message that the kit puts, in bytes; 0 means 40,000
	Patience   time.Duration // how long something that must happen may take; 0 means 10 s
}

// Fixture is what a source reads from.
type Fixture interface {
	// Put adds messages, whether a source is open or not. Those of one partition keep their order.
	Put(t testing.TB, messages [][]byte)
	// Open makes a source over all that has been put, as a process does that starts. An earlier one is closed by then, or has crashed: its
	// Run has returned, but Close has not been called.
	Open(t testing.TB) source.Source
}

// Rebalancer is an optional interface of a Fixture with partitions: Rebalance takes all partitions from the open source and assigns them
// again. It returns when that has been done, or will be.
type Rebalancer interface {
	Rebalance(t testing.TB)
}

// Run holds the exams, each with a Fixture of its own that newFixture makes, as subtests of t.
func Run(t *testing.T, f Features, newFixture func(t *testing.T) Fixture) {
	for _, e := range exams {
		if e.applies != nil && !e.applies(f) {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			e.hold(t, f, newFixture(t))
		})
	}
}

// exam is one of the exams.
type exam struct {
	name    string
	applies func(Features) bool // nil means always
	run     func(k *kit)
}

// hold runs the exam.
func (e exam) hold(t testing.TB, f Features, fx Fixture) {
	t.Helper()
	if f.Patience == 0 {
		f.Patience = 10 * time.Second
	}
	if f.MaxMessage == 0 {
		f.MaxMessage = 40_000
	}
	before := goleak.IgnoreCurrent()
	k := &kit{TB: t, Features: f, fixture: fx, dir: t.TempDir()}
	e.run(k)
	goleak.VerifyNone(t, before)
}

// kit is what an exam works with.
type kit struct {
	testing.TB
	Features
	fixture Fixture
	dir     string // the data directory
	put     [][]byte
}

// putMessages puts n more messages of size bytes each and returns how many there are now.
func (k *kit) putMessages(n int, size func(i int) int) int {
	var list [][]byte
	for range n {
		list = append(list, k.payload(len(k.put)+len(list), size(len(list))))
	}
	k.put = append(k.put, list...)
	k.fixture.Put(k, list)
	return len(k.put)
}

func bytesEach(n int) func(int) int { return func(int) int { return n } }

// payload is message number i: its number, and bytes that follow from it.
func (k *kit) payload(i, size int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	b := fmt.Appendf(nil, "%08d ", i)
	for len(b) < size {
		if c := byte(r.Uint32()); k.Binary {
			b = append(b, c)
		} else {
			b = append(b, ' '+c%90)
		}
	}
	return b
}

// number is the number of a message that was put; ok is false if its payload is not what was put.
func (k *kit) number(m Message) (n int, ok bool) {
	if _, err := fmt.Sscanf(string(m.Payload[:min(len(m.Payload), 8)]), "%d", &n); err != nil || n < 0 || n >= len(k.put) {
		return 0, false
	}
	return n, string(m.Payload) == string(k.put[n])
}

// session is a source at work.
type session struct {
	k      *kit
	in     *Intake
	src    source.Source
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of Run, after ended
}

// start opens a source and runs it.
func (k *kit) start(cfg IntakeConfig) *session {
	k.Helper()
	cfg.DataDir = k.dir
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{k: k, in: NewIntake(k, cfg), src: k.fixture.Open(k), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = s.src.Run(ctx, s.in)
		s.in.Ended()
	}()
	return s
}

// until waits for cond, which is looked at whenever something has happened; what says what is being waited for.
func (s *session) until(what string, cond func() bool) {
	s.k.Helper()
	deadline := time.After(s.k.Patience)
	look := time.NewTicker(time.Millisecond) // for what the intake does not see, such as a lease refused
	defer look.Stop()
	for ended := false; ; {
		changed := s.in.Changed()
		if cond() {
			return
		}
		if ended {
			s.fatalf("Run returned (%v) while the exam waited for %s; %s", s.err, what, s.progress())
		}
		select {
		case <-changed:
		case <-look.C:
		case <-s.ended:
			ended = true
		case <-deadline:
			s.fatalf("waited %v for %s; %s", s.k.Patience, what, s.progress())
		}
	}
}

func (s *session) progress() string {
	return fmt.Sprintf("%d of %d messages accepted, %d calls of Ready wait, reported: %v, breaches: %v",
		s.in.Len(), len(s.k.put), s.in.Blocked(), s.in.Reports(), s.in.Breaches())
}

// fatalf ends the exam. It does not wait for Run, which may be what hangs.
func (s *session) fatalf(format string, args ...any) {
	s.k.Helper()
	s.cancel()
	s.k.Fatalf(format, args...)
}

// arrive waits until n messages have been accepted.
func (s *session) arrive(n int) {
	s.k.Helper()
	s.until(fmt.Sprintf("%d messages", n), func() bool { return s.in.Len() >= n })
}

// stop ends Run by its context and checks that it ends promptly and without an error of its own.
func (s *session) stop() {
	s.k.Helper()
	s.cancel()
	s.join("its context had ended")
}

// join waits for Run to return.
func (s *session) join(why string) {
	s.k.Helper()
	select {
	case <-s.ended:
	case <-time.After(s.k.Patience):
		s.fatalf("Run did not return within %v although %s", s.k.Patience, why)
	}
	if s.err != nil && !errors.Is(s.err, context.Canceled) && !errors.Is(s.err, source.ErrStopped) {
		s.k.Errorf("Run returned %v although %s", s.err, why)
	}
}

// closeSource calls Close, promptly.
func (s *session) closeSource() {
	s.k.Helper()
	s.within("Close", func() {
		if err := s.src.Close(context.Background()); err != nil {
			s.k.Errorf("Close: %v", err)
		}
	})
}

// release checks the contract and that all memory has been released.
func (s *session) release() {
	s.k.Helper()
	if err := s.in.Close(); err != nil {
		s.k.Errorf("after Run and Close: %v", err)
	}
}

// finish stops, returns what is not settled as the runtime does when it stops, and closes.
func (s *session) finish() {
	s.k.Helper()
	s.stop()
	s.settle(source.Returned, func(Message) bool { return true })
	s.closeSource()
	s.release()
}

// settle tells the source what became of messages; it must return promptly.
func (s *session) settle(o source.Outcome, pick func(Message) bool) {
	s.k.Helper()
	s.within("Settle", func() { s.in.Settle(s.src, o, pick) })
}

// within fails the exam if call does not return.
func (s *session) within(what string, call func()) {
	s.k.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
	case <-time.After(s.k.Patience):
		s.fatalf("%s did not return within %v: it must not block", what, s.k.Patience)
	}
}

// numbers is how often each message came; what is not what was put is an error.
func (s *session) numbers() map[int]int {
	s.k.Helper()
	seen := map[int]int{}
	for _, m := range s.in.Messages() {
		n, ok := s.k.number(m)
		if !ok {
			s.k.Errorf("message %d (receipt %d, %d bytes) is not what was put: %.40q", m.Index, m.Receipt, len(m.Payload), m.Payload)
			continue
		}
		seen[n]++
	}
	return seen
}

// exactly checks that the messages that want chooses came once, and no others; those that may chooses are free to come.
func (s *session) exactly(want, may func(n int) bool) {
	s.k.Helper()
	seen := s.numbers()
	var wrong []string
	for n := range s.k.put {
		switch {
		case want(n) && seen[n] != 1:
			wrong = append(wrong, fmt.Sprintf("%d came %d times", n, seen[n]))
		case !want(n) && seen[n] > 0 && (may == nil || !may(n)):
			wrong = append(wrong, fmt.Sprintf("%d came, though it was settled", n))
		}
	}
	if len(wrong) > 0 {
		s.k.Errorf("messages that came wrongly: %s", strings.Join(wrong[:min(len(wrong), 10)], "; "))
	}
}

// ordered checks that the messages of each partition came in the order in which they were put.
func (s *session) ordered() {
	s.k.Helper()
	last := map[uint32]Message{}
	for _, m := range s.in.Messages() {
		n, _ := s.k.number(m)
		if before, ok := last[m.Partition]; ok {
			if b, _ := s.k.number(before); n <= b {
				s.k.Errorf("partition %d: message %d came after message %d", m.Partition, n, b)
			}
			if s.k.Cursor && m.Epoch == before.Epoch && m.Receipt <= before.Receipt {
				s.k.Errorf("partition %d: receipt %d after %d: those of a source with a cursor rise", m.Partition, m.Receipt, before.Receipt)
			}
		}
		last[m.Partition] = m
	}
}
