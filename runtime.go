package penstock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
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
	p       Pipeline // as it was made; what of it may change is in top
	arena   *arena.Arena
	hold    *arena.Account
	top     atomic.Pointer[topology]
	letters *letters
	seed    maphash.Seed
	link    atomic.Uint64

	changing sync.RWMutex  // written by a reload, and by the end of Run; read by swaps
	changed  chan struct{} // one token: a source has ended, or a reload has
	serving  chan struct{} // closed when all has started

	mu        sync.Mutex
	started   bool
	ctx       context.Context // of Run, while sources run
	running   int             // sources
	reloading bool
	errs      []error  // of sources
	past      Summary  // what sources that were taken out have counted
	final     *Summary // once Run has returned
}

// Errors of a Runtime.
var (
	// ErrRan says that Run was called before: a Runtime runs once.
	ErrRan = errors.New("the pipeline has been run: make another Runtime")
	// ErrNoPlugin says that there is no plugin of that name.
	ErrNoPlugin = errors.New("no such plugin")
	// ErrChanging refuses a swap or a reload while a reload is under way, or the pipeline does not run.
	ErrChanging = errors.New("the pipeline is being loaded anew, or does not run: try again when it does")
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
	rt := &Runtime{p: p, arena: mem, seed: maphash.MakeSeed(), changed: make(chan struct{}, 1), serving: make(chan struct{})}
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
func (rt *Runtime) wire() (err error) {
	if rt.hold, err = rt.arena.Account(arena.Evacuation, "held messages", 0, rt.p.Memory); err != nil {
		return err
	}
	t := &topology{pipeline: rt.p}
	rt.top.Store(t)
	loops := rt.p.sources()
	for _, g := range sorted(rt.p.Plugins) {
		c, err := rt.newPlugin(g, &rt.p, loops[g.Name])
		if err != nil {
			return err
		}
		t.consumers = append(t.consumers, c)
	}
	for _, s := range rt.p.Sinks {
		t.consumers = append(t.consumers, rt.newSink(s, loops[s.Name], false))
	}
	w := settled(t.consumers)
	for _, s := range rt.p.Sources {
		in, err := rt.newIntake(s, &rt.p, w)
		if err != nil {
			return err
		}
		in.attach(0)
		t.intakes = append(t.intakes, in)
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

// newPlugin makes the consumer of a plugin of p that so many sources reach.
func (rt *Runtime) newPlugin(g Plugin, p *Pipeline, loops int) (*consumer, error) {
	c := newConsumer(&g, nil)
	limit, perCall := p.emitShare(g)
	emits, err := rt.arena.Account(arena.Emits, g.Name, 0, limit)
	if err != nil {
		return nil, err
	}
	settings, err := g.settings()
	if err != nil {
		return nil, err
	}
	c.emit, c.loops, c.places = emits, loops, credit(loops)*max(loops, 1)+spare
	c.actor = actor.New(actor.Config{
		Name: g.Name, Version: g.Version, New: g.New, Settings: settings, Workers: g.Workers, Order: g.ByKey, Timeout: max(g.Timeout, 0),
		Spawn: 1024, Strict: rt.p.Strict, Emits: g.Emits, MaxMessage: rt.p.MaxMessage, MaxEmit: perCall, EmitMemory: emits, HoldMemory: rt.hold,
		Restart: actor.Restart{Backoff: 100 * time.Millisecond, Max: 10 * time.Second, Crashes: maxCrashes, Within: 5 * time.Minute},
		Arena:   rt.arena, Hash: rt.hash, Places: c.places - spare, Spare: spare, Clock: rt.p.Clock,
		Logger: rt.p.Logger, Link: func() uint64 { return rt.link.Add(1) },
		Orphan: func(stream string) (*loop.Lane, error) { return rt.home(c, stream) },
	})
	return c, nil
}

// settings are the plugin's own, as its Starter gets them.
func (g *Plugin) settings() (json.RawMessage, error) {
	if g.Config == nil {
		return nil, nil
	}
	settings, err := json.Marshal(g.Config)
	if err != nil {
		return nil, fmt.Errorf("plugin %q: Config: %w", g.Name, err)
	}
	return settings, nil
}

// newSink makes the consumer of a sink that so many sources reach. takeover says that the pipeline runs already.
func (rt *Runtime) newSink(s Sink, loops int, takeover bool) *consumer {
	env := rt.env(s.Name, "")
	env.Takeover = takeover
	c := newConsumer(nil, &s)
	c.loops, c.places = loops, credit(loops)*max(loops, 1)+spare
	c.to = actor.NewSink(actor.SinkConfig{
		Name: s.Name, Sink: s.To, Flush: actor.FlushPolicy{Messages: 10_000, Bytes: 1 << 20, Every: s.Flush},
		Places: c.places - spare, Spare: spare, Clock: rt.p.Clock, Logger: rt.p.Logger, Env: env,
	})
	return c
}

// home is the lane by which a plugin's messages without a parent go: that of the first source that reaches it.
func (rt *Runtime) home(c *consumer, stream string) (*loop.Lane, error) {
	for _, in := range rt.top.Load().intakes {
		if id := slices.Index(in.graph.Load().consumers, c); id >= 0 {
			return in.driver.Lane(loop.ConsumerID(id)), nil
		}
	}
	return nil, fmt.Errorf("emit to %q: no source reaches the plugin", stream)
}

func (rt *Runtime) env(name, stream string) source.Env {
	return source.Env{
		Name: name, Stream: stream, DataDir: rt.p.Data, Logger: rt.p.Logger, Clock: rt.p.Clock, MaxBytes: rt.p.MaxMessage, MaxBatch: 256,
	}
}

// shares are what each of p's sources is guaranteed and may have of the budget, and what is guaranteed for those of its messages that stay.
func (p *Pipeline) shares() (guaranteed, limit, stay int64) {
	class, n := p.Memory*sourceTenths/10, int64(len(p.Sources))
	guaranteed = class / n / 2
	guaranteed -= guaranteed % slabSize // so that as many others fit in, while a reload puts them in their place
	limit = max(class/2, guaranteed)
	if n == 1 {
		limit = class
	}
	stay = p.Memory / 10 / (2 * n)
	return guaranteed, limit, stay - stay%slabSize
}

// newIntake makes the intake of a source of p, and connects it with the consumers of w.
func (rt *Runtime) newIntake(s Source, p *Pipeline, w *wiring) (*intake, error) {
	guaranteed, limit, stays := p.shares()
	account, err := rt.arena.Account(arena.Sources, s.Name, guaranteed, limit)
	if err != nil {
		return nil, err
	}
	// What must stay has memory by source too, so that one whose messages stay long leaves room for the exceptions of the others.
	stay, err := rt.arena.Account(arena.Evacuation, "messages of "+s.Name+" that stay", stays, rt.p.Memory)
	if err != nil {
		return nil, errors.Join(err, account.Close())
	}
	in := &intake{
		rt: rt, spec: s, account: account, stay: stay, env: rt.env(s.Name, s.Name), stopped: make(chan struct{}), ended: make(chan struct{}),
		drained: make(chan int, 1), epochs: map[uint32]uint32{}, last: map[uint32]uint32{},
	}
	in.key.Store(&s.Key)
	g, err := w.reach(s.Name, nil)
	if err != nil {
		return nil, errors.Join(err, account.Close(), stay.Close())
	}
	in.graph.Store(g)
	var mailboxes []chan<- loop.Delivery
	for _, c := range g.consumers {
		mailboxes = append(mailboxes, c.mail())
	}
	in.driver = loop.NewDriver(loop.DriverConfig{
		Core: loop.Config{
			Graph: g.Graph, Window: loop.Window{Messages: s.Limit, Bytes: limit}, Open: loop.Window{Messages: 32768, Bytes: 8 << 20},
			NewBatch: rt.arena.NewBatch, Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), Late: loop.TicksOf(lateTick),
		},
		Mailboxes: mailboxes, World: in, Clock: rt.p.Clock, Evacuation: stay,
	})
	return in, nil
}

// maxCrashes within five minutes quarantine a plugin. It is well above the default attempts at one message, so that a message that always
// panics is buried before that.
const maxCrashes = 20

// lateTick is how late the time may come before leases are lengthened by it: a machine that was paused has let nobody work.
const lateTick = 200 * time.Millisecond

// Swap replaces a plugin by another version under load: nothing is lost or reordered, and no message is handled by two versions at a time.
// If the new version does not start, the old one has never stopped serving; if a later step fails, it goes on after the pause. While a
// reload is under way it fails with [ErrChanging].
func (rt *Runtime) Swap(ctx context.Context, plugin string, v Version) (Swapped, error) {
	c, err := rt.plugin(plugin)
	if err != nil {
		return Swapped{}, err
	}
	if !rt.changing.TryRLock() {
		return Swapped{}, fmt.Errorf("plugin %q: %w", plugin, ErrChanging)
	}
	defer rt.changing.RUnlock()
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
	for _, c := range rt.top.Load().consumers {
		if c.actor != nil {
			errs = append(errs, c.actor.Check(ctx))
		}
	}
	return errors.Join(errs...)
}

func (rt *Runtime) plugin(name string) (*consumer, error) {
	for _, c := range rt.top.Load().consumers {
		if c.actor != nil && c.name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("plugin %q: %w", name, ErrNoPlugin)
}
