package actor_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const slabSize = 64 << 10

// part is a plugin, or a sink, of a rig. The stream of the source is "in".
type part struct {
	name    string
	from    []string
	new     func() (plugin.Handler, error)
	handle  plugin.HandlerFunc // instead of new
	sink    sink.Sink          // instead of a handler
	flush   actor.FlushPolicy
	cfg     actor.Config // what is not zero here
	emits   []string
	emit    int64 // bytes of memory for emits; 0 for enough
	drop    int64 // mailbox that drops what is oldest
	retry   loop.RetryPolicy
	items   int // credit
	timeout time.Duration
}

// letter is a message that was rejected.
type letter struct {
	payload, plugin, cause string
	attempts               int
}

// rig runs parts on a real arena and a real loop. It keeps account of what its source is told.
type rig struct {
	t       *testing.T
	arena   *arena.Arena
	in      *arena.Account
	hold    *arena.Account
	driver  *loop.Driver
	graph   loop.Graph
	parts   []part
	actors  map[string]*actor.Actor
	sinks   map[string]*actor.Sink
	links   atomic.Uint64
	drained chan int
	log     *logs

	mu       sync.Mutex
	sent     uint64
	settled  []uint64
	returned int
	buried   []letter
	refuse   error // of the dead letters
}

var _ loop.World = (*rig)(nil)

// newRig starts parts, the last ones first. Each names its streams; the graph is made from them.
func newRig(t *testing.T, parts ...part) *rig {
	t.Helper()
	r := &rig{
		t: t, parts: parts, actors: map[string]*actor.Actor{}, sinks: map[string]*actor.Sink{}, drained: make(chan int, 1), log: &logs{},
	}
	var err error
	if r.arena, err = arena.New(arena.Config{Budget: 64 << 20, SlabSize: slabSize, Strict: slices.ContainsFunc(parts, strict)}); err != nil {
		t.Fatal(err)
	}
	r.in, r.hold = r.account(arena.Sources, "in", 0), r.account(arena.Evacuation, "hold", 0)
	ids := map[string]loop.StreamID{}
	for i, s := range r.streams() {
		ids[s] = loop.StreamID(i)
		r.graph.Streams = append(r.graph.Streams, loop.Stream{Name: s})
	}
	for i, p := range parts {
		if p.retry == (loop.RetryPolicy{}) {
			p.retry = loop.RetryPolicy{Backoff: 10, Max: 10}
		}
		c := loop.Consumer{
			Name: p.name, Order: p.cfg.Order, Mailbox: 8 << 20, Items: credit(p.items), Bytes: 8 << 20, Retry: p.retry, Epoch: 1,
		}
		if p.drop > 0 {
			c.Overflow, c.Mailbox = loop.DropOldest, p.drop
		}
		for _, e := range p.emits {
			c.Emits = append(c.Emits, ids[e])
		}
		for _, s := range p.from {
			stream := &r.graph.Streams[ids[s]]
			stream.Consumers = append(stream.Consumers, loop.ConsumerID(i))
		}
		r.graph.Consumers = append(r.graph.Consumers, c)
	}
	r.run()
	return r
}

func strict(p part) bool { return p.cfg.Strict }

func (r *rig) streams() []string {
	names := []string{"in"}
	for _, p := range r.parts {
		for _, s := range append(slices.Clone(p.from), p.emits...) {
			if !slices.Contains(names, s) {
				names = append(names, s)
			}
		}
	}
	return names
}

func (r *rig) account(c arena.Class, name string, limit int64) *arena.Account {
	ac, err := r.arena.Account(c, name, 0, max(limit, 0))
	if err != nil {
		r.t.Fatal(err)
	}
	return ac
}

