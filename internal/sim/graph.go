package sim

import (
	"fmt"
	"math/rand/v2"

	"github.com/penstock-dev/penstock/loop"
)

// setup is a random pipeline: what the run is about.
type setup struct {
	sources []*sourceSetup
	plugs   []*plugSetup
	slabs   int64 // of the arena
	steps   int   // before the end begins
	late    loop.Ticks

	retryRate, holdRate, emitRate, panicRate, deadFails, lateRate, swapRate, reloadRate int  // in a thousand
	giveUp                                                                              bool // drain with a deadline, in the middle
}

type sourceSetup struct {
	stream     string
	messages   int
	batch      int // messages, at most
	size       int // bytes of a message, at most
	partitions int
	keys       int // 0 for none
	window     loop.Window
	open       loop.Window
}

// plugSetup is a plugin or a sink.
type plugSetup struct {
	name     string
	level    int
	sink     bool
	order    bool
	batches  bool // its handlers take batches
	stateful bool // they export and import
	overflow loop.Overflow
	mailbox  int64
	items    int
	bytes    int64
	retry    loop.RetryPolicy
	from     []string
	emits    []string
}

func randomSetup(r *rand.Rand) *setup {
	u := &setup{steps: 200 + r.IntN(800), late: loop.Ticks(20 + r.IntN(100))}
	u.retryRate, u.holdRate = pick(r, 0, 30, 100, 400), pick(r, 0, 30, 100, 400)
	u.emitRate, u.panicRate = pick(r, 0, 100, 400, 800), pick(r, 0, 0, 10, 50)
	u.deadFails, u.lateRate, u.swapRate = pick(r, 0, 100, 500), pick(r, 0, 5, 20), pick(r, 0, 5, 20, 60)
	u.reloadRate = pick(r, 0, 10, 30, 100)
	u.giveUp = r.IntN(6) == 0
	for i := range 1 + r.IntN(2) {
		u.sources = append(u.sources, randomSource(r, fmt.Sprintf("in%d", i)))
	}
	for i := range 1 + r.IntN(4) {
		level := 0
		if i > 0 {
			level = r.IntN(3)
		}
		u.plugs = append(u.plugs, randomPlug(r, u, fmt.Sprintf("p%d", i), level))
	}
	for i := range r.IntN(3) {
		u.plugs = append(u.plugs, randomSink(r, u, fmt.Sprintf("s%d", i)))
	}
	// A plugin keeps the slab that it emits into, so each needs some of the fifth that is for emits; evacuation has a tenth.
	plugs := len(u.plugs)
	if u.reloadRate > 0 {
		plugs += mostAdded
	}
	u.slabs = int64(max(11, 10*plugs+r.IntN(30)))
	return u
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomSource(r *rand.Rand, stream string) *sourceSetup {
	s := &sourceSetup{
		stream: stream, messages: 10 + r.IntN(150), batch: pick(r, 1, 3, 8, 20, 70), size: pick(r, 20, 60, 300, 700),
		partitions: pick(r, 1, 1, 2, 3), keys: pick(r, 0, 1, 3, 20),
	}
	s.window = loop.Window{Messages: pick(r, 1, 10, 50, 1000), Bytes: pick[int64](r, 500, 5000, 1<<20)}
	s.open = loop.Window{Messages: pick(r, 1, 5, 50), Bytes: pick[int64](r, 500, 5000)}
	return s
}

func randomPlug(r *rand.Rand, u *setup, name string, level int) *plugSetup {
	p := &plugSetup{name: name, level: level, order: r.IntN(2) == 0, batches: r.IntN(4) == 0, stateful: r.IntN(4) == 0}
	p.common(r)
	p.from, p.emits = p.reads(r, u), p.makes(r)
	return p
}

// reads are streams that it may read: no stream comes back to who has made it.
func (p *plugSetup) reads(r *rand.Rand, u *setup) []string {
	switch {
	case p.sink:
		return someOf(r, append(sourceStreams(u), "e0", "e1"))
	case p.level == 0:
		return someOf(r, sourceStreams(u))
	}
	from := []string{fmt.Sprintf("e%d", p.level-1)}
	if r.IntN(4) == 0 {
		from = append(from, someOf(r, sourceStreams(u))...)
	}
	return from
}

// makes are streams that it may emit to.
func (p *plugSetup) makes(r *rand.Rand) (emits []string) {
	if p.level < 2 && r.IntN(4) > 0 {
		emits = []string{fmt.Sprintf("e%d", p.level)}
		if p.level == 0 && r.IntN(3) == 0 {
			emits = append(emits, "e1")
		}
	}
	return emits
}

func randomSink(r *rand.Rand, u *setup, name string) *plugSetup {
	p := &plugSetup{name: name, level: 3, sink: true}
	p.common(r)
	p.from = p.reads(r, u)
	return p
}

func (p *plugSetup) common(r *rand.Rand) {
	if r.IntN(5) == 0 {
		p.overflow = loop.DropOldest
	}
	p.items, p.bytes = pick(r, 1, 2, 4, 16), pick[int64](r, 1, 300, 3000, 1<<20)
	p.mailbox = pick[int64](r, 100, 1000, 10000)
	p.retry = loop.RetryPolicy{
		Attempts: pick(r, 0, 1, 2, 3, 6), Backoff: pick[loop.Ticks](r, 0, 1, 10, 500), Max: pick[loop.Ticks](r, 0, 5, 1000),
	}
}

func sourceStreams(u *setup) (names []string) {
	for _, s := range u.sources {
		names = append(names, s.stream)
	}
	return names
}

// someOf is a part of names that is not empty.
func someOf(r *rand.Rand, names []string) []string {
	var some []string
	for _, n := range names {
		if r.IntN(2) == 0 {
			some = append(some, n)
		}
	}
	if len(some) == 0 {
		return []string{names[r.IntN(len(names))]}
	}
	return some
}

// regraph is the part of the pipeline that messages of the loop can reach. Streams and consumers that the loop has keep their places.
func (l *simLoop) regraph() (g loop.Graph, plugs []*plug) {
	ids, places := map[string]loop.StreamID{}, map[*plug]loop.ConsumerID{}
	reach := func(stream string) {
		if _, ok := ids[stream]; !ok {
			ids[stream] = loop.StreamID(len(g.Streams))
			g.Streams = append(g.Streams, loop.Stream{Name: stream})
		}
	}
	place := func(p *plug) loop.ConsumerID {
		id, ok := places[p]
		if !ok {
			id = loop.ConsumerID(len(plugs))
			places[p] = id
			plugs = append(plugs, p)
			for _, e := range p.set.emits {
				reach(e)
			}
		}
		return id
	}
	reach(l.set.stream)
	for _, st := range l.graph.Streams {
		reach(st.Name)
	}
	for _, ln := range l.lanes {
		place(ln.p)
	}
	for _, p := range l.s.plugs {
		if p.later != nil {
			place(p)
		}
	}
	for i := 0; i < len(g.Streams); i++ {
		for _, p := range l.s.plugs {
			if contains(p.set.from, g.Streams[i].Name) {
				id := place(p) // may add streams
				g.Streams[i].Consumers = append(g.Streams[i].Consumers, id)
			}
		}
	}
	for _, p := range plugs {
		set := p.set
		c := loop.Consumer{
			Name: set.name, Order: set.order, Overflow: set.overflow, Mailbox: set.mailbox, Items: set.items, Bytes: set.bytes, Retry: set.retry,
			Epoch: 1, Paused: p.waits, Gone: p.going == gone,
		}
		for _, e := range set.emits {
			c.Emits = append(c.Emits, ids[e])
		}
		g.Consumers = append(g.Consumers, c)
	}
	return g, plugs
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
