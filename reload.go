package penstock

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/penstock-dev/penstock/actor"
)

// Reloaded is the record of a reload: what it has touched, as "source flights" or "plugin delays".
type Reloaded struct {
	Added     []string           `json:"added"`
	Changed   []string           `json:"changed"`
	Removed   []string           `json:"removed"`
	Untouched []string           `json:"untouched"`
	Swaps     map[string]Swapped `json:"swaps,omitempty"`  // of plugins, by name
	Failed    []string           `json:"failed,omitempty"` // what did not go as it should, after the pipeline had been changed
	Took      time.Duration      `json:"took_ns"`
}

// Reload makes the pipeline another one while messages flow. It compares both by the names of sources, plugins and sinks, their
// Identity, and their other settings; whatever is the same is not touched: connections stay open, state stays. Where there is no
// Identity, nothing is the same.
//
// First all that is new is made and started; if any of it fails, nothing has changed. Then plugins are swapped, which carries their state
// over; sinks finish what they have in hand, are closed, and the new ones go on; streams get their new readers all at once; sources that
// are not wanted any more end, and are given Pipeline.Drain to have their messages settled; a [source.Checkpointer] is waited for before
// another takes its place. What is taken out gets what it is owed, for as long as Pipeline.Drain; what is left then goes to the dead
// letters. No message is lost, and none is handled twice for it. A plugin that emits to a stream goes on to do so until it is done, and
// whoever has read the stream goes on to read it.
//
// A sink that a reload brings does not empty what is there: it may be this pipeline's.
//
// Memory, MaxMessage, Data, DeadLetters, Clock, Strict and Linger stay as they are; if p has others for the first three, that is an error.
// While a reload or a swap is under way, and when the pipeline does not run, it fails with [ErrChanging].
func (rt *Runtime) Reload(ctx context.Context, p Pipeline) (Reloaded, error) {
	if !rt.changing.TryLock() {
		return Reloaded{}, ErrChanging
	}
	defer rt.changing.Unlock()
	rt.mu.Lock()
	run := rt.ctx
	if run == nil || run.Err() != nil {
		rt.mu.Unlock()
		return Reloaded{}, ErrChanging
	}
	rt.reloading = true
	rt.mu.Unlock()
	defer func() {
		rt.mu.Lock()
		rt.reloading = false
		rt.mu.Unlock()
		rt.tellChanged()
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(run, func() { cancel(errEnding) })()
	began := rt.p.Clock.Now()
	r, err := rt.compare(p)
	if err != nil {
		return Reloaded{}, err
	}
	patience, stop := context.WithTimeoutCause(ctx, r.next.Drain+stopGrace, errNotStopped)
	defer stop()
	if err := r.prepare(patience); err != nil {
		return Reloaded{}, errors.Join(fmt.Errorf("nothing has been changed: %w", err), r.undo(ctx))
	}
	if err := r.exchange(patience); err != nil {
		return Reloaded{}, errors.Join(fmt.Errorf("nothing has been changed: %w", err), r.undo(ctx))
	}
	r.commit(ctx)
	r.record.Took = rt.p.Clock.Now().Sub(began)
	return r.record, nil
}

var errEnding = errors.New("the pipeline is ending")

// reload is one that is under way.
type reload struct {
	rt     *Runtime
	old    *topology
	next   Pipeline
	record Reloaded

	keep, drop []*intake // of the old sources
	retuned    []Source  // of those kept: that get another key or limit
	add        []*intake // sources that are not there, or take the place of another; made by prepare

	order   []*consumer // of the next topology
	fresh   []*consumer // of order: those that are not in the old one
	leaving []*consumer // of the old one: those that are not in the next
	plugins map[*consumer]*Plugin
	sinks   map[*consumer]*Sink // what kept consumers are to be
	loops   map[string]int

	swaps     []pluginSwap
	sinkSwaps []*consumer // that get another sink
	stale     []*consumer // of those: that could not

	prepared []*intake // sources that have been prepared
	opened   []*consumer
	started  []*consumer
}

// pluginSwap is a plugin that gets another version.
type pluginSwap struct {
	c        *consumer
	handover *actor.Handover
	back     Version // the one that serves now
	done     bool
}

// compare finds what a reload has to do.
func (rt *Runtime) compare(p Pipeline) (*reload, error) {
	old := rt.top.Load()
	p.Logger, p.Clock, p.DeadLetters, p.Strict, p.Linger = rt.p.Logger, rt.p.Clock, rt.p.DeadLetters, rt.p.Strict, rt.p.Linger
	set(&p.Memory, rt.p.Memory)
	set(&p.MaxMessage, rt.p.MaxMessage)
	set(&p.Data, rt.p.Data)
	p = p.withDefaults()
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := p.stays(&rt.p); err != nil {
		return nil, err
	}
	r := &reload{
		rt: rt, old: old, next: p, plugins: map[*consumer]*Plugin{}, sinks: map[*consumer]*Sink{}, loops: p.sources(),
		record: Reloaded{Added: []string{}, Changed: []string{}, Removed: []string{}, Untouched: []string{}, Swaps: map[string]Swapped{}},
	}
	r.compareSources()
	if err := r.comparePlugins(); err != nil {
		return nil, err
	}
	r.compareSinks()
	for _, c := range old.consumers {
		if slices.Contains(r.order, c) {
			continue
		}
		r.leaving = append(r.leaving, c)
		if !slices.ContainsFunc(r.order, func(n *consumer) bool { return n.name == c.name && n.kind() == c.kind() }) {
			r.note(&r.record.Removed, c.kind(), c.name)
		}
	}
	return r, nil
}

// stays checks that what a reload cannot change is what it was.
func (p *Pipeline) stays(was *Pipeline) error {
	var problems []error
	for _, x := range []struct {
		what     string
		is, want any
	}{{"Memory", p.Memory, was.Memory}, {"MaxMessage", p.MaxMessage, was.MaxMessage}, {"Data", p.Data, was.Data}} {
		if x.is != x.want {
			problems = append(problems, fmt.Errorf("%s cannot be changed while the pipeline runs: it is %v, and would be %v; start it anew", x.what,
				x.want, x.is))
		}
	}
	if len(problems) > 0 {
		return &ConfigError{Problems: problems}
	}
	return nil
}

func (r *reload) note(list *[]string, kind, name string) { *list = append(*list, kind+" "+name) }

func (r *reload) compareSources() {
	found := map[*intake]bool{}
	for _, s := range r.next.Sources {
		i := slices.IndexFunc(r.old.intakes, func(in *intake) bool { return in.spec.Name == s.Name })
		if i < 0 {
			r.note(&r.record.Added, "source", s.Name)
			continue
		}
		switch was := r.old.intakes[i]; {
		case s.Identity == "" || s.Identity != was.spec.Identity || was.failure.Load() != nil:
			r.note(&r.record.Changed, "source", s.Name)
		case s.KeyName != was.spec.KeyName || s.Limit != was.spec.Limit:
			found[was] = true
			r.retuned = append(r.retuned, s)
			r.note(&r.record.Changed, "source", s.Name)
		default:
			found[was] = true
			r.note(&r.record.Untouched, "source", s.Name)
		}
	}
	for _, in := range r.old.intakes {
		if found[in] {
			r.keep = append(r.keep, in)
			continue
		}
		r.drop = append(r.drop, in)
		if !slices.ContainsFunc(r.next.Sources, func(s Source) bool { return s.Name == in.spec.Name }) {
			r.note(&r.record.Removed, "source", in.spec.Name)
		}
	}
}

func (r *reload) comparePlugins() error {
	for _, g := range sorted(r.next.Plugins) {
		c := r.find("plugin", g.Name)
		if c != nil && c.plugin.Workers == g.Workers && c.plugin.ByKey == g.ByKey && c.plugin.Kind == g.Kind {
			r.order = append(r.order, c)
			r.plugins[c] = &g
			switch {
			case g.Identity == "" || g.Identity != c.plugin.Identity:
				r.swaps = append(r.swaps, pluginSwap{c: c})
				r.note(&r.record.Changed, "plugin", g.Name)
			case !g.like(&c.plugin):
				r.note(&r.record.Changed, "plugin", g.Name)
			default:
				r.note(&r.record.Untouched, "plugin", g.Name)
			}
			continue
		}
		n, err := r.rt.newPlugin(g, &r.next, r.loops[g.Name])
		if err != nil {
			return errors.Join(err, r.undo(context.Background()))
		}
		r.order = append(r.order, n)
		r.fresh = append(r.fresh, n)
		if c == nil {
			r.note(&r.record.Added, "plugin", g.Name)
			continue
		}
		n.waits = c.plugin.Kind == g.Kind // until c is done: another number of workers, or order, takes another actor
		r.note(&r.record.Changed, "plugin", g.Name)
	}
	return nil
}

func (r *reload) compareSinks() {
	for _, s := range r.next.Sinks {
		c := r.find("sink", s.Name)
		if c == nil {
			n := r.rt.newSink(s, r.loops[s.Name], true)
			r.order = append(r.order, n)
			r.fresh = append(r.fresh, n)
			r.note(&r.record.Added, "sink", s.Name)
			continue
		}
		r.order = append(r.order, c)
		r.sinks[c] = &s
		switch {
		case s.Identity == "" || s.Identity != c.sink.Identity:
			r.sinkSwaps = append(r.sinkSwaps, c)
			r.note(&r.record.Changed, "sink", s.Name)
		case !slices.Equal(s.From, c.sink.From) || s.Flush != c.sink.Flush || s.Retry != c.sink.Retry:
			r.note(&r.record.Changed, "sink", s.Name)
		default:
			r.note(&r.record.Untouched, "sink", s.Name)
		}
	}
}

// find is the consumer of that name in the old topology.
func (r *reload) find(kind, name string) *consumer {
	for _, c := range r.old.consumers {
		if c.name == name && c.kind() == kind {
			return c
		}
	}
	return nil
}

// like says whether two plugins are run alike.
func (g *Plugin) like(other *Plugin) bool {
	return reflect.DeepEqual(
		[]any{g.From, g.Emits, g.Timeout, g.Retry, g.Mailbox}, []any{other.From, other.Emits, other.Timeout, other.Retry, other.Mailbox})
}

// from are the streams that c is to read, and emits those that it is to emit to.
func (r *reload) from(c *consumer) []string {
	if g := r.plugins[c]; g != nil {
		return g.From
	}
	if s := r.sinks[c]; s != nil {
		return s.From
	}
	return c.from
}

func (r *reload) emits(c *consumer) []string {
	if g := r.plugins[c]; g != nil {
		return g.Emits
	}
	return c.emits
}

func (r *reload) everybody() []*consumer {
	return slices.Concat(r.old.consumers, r.old.leaving, r.fresh)
}

// before is the wiring while all goes by the old pipeline, and those who will serve in the next one have their places. A stream that
// nobody makes yet has the readers that it will have.
func (r *reload) before() *wiring {
	return &wiring{
		everybody: r.everybody(),
		reads: func(c *consumer, stream string) bool {
			if r.old.pipeline.makes(stream) || !r.next.makes(stream) {
				return !c.gone && !slices.Contains(r.fresh, c) && (slices.Contains(c.from, stream) || slices.Contains(c.lingers, stream))
			}
			return slices.Contains(r.order, c) && slices.Contains(r.from(c), stream)
		},
		emits: func(c *consumer) []string { return union(c.emits, r.emits(c)) },
		joins: func(c *consumer, source string) bool {
			return slices.Contains(r.fresh, c) && !c.gone && r.next.reached(source)[c.name]
		},
	}
}

// after is the wiring of the next pipeline, in which what nobody makes any more but others who leave is still read by whoever has read it.
func (r *reload) after() *wiring {
	return &wiring{
		everybody: r.everybody(),
		reads: func(c *consumer, stream string) bool {
			if r.next.makes(stream) {
				return slices.Contains(r.order, c) && slices.Contains(r.from(c), stream)
			}
			if slices.Contains(r.order, c) {
				return slices.Contains(c.lingers, stream)
			}
			return !c.gone && slices.Contains(c.from, stream)
		},
		emits: r.emits,
	}
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
