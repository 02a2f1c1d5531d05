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

	retryRate, holdRate, emitRate, panicRate, deadFails, lateRate, swapRate int  // in a thousand
	giveUp                                                                  bool // drain with a deadline, in the middle
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
	u.slabs = int64(max(11, 10*len(u.plugs)+r.IntN(30)))
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
	if level == 0 {
		p.from = someOf(r, sourceStreams(u))
	} else {
		p.from = []string{fmt.Sprintf("e%d", level-1)}
		if r.IntN(4) == 0 {
			p.from = append(p.from, someOf(r, sourceStreams(u))...)
		}
	}
	if level < 2 && r.IntN(4) > 0 {
		p.emits = []string{fmt.Sprintf("e%d", level)}
		if level == 0 && r.IntN(3) == 0 {
			p.emits = append(p.emits, "e1")
		}
	}
	return p
}

func randomSink(r *rand.Rand, u *setup, name string) *plugSetup {
	p := &plugSetup{name: name, level: 3, sink: true}
	p.common(r)
	p.from = someOf(r, append(sourceStreams(u), "e0", "e1"))
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

// graphOf is the part of the pipeline that messages of a source can reach; consumers are in the order of the graph's.
func graphOf(u *setup, source string) (g loop.Graph, consumers []*plugSetup) {
	ids := map[string]loop.StreamID{}
	known := map[*plugSetup]bool{}
	reach := func(stream string) loop.StreamID {
		id, ok := ids[stream]
		if !ok {
			id = loop.StreamID(len(g.Streams))
			ids[stream] = id
			g.Streams = append(g.Streams, loop.Stream{Name: stream})
		}
		return id
	}
	reach(source)
	for i := 0; i < len(g.Streams); i++ {
		for _, p := range u.plugs {
			if !contains(p.from, g.Streams[i].Name) || known[p] {
				continue
			}
			known[p] = true
			consumers = append(consumers, p)
			for _, e := range p.emits {
				reach(e)
			}
		}
	}
	for i, p := range consumers {
		c := loop.Consumer{
			Name: p.name, Order: p.order, Overflow: p.overflow, Mailbox: p.mailbox, Items: p.items, Bytes: p.bytes, Retry: p.retry, Epoch: 1,
		}
		for _, e := range p.emits {
			c.Emits = append(c.Emits, ids[e])
		}
		g.Consumers = append(g.Consumers, c)
		for _, f := range p.from {
			if id, ok := ids[f]; ok {
				g.Streams[id].Consumers = append(g.Streams[id].Consumers, loop.ConsumerID(i))
			}
		}
	}
	return g, consumers
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
