package loop

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/penstock-dev/penstock/arena"
)

// Scenarios are files: events in, effects out. To write down what the core does now: go test ./loop -run TestScenarios -rewrite
//
//	graph                                          a new core
//	stream NAME CONSUMER...                          the first is the source's
//	consumer NAME [order] [drop] items= bytes= mailbox= attempts= backoff= max= emits=
//	window messages= bytes= open=
//	late TICKS
//	arrive n= keys= size= partition= epoch=        a batch of the source
//	outcome CONSUMER UNIT                          a delivery has been gone through; "report" the same, without returning it
//	INDEX WHAT after= token=                         an exception
//	emit STREAM parents= keys= link=                 a batch that was emitted
//	verdict CONSUMER TOKEN [WHAT] after= link=     of a hold; its emits follow
//	extend | reopen | lapsed CONSUMER TOKEN after=
//	orphan CONSUMER STREAM n=                      emitted without a parent
//	credit CONSUMER ITEMS bytes=, resumed CONSUMER KEY, buried UNIT [failed], link N, pause | unpause CONSUMER after= epoch= pause=,
//	assign | revoke PARTITION epoch=, pressure on|off, tick NOW, drain after=
//	reshape after=                                 another graph: lines as of graph, those of "graph" and of reshapes before first; also
//	                                                 "gone" and "paused" with a consumer; its window only if there is such a line
//	mark, ages at= CONSUMER=TAKEN...
//	counts CONSUMER
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var sc *scenario
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "graph" {
				sc = newScenario(t, d)
				return "ok"
			}
			return sc.run(t, d)
		})
	})
}

type scenario struct {
	core      *Core
	consumers []string
	streams   []string
	keys      []string // hash is the index, plus 1
	names     map[*arena.Batch][]string
	out       map[string]*arena.Batch // by consumer and unit
	messages  int
	receipts  map[uint32]uint64
	emitted   int
}

// words are the arguments of a line: what has a "=" is named.
type words struct {
	list  []string
	named map[string]string
}

func split(line string) words {
	w := words{named: map[string]string{}}
	for _, f := range strings.Fields(line) {
		if k, v, ok := strings.Cut(f, "="); ok {
			w.named[k] = v
		} else {
			w.list = append(w.list, f)
		}
	}
	return w
}

