package penstock

import (
	"fmt"
	"slices"
	"sync"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
)

// topology is who is there at one time. It is replaced as a whole, and not changed.
type topology struct {
	pipeline  Pipeline
	consumers []*consumer // those that serve: plugins in an order in which no one feeds an earlier one, then sinks
	leaving   []*consumer // taken out by a reload, and perhaps still owed something, in such an order too
	intakes   []*intake
}

// consumer is a plugin or a sink. Fields without a remark are changed by a reload only, while nothing else reads them.
type consumer struct {
	name    string
	plugin  Plugin // or
	sink    Sink
	isSink  bool
	from    []string
	lingers []string // streams that it reads beside those, because others who leave still emit to them
	emits   []string
	order   bool
	retry   RetryPolicy
	mailbox Mailbox

	actor *actor.Actor // of a plugin
	to    *actor.Sink  // of a sink
	emit  *arena.Account

	places  int           // in its mailbox
	granted int           // of those, to loops
	loops   int           // that feed it
	waits   bool          // paused until the one whose place it takes is done
	gone    bool          // it has been taken out, and reads no stream any more
	retired chan struct{} // one token: another loop owes it nothing more
	quits   sync.Map      // those loops, by intake
	heir    *consumer     // the one that took its place
	past    Row           // what loops that have ended have counted; guarded by Runtime.mu
}

func newConsumer(g *Plugin, s *Sink) *consumer {
	c := &consumer{retired: make(chan struct{}, 1)}
	if g != nil {
		c.plugin = *g
		c.name, c.from, c.emits, c.order, c.retry, c.mailbox = g.Name, g.From, g.Emits, g.ByKey, g.Retry, g.Mailbox
	} else {
		c.sink, c.isSink = *s, true
		c.name, c.from, c.retry, c.mailbox = s.Name, s.From, s.Retry, Mailbox{Bytes: defaultMailbox}
	}
	return c
}

// kind is what the consumer is called in rows and records.
func (c *consumer) kind() string {
	if c.isSink {
		return "sink"
	}
	return "plugin"
}

// tombstone keeps the place of a consumer that has been stopped in the graphs of sources, without all that it was made of.
func (c *consumer) tombstone() *consumer {
	return &consumer{name: c.name, isSink: c.isSink, gone: true, heir: c.heir}
}

// mail is where loops put deliveries.
func (c *consumer) mail() chan<- loop.Delivery {
	if c.actor != nil {
		return c.actor.Mailbox()
	}
	return c.to.Mailbox()
}

func (c *consumer) attach(l *loop.Lane) {
	if c.actor != nil {
		c.actor.Attach(l)
	} else {
		c.to.Attach(l)
	}
}

func (c *consumer) detach(l *loop.Lane) {
	if c.actor != nil {
		c.actor.Detach(l)
	} else {
		c.to.Detach(l)
	}
}

// reached are the plugins and sinks, by name, that messages of a source reach.
func (p *Pipeline) reached(source string) map[string]bool {
	streams, names := []string{source}, map[string]bool{}
	for i := 0; i < len(streams); i++ {
		for _, g := range p.Plugins {
			if !names[g.Name] && slices.Contains(g.From, streams[i]) {
				names[g.Name] = true
				streams = append(streams, g.Emits...)
			}
		}
		for _, k := range p.Sinks {
			if slices.Contains(k.From, streams[i]) {
				names[k.Name] = true
			}
		}
	}
	return names
}

// sources counts, for each plugin and sink by name, the sources whose messages reach it.
func (p *Pipeline) sources() map[string]int {
	count := map[string]int{}
	for _, s := range p.Sources {
		for name := range p.reached(s.Name) {
			count[name]++
		}
	}
	return count
}

// makes says whether somebody makes a stream.
func (p *Pipeline) makes(stream string) bool {
	for _, s := range p.Sources {
		if s.Name == stream {
			return true
		}
	}
	for _, g := range p.Plugins {
		if slices.Contains(g.Emits, stream) {
			return true
		}
	}
	return false
}

// wiring says who reads and who emits, while pipelines change.
type wiring struct {
	everybody []*consumer
	reads     func(c *consumer, stream string) bool
	emits     func(c *consumer) []string
	joins     func(c *consumer, source string) bool // it has a place in the source's graph, also while it reads nothing; nil for nobody
}

