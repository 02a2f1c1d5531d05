package penstock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/source"
)

// Runtime is a pipeline that can be run. Its methods may be called concurrently.
type Runtime struct {
	p         Pipeline
	arena     *arena.Arena
	consumers []*consumer // plugins in an order in which no one feeds an earlier one, then sinks
	intakes   []*intake
	letters   *letters
	seed      maphash.Seed
	link      atomic.Uint64

	mu      sync.Mutex
	started bool
	final   *Summary // once Run has returned
}

// consumer is a plugin or a sink.
type consumer struct {
	name    string
	from    []string
	emits   []string
	order   bool
	retry   RetryPolicy
	mailbox Mailbox
	actor   *actor.Actor // of a plugin
	sink    *actor.Sink  // of a sink
}

// Errors of a Runtime.
var (
	// ErrRan says that Run was called before: a Runtime runs once.
	ErrRan = errors.New("the pipeline has been run: make another Runtime")
	// ErrNoPlugin says that there is no plugin of that name.
	ErrNoPlugin = errors.New("no such plugin")
)

// New checks a pipeline and prepares it: nothing is opened, started or read before Run. The error is a [*ConfigError] with everything that
// is wrong.
func New(p Pipeline) (*Runtime, error) {
	p = p.withDefaults()
	if err := p.check(); err != nil {
		return nil, err
	}
	mem, err := arena.New(arena.Config{Budget: p.Memory, SlabSize: slabSize, Strict: p.Strict})
	if err != nil {
		return nil, &ConfigError{Problems: []error{err}}
	}
	rt := &Runtime{p: p, arena: mem, seed: maphash.MakeSeed()}
	rt.letters = &letters{rt: rt, store: p.DeadLetters, wake: make(chan struct{}, 1)}
	if err := rt.wire(); err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	return rt, nil
}

func (rt *Runtime) hash(key []byte) uint64 {
	return max(maphash.Bytes(rt.seed, key), 1) // 0 stands for no key
}

// wire makes actors, sinks and loops, and connects them.
func (rt *Runtime) wire() error {
	for _, g := range sorted(rt.p.Plugins) {
		rt.consumers = append(rt.consumers, &consumer{
			name: g.Name, from: g.From, emits: g.Emits, order: g.ByKey, retry: g.Retry, mailbox: g.Mailbox,
		})
	}
	for _, s := range rt.p.Sinks {
		rt.consumers = append(rt.consumers, &consumer{
			name: s.Name, from: s.From, retry: s.Retry, mailbox: Mailbox{Bytes: defaultMailbox},
		})
	}
	loops := rt.reached()
	hold, err := rt.arena.Account(arena.Evacuation, "held messages", 0, rt.p.Memory)
	if err != nil {
		return err
	}
	for i, g := range sorted(rt.p.Plugins) {
		if err := rt.addPlugin(rt.consumers[i], g, hold, loops[i]); err != nil {
			return err
		}
	}
	for i, s := range rt.p.Sinks {
		at := len(rt.p.Plugins) + i
		c := rt.consumers[at]
		c.sink = actor.NewSink(actor.SinkConfig{
			Name: s.Name, Sink: s.To, Flush: actor.FlushPolicy{Messages: 10_000, Bytes: 1 << 20, Every: s.Flush},
			Places: credit(loops[at]) * max(loops[at], 1), Clock: rt.p.Clock, Logger: rt.p.Logger, Env: rt.env(s.Name, ""),
		})
	}
	for _, s := range rt.p.Sources {
		if err := rt.addSource(s, loops); err != nil {
			return err
		}
	}
	return nil
}

// sorted puts plugins in an order in which each comes after all that feed it. There are no cycles.
func sorted(plugins []Plugin) []Plugin {
	out := make([]Plugin, 0, len(plugins))
	placed := make([]bool, len(plugins))
	for len(out) < len(plugins) {
		for i, g := range plugins {
			if placed[i] {
				continue
			}
			ready := true
			for j, other := range plugins {
				if !placed[j] && i != j && feeds(other, g.From) {
					ready = false
					break
				}
			}
			if ready {
				placed[i] = true
				out = append(out, g)
			}
		}
	}
	return out
}

func (rt *Runtime) addPlugin(c *consumer, g Plugin, hold *arena.Account, loops int) error {
	limit, perCall := rt.p.emitShare(g)
	emits, err := rt.arena.Account(arena.Emits, g.Name, 0, limit)
	if err != nil {
		return err
	}
	settings, err := json.Marshal(g.Config)
	if err != nil {
		return fmt.Errorf("plugin %q: Config: %w", g.Name, err)
	}
	if g.Config == nil {
		settings = nil
	}
	c.actor = actor.New(actor.Config{
		Name: g.Name, Version: g.Version, New: g.New, Settings: settings, Workers: g.Workers, Order: g.ByKey, Timeout: max(g.Timeout, 0),
		Spawn: 1024, Strict: rt.p.Strict, Emits: g.Emits, MaxMessage: rt.p.MaxMessage, MaxEmit: perCall, EmitMemory: emits, HoldMemory: hold,
		Restart: actor.Restart{Backoff: 100 * time.Millisecond, Max: 10 * time.Second, Crashes: maxCrashes, Within: time.Minute},
		Arena:   rt.arena, Hash: rt.hash, Places: credit(loops) * max(loops, 1), Clock: rt.p.Clock,
		Logger: rt.p.Logger, Link: func() uint64 { return rt.link.Add(1) },
		Orphan: func(stream string) (*loop.Lane, error) { return rt.home(c, stream) },
	})
	return nil
}

