package penstocktest

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/loop"
)

const (
	credit     = 1024             // deliveries in a mailbox at one time
	maxMessage = 1 << 20          // the runtime's default
	maxEmit    = 16 << 20         // as much as the runtime allows at most
	patience   = 10 * time.Second // for goroutines of Held.Go, in real time
)

// key is the proof that messages are bound by Penstock itself.
var key lend.Key

// Harness is a plugin at work in a test. Its methods, and those of its results, are called from the goroutine of the test.
type Harness struct {
	t       testing.TB
	plugin  penstock.Plugin
	clock   *clock.Manual
	arena   *arena.Arena
	sources *arena.Account
	actor   *actor.Actor
	feeds   []*feed            // by the plugin's From
	outlet  chan loop.Delivery // what it emits
	links   uint64
	stopped bool

	mu      sync.Mutex
	lives   []*life // by id-1
	log     []*Result
	pending []pendingEmit
	loose   []Emit
	changed chan struct{} // closed when there is something new
}

// New makes and starts the plugin; it is stopped when the test ends. Of p, New is needed. From is the streams that it may get, by default
// one called "in". Emits, Config, Retry, Name and Version count as in a pipeline, with the same defaults.
func New(t testing.TB, p penstock.Plugin) *Harness {
	t.Helper()
	h := &Harness{t: t, plugin: defaults(p), clock: clock.NewManual(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)), changed: make(chan struct{})}
	if p.New == nil {
		t.Fatalf("penstocktest: plugin %q: New is nil: set a function that makes its handler", h.plugin.Name)
	}
	mem, err := arena.New(arena.Config{Strict: true})
	if err != nil {
		t.Fatalf("penstocktest: %v", err)
	}
	h.arena = mem
	h.actor = actor.New(h.config())
	h.outlet = make(chan loop.Delivery, credit*len(h.plugin.From))
	for _, from := range h.plugin.From {
		h.feeds = append(h.feeds, h.feed(from))
	}
	if err := h.actor.Prepare(t.Context()); err != nil {
		t.Fatalf("penstocktest: %v", err)
	}
	t.Cleanup(h.Stop)
	h.pump()
	return h
}

func defaults(p penstock.Plugin) penstock.Plugin {
	if p.Name == "" {
		p.Name = "plugin"
	}
	if p.Version == "" {
		p.Version = "1"
	}
	if len(p.From) == 0 {
		p.From = []string{"in"}
	}
	if p.Retry.Attempts == 0 {
		p.Retry.Attempts = 5
	}
	if p.Retry.Backoff == 0 {
		p.Retry.Backoff = 100 * time.Millisecond
	}
	if p.Retry.Max == 0 {
		p.Retry.Max = max(30*time.Second, p.Retry.Backoff)
	}
	return p
}

// account opens an account that has a whole class of the budget.
func (h *Harness) account(c arena.Class, name string) *arena.Account {
	h.t.Helper()
	a, err := h.arena.Account(c, name, 0, arena.DefaultBudget)
	if err != nil {
		h.t.Fatalf("penstocktest: %v", err)
	}
	return a
}

func (h *Harness) config() actor.Config {
	h.t.Helper()
	p := h.plugin
	var settings json.RawMessage
	if p.Config != nil {
		b, err := json.Marshal(p.Config)
		if err != nil {
			h.t.Fatalf("penstocktest: plugin %q: Config: %v", p.Name, err)
		}
		settings = b
	}
	h.sources = h.account(arena.Sources, "test")
	return actor.Config{
		Name: p.Name, Version: p.Version, New: h.watched, Settings: settings, Spawn: 1024, Strict: true, Emits: p.Emits,
		MaxMessage: maxMessage, MaxEmit: maxEmit, EmitMemory: h.account(arena.Emits, p.Name),
		HoldMemory: h.account(arena.Evacuation, "messages that stay"), Arena: h.arena, Hash: hash, Places: credit * len(p.From),
		Clock: h.clock, Logger: slog.New(slog.NewTextHandler(h.t.Output(), nil)), Link: func() uint64 { h.links++; return h.links },
		Orphan: func(string) (*loop.Lane, error) { return h.feeds[0].driver.Lane(0), nil },
		Sleep:  func(context.Context, clock.Clock, time.Duration) bool { return false },
	}
}

func hash(key []byte) uint64 {
	f := fnv.New64a()
	f.Write(key)
	return max(f.Sum64(), 1)
}

// feed is one of the streams that the plugin gets, with a loop of its own. It is the world of that loop.
type feed struct {
	h      *Harness
	stream string
	driver *loop.Driver
	graph  loop.Graph
}

var _ loop.World = (*feed)(nil)

// feed makes a loop with two consumers: the plugin, and one that gets all that it emits.
func (h *Harness) feed(stream string) *feed {
	p := h.plugin
	f := &feed{h: h, stream: stream, graph: loop.Graph{Streams: []loop.Stream{{Name: stream, Consumers: []loop.ConsumerID{0}}}}}
	handler := loop.Consumer{
		Name: p.Name, Mailbox: 1 << 40, Items: credit, Bytes: 1 << 40, Epoch: 1,
		Retry: loop.RetryPolicy{Attempts: max(p.Retry.Attempts, 0), Backoff: loop.TicksOf(p.Retry.Backoff), Max: loop.TicksOf(p.Retry.Max)},
	}
	for _, e := range p.Emits {
		handler.Emits = append(handler.Emits, loop.StreamID(len(f.graph.Streams)))
		f.graph.Streams = append(f.graph.Streams, loop.Stream{Name: e, Consumers: []loop.ConsumerID{1}})
	}
	f.graph.Consumers = []loop.Consumer{handler, {Name: "test", Mailbox: 1 << 40, Items: credit, Bytes: 1 << 40, Epoch: 1}}
	all := loop.Window{Messages: 1 << 40, Bytes: 1 << 50}
	f.driver = loop.NewDriver(loop.DriverConfig{
		Core: loop.Config{
			Graph: f.graph, Window: all, Open: all, NewBatch: h.arena.NewBatch, Rand: rand.New(rand.NewPCG(1, 2)), Late: 1 << 50,
		},
		Mailboxes: []chan<- loop.Delivery{h.actor.Mailbox(), h.outlet}, World: f, Clock: h.clock,
		Evacuation: h.account(arena.Evacuation, "messages of "+stream), Observe: h.observe,
	})
	h.actor.Attach(f.driver.Lane(0))
	return f
}

