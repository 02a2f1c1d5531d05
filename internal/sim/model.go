package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"github.com/penstock-dev/penstock/loop"
)

// Invariant names what must always hold.
type Invariant string

// The invariants that a run checks.
const (
	SettledOnce    Invariant = "a message is settled once"
	SettledLast    Invariant = "settled only when nothing is owed"
	Cursor         Invariant = "cursor monotonic, over no hole"
	Epochs         Invariant = "nothing of a revoked assignment is settled"
	Returned       Invariant = "what is given up is returned once"
	EmittedOnce    Invariant = "emits of an acknowledged attempt, once"
	Asked          Invariant = "a message goes to who is owed it"
	Attempts       Invariant = "attempts counted and bounded"
	Early          Invariant = "no retry and no lapse before its time"
	KeyOrder       Invariant = "order by key"
	EmitOrder      Invariant = "emits in order"
	Bytes          Invariant = "the bytes are the message's"
	Credit         Invariant = "credit is kept"
	WindowKept     Invariant = "window is kept"
	Verdicts       Invariant = "a verdict counts until the lease is lost"
	DeadLetters    Invariant = "only what was refused is buried"
	Versions       Invariant = "one version at a time, with its state"
	Farewell       Invariant = "who is gone gets what it is owed, and no more"
	Stale          Invariant = "a stale ref yields nothing"
	Leaks          Invariant = "no memory is left leased"
	Progress       Invariant = "no deadlock"
	Figures        Invariant = "counts are right"
	Misuse         Invariant = "no panic"
	maxRootPayload           = 700
)

// Failure is an invariant that did not hold.
type Failure struct {
	Seed      uint64
	Invariant Invariant
	Text      string
}

// Error names the seed, the invariant and what happened.
func (f *Failure) Error() string { return fmt.Sprintf("seed %d: %s: %s", f.Seed, f.Invariant, f.Text) }

// message is a message as the model knows it.
type message struct {
	id     uint64
	loop   *simLoop
	stream string
	key    string
	size   int
	hdr    bool

	root    bool
	part    *part
	receipt uint64

	emitter  *plug // nil for a root
	held     bool  // emitted by a Held
	released bool  // its attempt was acknowledged
	arrived  bool  // the core has it
	settled  bool  // the source has heard
	late     bool  // it came while its loop was draining
	void     bool  // its assignment has ended
	returned bool
	seq      uint64 // order of arrival in its loop
	debts    []*debt
	children []*message
	complete bool
}

type owed uint8

const (
	isOwed    owed = iota // not shown yet
	isLent                // its handler, or sink, is at it
	isFailed              // to come again, or to be buried if attempts are used up
	isHeld                // its verdict comes later
	isRefused             // to be buried
	isDying               // the dead letters have it
	isDone
	isDead
	isDropped
)

// debt is what one consumer owes for one message.
type debt struct {
	m         *message
	lane      *lane
	state     owed
	attempts  int  // that have ended
	either    bool // the last one may or may not have counted: it ended as the lease ran out and the version was replaced
	notBefore int64
	since     int64 // when the last attempt ended
	delivered bool
	hold      *hold
}

func (d *debt) over() bool { return d.state >= isDone }

func (d *debt) String() string {
	return fmt.Sprintf("message %d of %q, key %q, for %q", d.m.id, d.m.stream, d.m.key, d.lane.p.set.name)
}

func hashOf(key []byte) uint64 {
	if len(key) == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(key)
	return h.Sum64() | 1
}

const payloadHead = 8 + 4 // id, length

// render writes m's payload to dst, which it fills.
func (m *message) render(dst []byte) {
	binary.LittleEndian.PutUint64(dst, m.id)
	binary.LittleEndian.PutUint32(dst[8:], uint32(len(dst)))
	for i := payloadHead; i < len(dst); i++ {
		dst[i] = byte(m.id*131 + uint64(i)*7 + 11)
	}
	if m.root {
		copy(dst[payloadHead:], m.key)
	}
}

// find reads the id in a payload; nil if there is no such message.
func (s *Sim) find(payload []byte) *message {
	if len(payload) < payloadHead {
		return nil
	}
	id := binary.LittleEndian.Uint64(payload)
	if id >= uint64(len(s.messages)) {
		return nil
	}
	return s.messages[id]
}

// intact checks that a payload is, byte for byte, that of a message, and returns it; key and header may be nil for "not known".
func (s *Sim) intact(where string, payload, key []byte) *message {
	m := s.find(payload)
	if m == nil {
		s.fail(Bytes, "%s: %d bytes that are no message: %.20x", where, len(payload), payload)
		return nil
	}
	want := s.scratch[:m.size]
	m.render(want)
	if !bytes.Equal(want, payload) || string(key) != m.key {
		s.fail(Bytes, "%s: message %d has other bytes, or another key (%q for %q)", where, m.id, key, m.key)
		return nil
	}
	return m
}