func (w words) num(name string, otherwise int64) int64 {
	v, ok := w.named[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (w words) names(name string) []string {
	if w.named[name] == "" {
		return nil
	}
	return strings.Split(w.named[name], ",")
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func newScenario(t *testing.T, d *datadriven.TestData) *scenario {
	sc := &scenario{names: map[*arena.Batch][]string{}, out: map[string]*arena.Batch{}, receipts: map[uint32]uint64{}}
	cfg := Config{
		Window: Window{Messages: 100, Bytes: 10000}, Open: Window{Messages: 100, Bytes: 10000}, Late: 50,
		NewBatch: func() *arena.Batch { return &arena.Batch{} }, Rand: rand.New(rand.NewPCG(1, 1)),
	}
	sc.graph(t, d, &cfg)
	sc.core = New(cfg)
	return sc
}

// graph reads the lines of a graph. Streams and consumers that were there keep their places.
func (sc *scenario) graph(t *testing.T, d *datadriven.TestData, cfg *Config) {
	lines := strings.Split(d.Input, "\n")
	for _, line := range lines { // names first: lines refer to each other
		switch w := split(line); w.list[0] {
		case "stream":
			sc.streams = append(sc.streams, w.list[1])
		case "consumer":
			sc.consumers = append(sc.consumers, w.list[1])
		}
	}
	for _, line := range lines {
		w := split(line)
		switch w.list[0] {
		case "stream":
			st := Stream{Name: w.list[1]}
			for _, c := range w.list[2:] {
				st.Consumers = append(st.Consumers, sc.consumer(c))
			}
			cfg.Graph.Streams = append(cfg.Graph.Streams, st)
		case "consumer":
			cfg.Graph.Consumers = append(cfg.Graph.Consumers, sc.newConsumer(w))
		case "window":
			cfg.Window = Window{Messages: int(w.num("messages", 100)), Bytes: w.num("bytes", 10000)}
			cfg.Open = Window{Messages: int(w.num("open", int64(cfg.Window.Messages))), Bytes: cfg.Window.Bytes}
		case "late":
			cfg.Late = Ticks(number(w.list[1]))
		default:
			t.Fatalf("%s: no such line: %s", d.Pos, line)
		}
	}
}

// reshape reads the graph that takes the place of the one before: all of it, in the same order.
func (sc *scenario) reshape(t *testing.T, d *datadriven.TestData, detail *Detail) {
	var cfg Config
	sc.streams, sc.consumers = nil, nil
	sc.graph(t, d, &cfg)
	detail.Graph, detail.Window = &cfg.Graph, cfg.Window
}

// ages tells how old, at least, the oldest messages are.
func (sc *scenario) ages(w words) string {
	counts := sc.core.Counts()
	sc.core.ages(Ticks(w.num("at", 0)), func(id ConsumerID) uint64 { return uint64(w.num(sc.consumers[id], 0)) }, &counts)
	out := fmt.Sprintf("source %d", counts.Oldest)
	for i, k := range counts.Consumers {
		out += fmt.Sprintf("\n%s %d, %d out", sc.consumers[i], k.Oldest, k.Out)
	}
	return out
}

func (sc *scenario) newConsumer(w words) Consumer {
	c := Consumer{
		Name: w.list[1], Order: slices.Contains(w.list, "order"), Items: int(w.num("items", 10)), Bytes: w.num("bytes", 10000),
		Mailbox: w.num("mailbox", 10000), Epoch: 1,
		Paused: slices.Contains(w.list, "paused"), Gone: slices.Contains(w.list, "gone"),
		Retry: RetryPolicy{Attempts: int(w.num("attempts", 0)), Backoff: Ticks(w.num("backoff", 0)), Max: Ticks(w.num("max", 0))},
	}
	if slices.Contains(w.list, "drop") {
		c.Overflow = DropOldest
	}
	for _, s := range w.names("emits") {
		c.Emits = append(c.Emits, sc.stream(s))
	}
	return c
}

func (sc *scenario) consumer(name string) ConsumerID {
	if i := slices.Index(sc.consumers, name); i >= 0 {
		return ConsumerID(i)
	}
	panic("no consumer " + name)
}

func (sc *scenario) stream(name string) StreamID {
	if i := slices.Index(sc.streams, name); i >= 0 {
		return StreamID(i)
	}
	panic("no stream " + name)
}

func (sc *scenario) hash(key string) uint64 {
	if key == "" || key == "-" {
		return 0
	}
	if i := slices.Index(sc.keys, key); i >= 0 {
		return uint64(i + 1)
	}
	sc.keys = append(sc.keys, key)
	return uint64(len(sc.keys))
}

// unit reads u3, or u3.2 for the second unit of that index.
func unitID(s string) UnitID {
	index, generation, again := strings.Cut(strings.TrimPrefix(s, "u"), ".")
	id := UnitID(number(index)) | 1<<32
	if again {
		id = UnitID(number(index)) | UnitID(number(generation))<<32
	}
	return id
}

func unitName(id UnitID) string {
	if g := id >> 32; g > 1 {
		return fmt.Sprintf("u%d.%d", uint32(id), g)
	}
	return fmt.Sprintf("u%d", uint32(id))
}

func tokenOf(s string) Token {
	epoch, seq, _ := strings.Cut(s, ".")
	return Token{Epoch: uint32(number(epoch)), Seq: number(seq)}
}

// batch makes messages called prefix1, prefix2, ...
func (sc *scenario) batch(prefix string, counter *int, n int, w words) *arena.Batch {
	b := &arena.Batch{}
	keys := w.names("keys")
	for i := range n {
		*counter++
		b.Frames = append(b.Frames, arena.Frame{Len: uint32(w.num("size", 10))})
		if len(keys) > 0 {
			b.Hashes = append(b.Hashes, sc.hash(keys[i]))
		}
		sc.names[b] = append(sc.names[b], fmt.Sprint(prefix, *counter))
	}
	return b
}

var errNo = errors.New("no")

// run gives the core one event and prints the effects.
func (sc *scenario) run(t *testing.T, d *datadriven.TestData) string {
	line := d.Cmd
	for _, a := range d.CmdArgs {
		line += " " + a.Key
		if len(a.Vals) > 0 {
			line += "=" + strings.Join(a.Vals, ",")
		}
	}
	w := split(line)
	detail := &Detail{
		After: Ticks(w.num("after", 0)), Epoch: uint32(w.num("epoch", 0)), Link: uint64(w.num("link", 0)), Pause: uint64(w.num("pause", 0)),
	}
	ev := &Event{Detail: detail}
	switch d.Cmd {
	case "arrive":
		n := int(w.num("n", int64(max(1, len(w.names("keys"))))))
		ev.Batch = sc.batch("m", &sc.messages, n, w)
		ev.Bytes = int64(ev.Batch.Bytes())
		ev.Batch.Partition, ev.Batch.Epoch = uint32(w.num("partition", 0)), uint32(w.num("epoch", 0))
		for range n {
			sc.receipts[ev.Batch.Partition]++
			ev.Batch.Receipts = append(ev.Batch.Receipts, sc.receipts[ev.Batch.Partition])
		}
	case "outcome", "report":
		ev.Kind, ev.Consumer, ev.Unit = Outcome, sc.consumer(w.list[1]), unitID(w.list[2])
		sc.details(detail, d.Input)
		b := sc.out[w.list[1]+w.list[2]]
		if b == nil {
			return "there is no such delivery"
		}
		ev.Last = d.Cmd == "outcome" && b.Return()
	case "verdict":
		ev.Kind, ev.Consumer, detail.Token = HeldVerdict, sc.consumer(w.list[1]), tokenOf(w.list[2])
		if len(w.list) > 3 {
			detail.Exceptions = []Exception{{What: whatOf(w.list[3]), After: detail.After, Cause: errNo}}
		}
		sc.details(detail, d.Input)
	case "extend", "reopen", "lapsed":
		ev.Kind = map[string]EventKind{"extend": HoldExtended, "reopen": HoldReopened, "lapsed": HoldLapsed}[d.Cmd]
		ev.Consumer, detail.Token = sc.consumer(w.list[1]), tokenOf(w.list[2])
	case "orphan":
		ev.Kind, ev.Consumer = Emitted, sc.consumer(w.list[1])
		detail.Emits = []Emit{{Stream: sc.stream(w.list[2]), Batch: sc.batch("e", &sc.emitted, int(w.num("n", 1)), w)}}
	case "credit":
		ev.Kind, ev.Consumer, detail.Items, detail.Bytes = Credit, sc.consumer(w.list[1]), number(w.list[2]), w.num("bytes", 0)
	case "resumed":
		ev.Kind, ev.Consumer, detail.Keys = Resumed, sc.consumer(w.list[1]), []uint64{sc.hash(w.list[2])}
	case "buried":
		ev.Kind, ev.Unit = Buried, unitID(w.list[1])
		if len(w.list) > 2 {
			detail.Err = errNo
		}
	case "link":
		ev.Kind, detail.Link = LinkSettled, number(w.list[1])
	case "pause", "unpause":
		ev.Kind = map[string]EventKind{"pause": Pause, "unpause": Unpause}[d.Cmd]
		ev.Consumer = sc.consumer(w.list[1])
	case "assign", "revoke":
		ev.Kind = map[string]EventKind{"assign": Assign, "revoke": Revoke}[d.Cmd]
		detail.Partition = uint32(number(w.list[1]))
	case "pressure":
		ev.Kind, detail.On = Pressure, w.list[1] == "on"
	case "tick":
		ev.Kind, detail.Now = Tick, Ticks(number(w.list[1]))
	case "drain":
		ev.Kind = Drain
	case "reshape":
		ev.Kind = Reshape
		sc.reshape(t, d, detail)
	case "mark":
		ev.Kind = Mark
	case "ages":
		return sc.ages(w)
	case "counts":
		c := sc.core.Counts()
		k := c.Consumers[sc.consumer(w.list[1])]
		return fmt.Sprintf("accepted %d settled %d returned %d live %d\ndelivered %d retried %d held %d deferred %d lapsed %d dead %d dropped %d "+
			"emitted %d revoked %d waiting %d blocked %d", c.Accepted, c.Settled, c.Returned, sc.core.Live(), k.Delivered, k.Retried, k.Held,
			k.Deferred, k.Lapsed, k.Dead, k.Dropped, k.Emitted, k.Revoked, k.Waiting, k.Blocked)
	default:
		t.Fatalf("%s: no such event: %s", d.Pos, d.Cmd)
	}
	return sc.step(ev)
}

func whatOf(s string) What { return What(slices.Index(whatNames[:], s)) }

// details reads the exceptions and emits of a report.
func (sc *scenario) details(detail *Detail, input string) {
	for _, line := range strings.Split(input, "\n") {
		w := split(line)
		switch {
		case len(w.list) == 0:
		case w.list[0] == "emit":
			parents := w.names("parents")
			b := sc.batch("e", &sc.emitted, max(1, len(parents)), w)
			for _, p := range parents {
				b.Parents = append(b.Parents, uint32(number(p)))
			}
			e := Emit{Stream: sc.stream(w.list[1]), Batch: b}
			if l := w.num("link", 0); l > 0 {
				e.Links = []uint64{uint64(l)}
			}
			detail.Emits = append(detail.Emits, e)
		default:
			e := Exception{Index: uint32(number(w.list[0])), What: whatOf(w.list[1]), After: Ticks(w.num("after", 0)), Cause: errNo}
			if w.named["token"] != "" {
				e.Token = tokenOf(w.named["token"])
			}
			detail.Exceptions = append(detail.Exceptions, e)
		}
	}
}

// step prints what the core wants done, and plays the memory.
func (sc *scenario) step(ev *Event) string {
	var out strings.Builder
	effects := sc.core.Step(ev)
	for i := range effects {
		e := &effects[i]
		if line := sc.effect(e); line != "" {
			fmt.Fprintf(&out, "%v%s\n", e.Kind, line)
		}
	}
	if out.Len() == 0 {
		return "nothing"
	}
	return out.String()
}

func (sc *scenario) effect(e *Effect) string {
	who := " "
	if int(e.Consumer) < len(sc.consumers) {
		who = " " + sc.consumers[e.Consumer]
	}
	switch e.Kind {
	case Deliver:
		return sc.delivery(&e.Delivery)
	case Settle:
		return settlement(&e.Settlement)
	case Release:
		return fmt.Sprintf(" %v", sc.names[e.Batch])
	case Free:
		defer delete(sc.names, e.Batch)
		return fmt.Sprintf(" %v", sc.names[e.Batch])
	case Evacuate, Share:
		sc.names[e.Into] = []string{sc.names[e.Batch][e.Index]}
		e.Into.Frames = append(e.Into.Frames, e.Batch.Frames[e.Index])
		return " " + sc.names[e.Batch][e.Index]
	case DeadLetter:
		cause := strings.ReplaceAll(e.Letter.Cause.Error(), "\n", "; ")
		return fmt.Sprintf("%s %s %v attempts=%d: %s", who, unitName(e.Unit), sc.names[e.Batch], e.Letter.Attempts, cause)
	case LapseHold:
		return fmt.Sprintf("%s %d.%d", who, e.Token.Epoch, e.Token.Seq)
	case AnnounceLink:
		return fmt.Sprintf(" %d", e.Link)
	case SetWindow:
		return fmt.Sprintf(" messages=%d bytes=%d", e.Window.Messages, e.Window.Bytes)
	case SetTimer:
		return fmt.Sprintf(" %d", e.At)
	case WantCredit:
		return fmt.Sprintf("%s %d", who, e.Items)
	case Quiet:
		if e.Pause > 0 {
			who += fmt.Sprintf(" pause=%d", e.Pause)
		}
		return fmt.Sprintf("%s redelivered=%d", who, e.Count)
	case Drained:
		return fmt.Sprintf(" returned=%d", e.Count)
	case Retired:
		return who
	}
	return " ?"
}

func (sc *scenario) delivery(d *Delivery) string {
	name := sc.consumers[d.Consumer]
	out := " " + name
	var resume, pick []string
	if s := d.Special; s != nil {
		for _, h := range s.Resume {
			resume = append(resume, sc.keys[h-1])
		}
		for _, i := range s.Pick {
			pick = append(pick, sc.names[d.Batch][i])
		}
	}
	if d.Batch != nil {
		sc.out[name+unitName(d.Unit)] = d.Batch
		shown := sc.names[d.Batch]
		if pick != nil {
			shown = pick
		}
		out += fmt.Sprintf(" %s %v attempt=%d", unitName(d.Unit), shown, d.Attempt)
	}
	if resume != nil {
		out += fmt.Sprintf(" resume=%v", resume)
	}
	return out
}

func settlement(s *Settlement) string {
	out := fmt.Sprintf(" partition=%d epoch=%d %v", s.Partition, s.Epoch, s.Receipts)
	switch {
	case s.Returned:
		out += " returned"
	case s.Void:
		out += fmt.Sprintf(" void, %d messages", s.Messages)
	case s.HasCursor:
		out += fmt.Sprintf(" cursor=%d", s.Cursor)
	}
	return out
}