func (r *rig) run() {
	var mailboxes []chan<- loop.Delivery
	for i, p := range r.parts {
		places := r.graph.Consumers[i].Items
		if p.sink != nil {
			s := actor.NewSink(actor.SinkConfig{
				Name: p.name, Sink: p.sink, Flush: p.flush, Places: places, Clock: clock.System{}, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
				Env: sink.Env{Name: p.name},
			})
			r.sinks[p.name] = s
			mailboxes = append(mailboxes, s.Mailbox())
			continue
		}
		a := actor.New(r.config(p, places))
		r.actors[p.name] = a
		mailboxes = append(mailboxes, a.Mailbox())
	}
	r.driver = loop.NewDriver(loop.DriverConfig{
		Core: loop.Config{
			Graph: r.graph, Window: loop.Window{Messages: 1 << 20, Bytes: 1 << 30}, Open: loop.Window{Messages: 1 << 20, Bytes: 1 << 30},
			NewBatch: r.arena.NewBatch, Rand: rand.New(rand.NewPCG(1, 2)), Late: 200,
		},
		Mailboxes: mailboxes, World: r, Clock: clock.System{}, Evacuation: r.hold,
	})
	for i := len(r.parts) - 1; i >= 0; i-- {
		name := r.parts[i].name
		err := error(nil)
		if a := r.actors[name]; a != nil {
			a.Attach(r.driver.Lane(loop.ConsumerID(i)))
			err = a.Start(r.t.Context())
		} else {
			r.sinks[name].Attach(r.driver.Lane(loop.ConsumerID(i)))
			err = r.sinks[name].Start(r.t.Context())
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) config(p part, places int) actor.Config {
	cfg := p.cfg
	cfg.Name, cfg.Places, cfg.Emits, cfg.Timeout = p.name, places, p.emits, p.timeout
	if cfg.New = p.new; p.new == nil {
		cfg.New = func() (plugin.Handler, error) { return p.handle, nil }
	}
	if cfg.Version == "" {
		cfg.Version = "1"
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = 1 << 20
	}
	if cfg.MaxEmit == 0 {
		cfg.MaxEmit = 4 << 20
	}
	if cfg.Spawn == 0 {
		cfg.Spawn = 16
	}
	if cfg.Restart == (actor.Restart{}) {
		cfg.Restart = actor.Restart{Backoff: 100 * time.Millisecond, Max: 10 * time.Second, Crashes: 5, Within: time.Minute}
	}
	limit := p.emit
	if limit == 0 {
		limit = 12 << 20
	}
	cfg.EmitMemory, cfg.HoldMemory, cfg.Arena = r.account(arena.Emits, p.name, limit), r.hold, r.arena
	cfg.Hash, cfg.Clock, cfg.Logger = hash, clock.System{}, slog.New(slog.NewTextHandler(r.log, nil))
	cfg.Link = func() uint64 { return r.links.Add(1) }
	cfg.Orphan = func(string) (*loop.Lane, error) {
		i := slices.IndexFunc(r.parts, func(q part) bool { return q.name == p.name })
		return r.driver.Lane(loop.ConsumerID(i)), nil
	}
	return cfg
}

func hash(key []byte) uint64 {
	h := fnv.New64a()
	h.Write(key)
	return h.Sum64()
}

// send gives the loop one batch. A payload up to the first colon is its key.
func (r *rig) send(payloads ...string) {
	r.t.Helper()
	slab, err := r.in.LeaseSized(max(len(strings.Join(payloads, "")), 1))
	if err != nil {
		r.t.Fatal(err)
	}
	b := r.arena.NewBatch()
	b.Slab = slab
	at := 0
	r.mu.Lock()
	for _, p := range payloads {
		f := arena.Frame{Off: uint32(at), Len: uint32(copy(slab.Bytes()[at:], p))}
		h := uint64(0)
		if i := strings.Index(p, ":"); i > 0 {
			f.KeyOff, f.KeyLen = f.Off, uint32(i)
			h = hash([]byte(p[:i]))
		}
		at += len(p)
		b.Frames, b.Hashes = append(b.Frames, f), append(b.Hashes, h)
		r.sent++
		b.Receipts = append(b.Receipts, r.sent)
	}
	r.mu.Unlock()
	r.driver.Arrive(b)
}

// Settle implements loop.World.
func (r *rig) Settle(s loop.Settlement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Returned {
		r.returned += len(s.Receipts)
		return
	}
	r.settled = append(r.settled, s.Receipts...)
}

// Bury implements loop.World.
func (r *rig) Bury(u loop.UnitID, c loop.ConsumerID, b *arena.Batch, l loop.Letter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.refuse
	if err == nil {
		r.buried = append(r.buried, letter{string(b.Payload(0)), r.parts[c].name, fmt.Sprint(l.Cause), l.Attempts})
	}
	go r.driver.Post(loop.Event{Kind: loop.Buried, Unit: u, Detail: &loop.Detail{Err: err}})
}

// Lapse implements loop.World.
func (r *rig) Lapse(h loop.Handle) bool { return actor.Lapse(h) }

// LinkSettled implements loop.World.
func (r *rig) LinkSettled(link uint64) {
	r.driver.Post(loop.Event{Kind: loop.LinkSettled, Detail: &loop.Detail{Link: link}})
}

// Quiet implements loop.World.
func (r *rig) Quiet(c loop.ConsumerID, pause uint64, count int) {
	if s := r.sinks[r.parts[c].name]; s != nil {
		s.Quiet(pause)
		return
	}
	r.actors[r.parts[c].name].Quiet(pause, count)
}

// Retired implements loop.World.
func (r *rig) Retired(loop.ConsumerID) {}

// Drained implements loop.World.
func (r *rig) Drained(count int) { r.drained <- count }

// done waits until everything that could happen without time passing has happened, and counts what is settled.
func (r *rig) done() int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.settled)
}

