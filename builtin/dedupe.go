package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// DedupeSettings are the settings of a dedupe.
type DedupeSettings struct {
	By      string        `yaml:"by" jsonschema:"example=msg.id" jsonschema_description:"What makes two messages the same: an expression, a field such as $.id, or payload for all of the payload. A message for which it is empty or null is like no other."`
	Window  time.Duration `yaml:"window" jsonschema:"example=10m" jsonschema_description:"How long a message is remembered, from when it was forwarded."`
	MaxKeys int           `yaml:"max_keys" jsonschema:"minimum=1,maximum=100000000" jsonschema_description:"The most messages that are remembered, in about 80 bytes each. Beyond it the oldest is forgotten before its time."`
	OnError string        `yaml:"on_error" jsonschema:"enum=reject,enum=drop,enum=pass" jsonschema_description:"What becomes of a message for which by has no value: reject sends it to the dead letters with the reason, drop counts it and is done with it, pass forwards it."`
}

const (
	byPayload = "payload"
	mostKeys  = 100_000_000
)

// Dedupe is the kind of plugin that forwards the first of messages that are the same.
func Dedupe() kind.Kind {
	return kind.Plugin(kind.About{
		Name: "dedupe", Summary: "Forwards the first of messages that are the same, within a window of time.",
		Doc: "What has been forwarded is remembered in memory: a reload or a swap keeps it, a crash does not, and what comes again " +
			"after one is forwarded again.",
		Example: "dedupe: { by: $.id, window: 10m }\nfrom: flights\nemits: fresh\n",
	}, DedupeSettings{By: byPayload, Window: 10 * time.Minute, MaxKeys: 100_000, OnError: reject}, newDeduper)
}

// Check implements kind.Checked.
func (s DedupeSettings) Check() []kind.Problem {
	_, p := s.compile()
	return p
}

func (s DedupeSettings) compile() (*expr.Program, problems) {
	var p problems
	p.choice("on_error", s.OnError, reject, drop, pass)
	if s.Window <= 0 {
		p.add("window", "%v is not a window: write how long a message is remembered, as in 10m", s.Window)
	}
	if s.MaxKeys < 1 || s.MaxKeys > mostKeys {
		p.add("max_keys", "%d is not between 1 and %d", s.MaxKeys, mostKeys)
	}
	if s.By == byPayload || s.By == "" {
		return nil, p
	}
	return p.value("by", field(s.By)), p
}

func newDeduper(s DedupeSettings, env kind.Env) (func() (plugin.Handler, error), error) {
	stream, err := onlyStream("dedupe", env)
	if err != nil {
		return nil, err
	}
	by, p := s.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	return func() (plugin.Handler, error) {
		return &deduper{
			tally: tally{kind: "dedupe"}, by: by, stream: stream, onError: s.OnError,
			memory: memory{window: s.Window, most: s.MaxKeys, seen: map[sum]struct{}{}},
		}, nil
	}, nil
}

type deduper struct {
	tally
	inputs
	by      *expr.Program // nil: the payload
	stream  string
	onError string
	clock   plugin.Clock
	start   time.Time

	mu     sync.Mutex // held while a message is forwarded: until it is, nobody may take another for its duplicate
	memory memory
}

var (
	_ plugin.BatchHandler = (*deduper)(nil)
	_ plugin.Exporter     = (*deduper)(nil)
	_ plugin.Importer     = (*deduper)(nil)
)

// Start implements plugin.Starter.
func (d *deduper) Start(ctx context.Context, env plugin.Env) error {
	d.clock, d.start = env.Clock, env.Clock.Now()
	return d.tally.Start(ctx, env)
}

// now is the time since the start: the machine's clock may be set, this goes on evenly.
func (d *deduper) now() time.Duration { return d.clock.Now().Sub(d.start) }

// Handle implements plugin.Handler.
func (d *deduper) Handle(_ context.Context, m *plugin.Message) error { return d.handle(m, d.now()) }

// HandleBatch implements plugin.BatchHandler: the clock is read once.
func (d *deduper) HandleBatch(_ context.Context, ms *plugin.Messages) error {
	now := d.now()
	for i := range ms.Len() {
		if err := d.handle(ms.At(i), now); err != nil {
			ms.Fail(i, err)
		}
	}
	return nil
}

