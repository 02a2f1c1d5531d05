package penstock

import (
	"slices"

	"github.com/penstock-dev/penstock/loop"
)

// slabSize is the arena's default.
const slabSize = 256 << 10

// Parts of the budget, in tenths, as package arena divides it.
const (
	sourceTenths = 7
	emitTenths   = 2
)

// needs is the least memory, in bytes, with which the pipeline cannot come to a standstill: each source can read a message of the largest
// size, and each worker that emits can emit one while it fills a slab.
func (p *Pipeline) needs() int64 {
	message := int64(p.MaxMessage) + slabSize
	sources := int64(len(p.Sources)) * (message + slabSize)
	emits := int64(0)
	for _, g := range p.Plugins {
		if len(g.Emits) > 0 {
			emits += int64(max(g.Workers, 1)) * (message + slabSize)
		}
	}
	return max(sources*10/sourceTenths, emits*10/emitTenths, 10*(message+slabSize), 16*slabSize)
}

// emitShare is the emit memory of plugin g, and what one call of it may emit.
func (p *Pipeline) emitShare(g Plugin) (limit int64, perCall int) {
	workers := int64(0)
	for _, other := range p.Plugins {
		if len(other.Emits) > 0 {
			workers += int64(max(other.Workers, 1))
		}
	}
	if workers == 0 || len(g.Emits) == 0 {
		return slabSize, 0
	}
	each := p.Memory * emitTenths / 10 / workers
	each -= each % slabSize
	return each * int64(max(g.Workers, 1)), int(min(each-2*slabSize, 16<<20))
}

// graph is what one source's messages can reach: the loop's graph, and which of all consumers its ConsumerIDs are.
type graph struct {
	loop.Graph
	consumers []int // by ConsumerID: index in Runtime.consumers
}

// reach builds the graph of a source. loops says how many sources feed each consumer: they share its mailbox.
func (rt *Runtime) reach(source string, loops []int) graph {
	g := graph{}
	ids := map[string]loop.StreamID{}
	stream := func(name string) loop.StreamID {
		id, ok := ids[name]
		if !ok {
			id = loop.StreamID(len(g.Streams))
			ids[name] = id
			g.Streams = append(g.Streams, loop.Stream{Name: name})
		}
		return id
	}
	stream(source)
	local := map[int]loop.ConsumerID{}
	for s := 0; s < len(g.Streams); s++ {
		for i, c := range rt.consumers {
			if !slices.Contains(c.from, g.Streams[s].Name) {
				continue
			}
			id, known := local[i]
			if !known {
				id = loop.ConsumerID(len(g.Consumers))
				local[i] = id
				g.consumers = append(g.consumers, i)
				g.Consumers = append(g.Consumers, c.core(loops[i]))
				for _, e := range c.emits {
					emitted := stream(e)
					g.Consumers[id].Emits = append(g.Consumers[id].Emits, emitted)
				}
			}
			g.Streams[s].Consumers = append(g.Streams[s].Consumers, id)
		}
	}
	return g
}

// credit is how many deliveries each loop may have in a mailbox that several share.
func credit(loops int) int { return max(128/max(loops, 1), 16) }

// core is the consumer as a loop sees it.
func (c *consumer) core(loops int) loop.Consumer {
	out := loop.Consumer{
		Name: c.name, Order: c.order, Mailbox: c.mailbox.Bytes, Items: credit(loops), Bytes: max(c.mailbox.Bytes/int64(max(loops, 1)), 1),
		Retry: loop.RetryPolicy{
			Attempts: max(c.retry.Attempts, 0), Backoff: loop.TicksOf(c.retry.Backoff), Max: loop.TicksOf(c.retry.Max),
		},
		Epoch: 1,
	}
	if c.mailbox.DropOldest {
		out.Overflow = loop.DropOldest
	}
	return out
}

// reached counts, for each consumer, the sources whose messages reach it.
func (rt *Runtime) reached() []int {
	loops := make([]int, len(rt.consumers))
	for _, s := range rt.p.Sources {
		for _, i := range rt.reach(s.Name, loops).consumers {
			loops[i]++
		}
	}
	return loops
}