// Now is where the virtual time stands.
func (h *Harness) Now() time.Time { return h.clock.Now() }

// Send gives the plugin a message and returns the first verdict on it: what Handle returned, or that the message is held.
func (h *Harness) Send(m Message) Result {
	h.t.Helper()
	return h.SendAll(m)[0]
}

// SendAll gives the plugin messages of one stream as one batch, and returns the first verdict on each. A plugin with HandleBatch sees
// them together if there are at least two.
func (h *Harness) SendAll(ms ...Message) []Result {
	h.t.Helper()
	if len(ms) == 0 {
		h.t.Fatalf("penstocktest: SendAll needs a message")
	}
	if h.stopped {
		h.t.Fatalf("penstocktest: message %q sent to plugin %q, which has been stopped", short(ms[0].Payload), h.plugin.Name)
	}
	f := h.feeds[0]
	if s := ms[0].Stream; s != "" {
		i := slices.Index(h.plugin.From, s)
		if i < 0 {
			h.t.Fatalf("penstocktest: message %q is of stream %q, which plugin %q does not get: add it to From, now %q",
				short(ms[0].Payload), s, h.plugin.Name, h.plugin.From)
		}
		f = h.feeds[i]
	}
	b, lives := h.batch(f, ms)
	f.driver.Arrive(b)
	h.pump()
	out := make([]Result, len(lives))
	for i, l := range lives {
		out[i] = h.result(l, 0)
	}
	return out
}

// batch puts messages in memory as a source does.
func (h *Harness) batch(f *feed, ms []Message) (*arena.Batch, []*life) {
	h.t.Helper()
	var mem []byte
	b := h.arena.NewBatch()
	var lives []*life
	for i, m := range ms {
		if m.Stream != ms[0].Stream && m.Stream != "" && m.Stream != f.stream {
			h.t.Fatalf("penstocktest: messages of streams %q and %q in one batch: a batch is of one stream", f.stream, m.Stream)
		}
		frame := arena.Frame{Off: uint32(len(mem)), Len: uint32(len(m.Payload))}
		mem = append(mem, m.Payload...)
		frame.KeyOff, frame.KeyLen = uint32(len(mem)), uint32(len(m.Key))
		mem = append(mem, m.Key...)
		frame.HdrOff = uint32(len(mem))
		for _, x := range m.Headers {
			mem = arena.AppendHeader(mem, x.Name, []byte(x.Value))
		}
		frame.HdrLen = uint32(len(mem)) - frame.HdrOff
		l := h.life(m, i)
		lives = append(lives, l)
		b.Frames, b.Receipts, b.Hashes = append(b.Frames, frame), append(b.Receipts, l.id), append(b.Hashes, l.id)
	}
	slab, err := h.sources.LeaseSized(max(len(mem), 1))
	if err != nil {
		h.t.Fatalf("penstocktest: message %q: %v", short(ms[0].Payload), err)
	}
	copy(slab.Bytes(), mem)
	b.Slab = slab
	return b, lives
}

func (h *Harness) life(m Message, pos int) *life {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &life{h: h, id: uint64(len(h.lives) + 1), pos: pos, message: m}
	h.lives = append(h.lives, l)
	return l
}

// Advance lets time go on by d: what has become due on the way comes again, leases lapse, the plugin's own timers fire. It returns the
// verdicts that were given meanwhile, in their order.
func (h *Harness) Advance(d time.Duration) []Result {
	h.t.Helper()
	h.pump()
	h.mu.Lock()
	from := len(h.log)
	h.mu.Unlock()
	end := h.clock.Now().Add(d)
	for {
		at, ok := h.clock.Next()
		if !ok || at.After(end) {
			break
		}
		h.clock.Advance(max(at.Sub(h.clock.Now()), 0))
		h.pump()
	}
	h.clock.Advance(end.Sub(h.clock.Now()))
	h.pump()
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Result
	for _, r := range h.log[from:] {
		out = append(out, *r)
	}
	return out
}

// Emits is what the plugin has emitted without a parent, by Env.Emit, since the last call.
func (h *Harness) Emits() []Emit {
	h.pump()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.loose
	h.loose = nil
	return out
}

// Stop stops the plugin, as at the end of a pipeline: goroutines of Held.Go are cancelled and waited for, and Stop of the handler is
// called. An error of it fails the test. The end of the test stops what has not been stopped.
func (h *Harness) Stop() {
	h.t.Helper()
	if h.stopped {
		return
	}
	h.pump()
	for _, f := range h.feeds { // what comes back stays with the loop
		f.driver.Lane(0).Post(loop.Pause, &loop.Detail{After: 1})
	}
	h.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.actor.Stop(ctx); err != nil {
		h.t.Errorf("penstocktest: stopping plugin %q: %v", h.plugin.Name, err)
	}
	h.pump()
	for _, f := range h.feeds {
		f.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{After: 1}})
	}
	h.clock.Advance(2 * time.Millisecond)
	_ = h.arena.Close() // what is held or unsettled keeps its memory; that is no fault of the plugin's
}