// owe makes the debts of a message that has arrived in its loop.
func (s *Sim) owe(m *message) {
	l := m.loop
	l.seq++
	m.arrived, m.seq = true, l.seq
	for _, ln := range l.byStream[m.stream] {
		d := &debt{m: m, lane: ln}
		m.debts = append(m.debts, d)
		if h := hashOf([]byte(m.key)); ln.p.set.order && h != 0 {
			ln.keys[h] = append(ln.keys[h], d)
		}
	}
}

// debtOf is what ln owes for m; nil if nothing.
func (m *message) debtOf(ln *lane) *debt {
	for _, d := range m.debts {
		if d.lane == ln {
			return d
		}
	}
	return nil
}

// isComplete says whether nothing is owed for m and for what was emitted from it. With settled, what a consumer that drops was never
// given it has dropped, then.
func (s *Sim) isComplete(m *message, settled bool) bool {
	if m.complete {
		return true
	}
	if !m.arrived {
		return false
	}
	for _, d := range m.debts {
		if d.over() {
			continue
		}
		if !settled || d.state != isOwed || d.delivered || !d.lane.drops {
			s.owing = d.String()
			return false
		}
	}
	for _, child := range m.children {
		if !s.isComplete(child, settled) {
			return false
		}
	}
	m.complete = true
	for _, d := range m.debts {
		s.drop(d)
	}
	return true
}

// drop notes that a consumer has dropped a message, if it has not done with it otherwise.
func (s *Sim) drop(d *debt) {
	if !d.over() {
		d.state = isDropped
		d.lane.dropped++
	}
}

// shown checks that d's message may be shown to its consumer now, as this attempt.
func (s *Sim) shown(d *debt, attempt int) {
	switch {
	case d.m.settled || d.m.returned && !d.lane.l.gaveUp:
		s.fail(SettledLast, "%v: shown after it was settled", d)
	case d.state != isOwed && d.state != isFailed:
		s.fail(Asked, "%v: shown again in state %d", d, d.state)
	case attempt != d.attempts+1 && !(d.either && attempt == d.attempts):
		s.fail(Attempts, "%v: attempt %d after %d", d, attempt, d.attempts)
	case d.exhausted():
		s.fail(Attempts, "%v: shown %d times, with at most %d", d, attempt, d.lane.p.set.retry.Attempts)
	case s.now() < d.notBefore:
		s.fail(Early, "%v: shown at %d, and not before %d", d, s.now(), d.notBefore)
	}
	s.inOrder(d)
	d.state, d.attempts, d.either = isLent, attempt-1, false
}

func (d *debt) exhausted() bool {
	most := d.lane.p.set.retry.Attempts
	return most > 0 && d.attempts >= most && !d.either
}

// inOrder checks that all earlier messages of d's key are done with.
func (s *Sim) inOrder(d *debt) {
	h := hashOf([]byte(d.m.key))
	if !d.lane.p.set.order || h == 0 {
		return
	}
	list := d.lane.keys[h]
	for len(list) > 0 && list[0] != d {
		if first := list[0]; !first.over() {
			if first.state != isOwed || first.delivered || !d.lane.drops {
				s.fail(KeyOrder, "%v: shown before message %d, which is in state %d", d, first.m.id, first.state)
				return
			}
			s.drop(first)
		}
		list = list[1:]
	}
	d.lane.keys[h] = list
}

// failed ends an attempt without success.
func (s *Sim) failed(d *debt, after loop.Ticks) {
	d.attempts++
	d.state, d.hold = isFailed, nil
	if after == 0 {
		after = d.backoff()
	}
	d.since = s.now()
	d.notBefore = d.since + int64(after)
}

// backoff is the least that the policy makes of the attempts so far.
func (d *debt) backoff() loop.Ticks {
	p := &d.lane.p.set.retry
	b := p.Backoff
	for range d.attempts - 1 {
		if b >= p.Max {
			break
		}
		b *= 2
	}
	if p.Max > 0 {
		b = min(b, p.Max)
	}
	return b / 2
}

func (s *Sim) refused(d *debt) { d.state, d.hold = isRefused, nil }

// done ends a debt with success, and releases what was emitted.
func (s *Sim) done(d *debt, emitted []*message) {
	d.state, d.hold = isDone, nil
	s.release(d.m, emitted)
}

// release makes emitted messages children of m.
func (s *Sim) release(m *message, emitted []*message) {
	for _, child := range emitted {
		child.released = true
		m.children = append(m.children, child)
	}
}