// home is the lane by which a plugin's messages without a parent go: that of the first source that reaches it.
func (rt *Runtime) home(c *consumer, stream string) (*loop.Lane, error) {
	for _, in := range rt.intakes {
		for id, i := range in.graph.consumers {
			if rt.consumers[i] == c {
				return in.driver.Lane(loop.ConsumerID(id)), nil
			}
		}
	}
	return nil, fmt.Errorf("emit to %q: no source reaches the plugin", stream)
}

func (rt *Runtime) env(name, stream string) source.Env {
	return source.Env{
		Name: name, Stream: stream, DataDir: rt.p.Data, Logger: rt.p.Logger, Clock: rt.p.Clock, MaxBytes: rt.p.MaxMessage, MaxBatch: 256,
	}
}

func (rt *Runtime) addSource(s Source, loops []int) error {
	class := rt.p.Memory * sourceTenths / 10
	n := int64(len(rt.p.Sources))
	share := class / n / 2
	limit := max(class/2, share)
	if n == 1 {
		limit = class
	}
	account, err := rt.arena.Account(arena.Sources, s.Name, share, limit)
	if err != nil {
		return err
	}
	// What must stay has memory by source too, so that one whose messages stay long leaves room for the exceptions of the others.
	stays := rt.p.Memory / 10 / (2 * n)
	stay, err := rt.arena.Account(arena.Evacuation, "messages of "+s.Name+" that stay", stays-stays%slabSize, rt.p.Memory)
	if err != nil {
		return err
	}
	in := &intake{
		rt: rt, spec: s, graph: rt.reach(s.Name, loops), account: account, env: rt.env(s.Name, s.Name), stopped: make(chan struct{}),
		drained: make(chan int, 1), epochs: map[uint32]uint32{}, last: map[uint32]uint32{},
	}
	var mailboxes []chan<- loop.Delivery
	for _, i := range in.graph.consumers {
		if c := rt.consumers[i]; c.actor != nil {
			mailboxes = append(mailboxes, c.actor.Mailbox())
		} else {
			mailboxes = append(mailboxes, c.sink.Mailbox())
		}
	}
	in.driver = loop.NewDriver(loop.DriverConfig{
		Core: loop.Config{
			Graph: in.graph.Graph, Window: loop.Window{Messages: s.Limit, Bytes: limit}, Open: loop.Window{Messages: 32768, Bytes: 8 << 20},
			NewBatch: rt.arena.NewBatch, Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), Late: loop.TicksOf(lateTick),
		},
		Mailboxes: mailboxes, World: in, Clock: rt.p.Clock, Evacuation: stay,
	})
	for id, i := range in.graph.consumers {
		if a := rt.consumers[i].actor; a != nil {
			a.Attach(in.driver.Lane(loop.ConsumerID(id)))
		}
	}
	rt.intakes = append(rt.intakes, in)
	return nil
}

// maxCrashes within a minute quarantine a plugin. It is well above the default attempts at one message, so that a message that always
// panics is buried before that.
const maxCrashes = 20

// lateTick is how late the time may come before leases are lengthened by it: a machine that was paused has let nobody work.
const lateTick = 200 * time.Millisecond

// Swap replaces a plugin by another version under load: nothing is lost or reordered, and no message is handled by two versions at a time.
// If the new version does not start, the old one has never stopped serving; if a later step fails, it goes on after the pause.
func (rt *Runtime) Swap(ctx context.Context, plugin string, v Version) (Swapped, error) {
	c, err := rt.plugin(plugin)
	if err != nil {
		return Swapped{}, err
	}
	return c.actor.Swap(ctx, v)
}

// Resume starts a plugin again that was quarantined after too many panics. It does nothing to one that was not.
func (rt *Runtime) Resume(plugin string) error {
	c, err := rt.plugin(plugin)
	if err == nil {
		c.actor.Resume()
	}
	return err
}

// Check asks every plugin whether it could serve.
func (rt *Runtime) Check(ctx context.Context) error {
	var errs []error
	for _, c := range rt.consumers {
		if c.actor != nil {
			errs = append(errs, c.actor.Check(ctx))
		}
	}
	return errors.Join(errs...)
}

func (rt *Runtime) plugin(name string) (*consumer, error) {
	for _, c := range rt.consumers {
		if c.actor != nil && c.name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("plugin %q: %w", name, ErrNoPlugin)
}