// graph is what one source's messages can reach: the loop's graph, and which consumers its ConsumerIDs are.
type graph struct {
	loop.Graph
	consumers []*consumer // by ConsumerID
}

// reach builds the graph of a source. What old has keeps its place; consumers that old does not have are granted credit.
func (w *wiring) reach(source string, old *graph) (*graph, error) {
	g := &graph{}
	ids, local := map[string]loop.StreamID{}, map[*consumer]loop.ConsumerID{}
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
	var before int
	if old != nil {
		for _, s := range old.Streams {
			stream(s.Name)
		}
		g.consumers = slices.Clone(old.consumers)
		before = len(old.consumers)
		for id, c := range old.consumers {
			local[c] = loop.ConsumerID(id)
			was := old.Consumers[id]
			g.Consumers = append(g.Consumers, c.core(was.Items))
			w.emitted(g, c, loop.ConsumerID(id), stream)
		}
	}
	place := func(c *consumer) loop.ConsumerID {
		id, known := local[c]
		if !known {
			id = loop.ConsumerID(len(g.Consumers))
			local[c] = id
			g.consumers = append(g.consumers, c)
			g.Consumers = append(g.Consumers, loop.Consumer{})
			w.emitted(g, c, id, stream)
		}
		return id
	}
	for _, c := range w.everybody {
		if w.joins != nil && w.joins(c, source) {
			place(c)
		}
	}
	for s := 0; s < len(g.Streams); s++ {
		for _, c := range w.everybody {
			if w.reads(c, g.Streams[s].Name) {
				id := place(c) // may add streams
				g.Streams[s].Consumers = append(g.Streams[s].Consumers, id)
			}
		}
	}
	return g, g.grant(before)
}

// emitted fills in the streams that a consumer emits to.
func (w *wiring) emitted(g *graph, c *consumer, id loop.ConsumerID, stream func(string) loop.StreamID) {
	var out []loop.StreamID
	for _, e := range w.emits(c) {
		out = append(out, stream(e))
	}
	g.Consumers[id].Emits = out
}

// grant gives the consumers from index first on their credit.
func (g *graph) grant(first int) error {
	for id := first; id < len(g.consumers); id++ {
		c := g.consumers[id]
		items := min(credit(c.loops), c.places-c.granted)
		if items < 1 {
			g.revoke(first, id)
			return fmt.Errorf("%s %q: its mailbox has no place for another source: start the pipeline anew", c.kind(), c.name)
		}
		c.granted += items
		emits := g.Consumers[id].Emits
		g.Consumers[id] = c.core(items)
		g.Consumers[id].Emits = emits
	}
	return nil
}

// revoke takes back the credit of the consumers from index first to index end-1.
func (g *graph) revoke(first, end int) {
	for id := first; id < end; id++ {
		g.consumers[id].granted -= g.Consumers[id].Items
	}
}

// credit is how many deliveries each loop may have in a mailbox that several share.
func credit(loops int) int { return max(128/max(loops, 1), 16) }

// spare is how many places a mailbox has for sources that a reload adds, and for those that are on their way out.
const spare = 384

// core is the consumer as a loop sees it that may have that many deliveries in its mailbox.
func (c *consumer) core(items int) loop.Consumer {
	out := loop.Consumer{
		Name: c.name, Order: c.order, Mailbox: c.mailbox.Bytes, Items: items, Bytes: max(c.mailbox.Bytes/int64(max(c.loops, 1)), 1),
		Retry: loop.RetryPolicy{
			Attempts: max(c.retry.Attempts, 0), Backoff: loop.TicksOf(c.retry.Backoff), Max: loop.TicksOf(c.retry.Max),
		},
		Epoch: 1, Gone: c.gone, Paused: c.waits,
	}
	if c.mailbox.DropOldest {
		out.Overflow = loop.DropOldest
	}
	return out
}

// settled is the wiring of a pipeline that does not change: everybody reads and emits what he is said to.
func settled(consumers []*consumer) *wiring {
	return &wiring{
		everybody: consumers,
		reads:     func(c *consumer, stream string) bool { return slices.Contains(c.from, stream) },
		emits:     func(c *consumer) []string { return c.emits },
	}
}