// letters are the dead ones so far.
func (r *rig) letters() []letter {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.buried)
}

func (r *rig) counts(name string) loop.ConsumerCounts {
	synctest.Wait()
	i := slices.IndexFunc(r.parts, func(p part) bool { return p.name == name })
	return r.driver.Counts().Consumers[i]
}

// finish drains and stops, and checks that every message is settled once and all memory is back.
func (r *rig) finish() {
	r.t.Helper()
	r.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{}})
	<-r.drained
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.settled)
	for i, s := range r.settled {
		if s != uint64(i+1) {
			r.t.Fatalf("settled %d of %d messages, and at place %d is %d", len(r.settled), r.sent, i, s)
		}
	}
	if len(r.settled) != int(r.sent) {
		r.t.Fatalf("settled %d of %d messages", len(r.settled), r.sent)
	}
}

// stop stops all parts and checks that all memory is back.
func (r *rig) stop() {
	r.t.Helper()
	for _, p := range r.parts {
		err := error(nil)
		if a := r.actors[p.name]; a != nil {
			err = a.Stop(context.Background())
		} else {
			err = r.sinks[p.name].Stop(context.Background())
		}
		if err != nil {
			r.t.Error(err)
		}
	}
	synctest.Wait()
	if err := r.arena.Close(); err != nil {
		r.t.Error(err)
	}
}

// logs is what was logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), s)
}

// seen is what a handler was shown, in order. Its methods may be called concurrently.
type seen struct {
	mu   sync.Mutex
	list []string
}

func (s *seen) add(x string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, x)
}

func (s *seen) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// handle notes the payload.
func (s *seen) handle(_ context.Context, m *plugin.Message) error {
	s.add(string(m.Payload()))
	return nil
}

func (s *seen) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := s.all(); !slices.Equal(got, want) {
		t.Errorf("seen %q, want %q", got, want)
	}
}

// sorted is want for an order that is not promised.
func (s *seen) sorted(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	got := s.all()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("seen %q, want %q", got, want)
	}
}

// numbered are n payloads with keys k0 to k(keys-1).
func numbered(from, n, keys int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("k%d:%d", (from+i)%keys, from+i)
	}
	return out
}

func credit(items int) int {
	if items == 0 {
		return 16
	}
	return items
}

// drain lets the loop go on for that long.
func drain(after loop.Ticks) loop.Event {
	return loop.Event{Kind: loop.Drain, Detail: &loop.Detail{After: after}}
}