func (d *deduper) handle(m *plugin.Message, now time.Duration) error {
	id, ok, err := d.sum(m)
	if err != nil {
		return d.fails(m, d.onError, d.stream, "by", err)
	}
	if !ok {
		return m.Forward(d.stream)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// A message that comes again may be remembered from its own earlier attempt.
	if d.memory.has(id, now) && m.Attempt() == 1 {
		return d.drop()
	}
	if err := m.Forward(d.stream); err != nil {
		return err
	}
	d.memory.add(id, now)
	return nil
}

// sum is what a message is known by; ok is false if it is like no other.
func (d *deduper) sum(m *plugin.Message) (id sum, ok bool, err error) {
	if d.by == nil {
		return sumOf(m.Payload()), true, nil
	}
	in := d.get(m)
	defer d.put(in)
	if in.key, err = d.by.AppendText(in.key[:0], &in.Input); err != nil || len(in.key) == 0 {
		return id, false, err
	}
	return sumOf(in.key), true, nil
}

// Export implements plugin.Exporter. What is remembered comes with the time that is left to it.
func (d *deduper) Export(context.Context) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory.export(d.now()), nil
}

// Import implements plugin.Importer.
func (d *deduper) Import(_ context.Context, state []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory.restore(state, d.now())
}

// sum is 128 bits of a hash for which nobody can make two messages.
type sum [16]byte

func sumOf(b []byte) sum {
	h := sha256.Sum256(b)
	return sum(h[:16])
}

// memory is the sums of the last window. Entries lie in a ring in the order in which they were added, which is the order in which they
// expire.
type memory struct {
	window time.Duration
	most   int
	seen   map[sum]struct{}
	ring   []remembered
	first  int // the oldest, in ring
	n      int
}

type remembered struct {
	id    sum
	until time.Duration
}

// has says whether id is remembered, after forgetting what has expired.
func (m *memory) has(id sum, now time.Duration) bool {
	for m.n > 0 && m.ring[m.first].until <= now {
		m.forget()
	}
	_, ok := m.seen[id]
	return ok
}

func (m *memory) forget() {
	delete(m.seen, m.ring[m.first].id)
	m.first = (m.first + 1) % len(m.ring)
	m.n--
}

// add remembers id, unless it is remembered already.
func (m *memory) add(id sum, now time.Duration) { m.put(id, now+m.window) }

func (m *memory) put(id sum, until time.Duration) {
	if _, ok := m.seen[id]; ok {
		return
	}
	if m.n == m.most {
		m.forget()
	}
	if m.n == len(m.ring) {
		grown := make([]remembered, min(max(2*m.n, 64), m.most))
		k := copy(grown, m.ring[m.first:])
		copy(grown[k:], m.ring[:m.first])
		m.ring, m.first = grown, 0
	}
	m.ring[(m.first+m.n)%len(m.ring)] = remembered{id, until}
	m.n++
	m.seen[id] = struct{}{}
}

// The exported form: a byte for the version, then for each entry, the oldest first, the sum and the nanoseconds that are left to it.
const (
	stateVersion = 1
	entrySize    = len(sum{}) + 8
)

var errState = errors.New("it is not what a dedupe exports")

func (m *memory) export(now time.Duration) []byte {
	out := append(make([]byte, 0, 1+m.n*entrySize), stateVersion)
	for i := range m.n {
		e := &m.ring[(m.first+i)%len(m.ring)]
		if e.until > now {
			out = append(out, e.id[:]...)
			out = binary.LittleEndian.AppendUint64(out, uint64(e.until-now))
		}
	}
	return out
}

// restore takes over what another has exported: of what is more than it may remember, the last.
func (m *memory) restore(state []byte, now time.Duration) error {
	if len(state) == 0 || state[0] != stateVersion || (len(state)-1)%entrySize != 0 {
		return fmt.Errorf("dedupe: state of %d bytes: %w", len(state), errState)
	}
	state = state[1:]
	if over := len(state) - m.most*entrySize; over > 0 {
		state = state[over:]
	}
	last := now
	for ; len(state) > 0; state = state[entrySize:] {
		left := min(binary.LittleEndian.Uint64(state[len(sum{}):]), uint64(m.window))
		last = max(last, now+time.Duration(left)) // in a ring no entry outlives one that comes after it
		m.put(sum(state[:len(sum{})]), last)
	}
	return nil
}
