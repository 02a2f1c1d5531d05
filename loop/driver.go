package loop

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/mutate"
)

// World is what a Driver acts upon. Its methods are called one at a time, by whichever goroutine is running the loop, and must not block.
type World interface {
	// Settle tells the source. Receipts are valid until it returns.
	Settle(s Settlement)
	// Bury has a message written to the dead letters, and then posts Buried for unit, from another goroutine. The message's bytes are b's,
	// and stay until then.
	Bury(unit UnitID, consumer ConsumerID, b *arena.Batch, l Letter)
	// Lapse ends the lease of a hold, and says whether it did: false if a verdict came first.
	Lapse(h Handle) bool
	// LinkSettled tells every loop.
	LinkSettled(link uint64)
	// Quiet says that a consumer, in a pause of that number, has nothing out; count messages were taken back from it.
	Quiet(consumer ConsumerID, pause uint64, count int)
	// Retired says that nothing is owed to a consumer that is gone.
	Retired(consumer ConsumerID)
	// Drained says that nothing is left; count messages went back to the source.
	Drained(count int)
}

// DriverConfig is what a Driver is made from.
type DriverConfig struct {
	Core       Config
	Mailboxes  []chan<- Delivery // by ConsumerID, each with places for all the credit that was granted on it
	World      World
	Clock      clock.Clock
	Evacuation *arena.Account

	Go      func(f func())                    // runs f soon, not within the call; nil: in a goroutine
	Observe func(ev *Event, effects []Effect) // sees each step before its effects take place; nil: nobody does
}

// Driver runs a Core. It has no goroutine of its own: whoever posts an event while nobody runs the loop runs it, until no event is left
// or the turn is over; then a goroutine goes on. So a batch of a quiet source takes no detour, and a busy loop stays where it is hot.
// All methods may be called concurrently.
type Driver struct {
	core    *Core
	shape   atomic.Pointer[shape]
	world   World
	clock   clock.Clock
	start   time.Time
	evac    *arena.Account
	gate    Gate
	spawn   func(f func())
	observe func(ev *Event, effects []Effect)

	mu    sync.Mutex
	inbox []Event
	busy  bool // somebody runs the loop
	asks  []chan<- Counts

	// only whoever runs the loop:
	turn       []Event
	timer      clock.Timer
	timerAt    Ticks // when timer fires; 0 if it does not
	deadline   Ticks // when the core wants a Tick; 0 for never
	tick       Event // reused
	tickDetail Detail
	squeezed   bool // messages wait for memory to be moved to
	awaiting   bool // evac will say when it has room

	fired atomic.Bool // timer has fired
	roomy atomic.Bool // evac has said so
}

// shape is what the outside may know of the graph. It is replaced as a whole, before the core hears of it.
type shape struct {
	graph   *Graph
	streams map[string]StreamID
	lanes   []*Lane
}

// turnLength is how many events one goroutine works through before it gives the loop to another: a poster has work of its own.
const turnLength = 256

// NewDriver makes a Driver. It does nothing before the first event.
func NewDriver(cfg DriverConfig) *Driver {
	d := &Driver{
		core: New(cfg.Core), world: cfg.World,
		clock: cfg.Clock, start: cfg.Clock.Now(), evac: cfg.Evacuation, spawn: cfg.Go, observe: cfg.Observe,
	}
	if d.spawn == nil {
		d.spawn = func(f func()) { go f() }
	}
	d.tick = Event{Kind: Tick, Detail: &d.tickDetail}
	d.form(&cfg.Core.Graph, nil, cfg.Mailboxes)
	d.gate.init(d.core.flow.told)
	return d
}

// form makes the shape of a graph, with lanes for consumers beyond those that have one.
func (d *Driver) form(g *Graph, lanes []*Lane, mailboxes []chan<- Delivery) {
	s := &shape{graph: g, streams: make(map[string]StreamID, len(g.Streams)), lanes: slices.Clone(lanes)}
	for i, stream := range g.Streams {
		s.streams[stream.Name] = StreamID(i)
	}
	for _, m := range mailboxes {
		s.lanes = append(s.lanes, &Lane{driver: d, id: ConsumerID(len(s.lanes)), mailbox: m})
	}
	d.shape.Store(s)
}

// Reshape gives the loop another graph, in which all streams and consumers that were there have the same place; mailboxes are those of the
// consumers beyond them, in order. What is owed to a consumer that is gone is buried after that long. Calls must not overlap.
func (d *Driver) Reshape(g *Graph, mailboxes []chan<- Delivery, window Window, after Ticks) {
	d.form(g, d.shape.Load().lanes, mailboxes)
	d.Post(Event{Kind: Reshape, Detail: &Detail{Graph: g, Window: window, After: after}})
}

// Forget lets go of the mailbox of a consumer that is retired. Calls of Reshape and Forget must not overlap.
func (d *Driver) Forget(id ConsumerID) {
	s := *d.shape.Load()
	s.lanes = slices.Clone(s.lanes)
	s.lanes[id] = &Lane{driver: d, id: id}
	d.shape.Store(&s)
}

// Gate is where the source waits while its window is full.
func (d *Driver) Gate() *Gate { return &d.gate }

// Lane is the way to a consumer.
func (d *Driver) Lane(id ConsumerID) *Lane { return d.shape.Load().lanes[id] }

// Arrive posts a batch of the source, which the core owns from now on.
func (d *Driver) Arrive(b *arena.Batch) {
	bytes := int64(b.Bytes())
	d.gate.arrived(b.Len(), bytes)
	d.Post(Event{Kind: Arrived, Batch: b, Bytes: bytes})
}

// Counts are the totals so far.
func (d *Driver) Counts() Counts {
	d.mu.Lock()
	if !d.busy {
		defer d.mu.Unlock()
		return d.counts()
	}
	answer := make(chan Counts, 1)
	d.asks = append(d.asks, answer)
	d.mu.Unlock()
	return <-answer
}

// counts copies the core's counts. Nobody else may be running the loop.
func (d *Driver) counts() Counts {
	counts := d.core.Counts()
	lanes := d.shape.Load().lanes
	d.core.ages(d.now(), func(id ConsumerID) uint64 { return lanes[id].taken.Load() }, &counts)
	return counts
}

// Post gives the core an event. If nobody runs the loop, the caller does.
func (d *Driver) Post(ev Event) {
	d.mu.Lock()
	d.inbox = append(d.inbox, ev)
	if d.busy {
		d.mu.Unlock()
		return
	}
	d.busy = true
	d.mu.Unlock()
	d.run(turnLength)
}

// run works through events until there are none, or budget is used up and a goroutine goes on.
func (d *Driver) run(budget int) {
	for {
		d.mu.Lock()
		for _, ask := range d.asks {
			ask <- d.counts()
		}
		d.asks = d.asks[:0]
		if len(d.inbox) == 0 {
			d.busy = false
			d.mu.Unlock()
			return
		}
		d.turn, d.inbox = d.inbox, d.turn[:0]
		d.mu.Unlock()
		d.step()
		if budget -= len(d.turn); budget <= 0 {
			d.spawn(func() { d.run(turnLength) })
			return
		}
	}
}

// step gives the core the events of this turn, after the time if any of them could ask for it.
func (d *Driver) step() {
	if d.fired.Swap(false) {
		d.timerAt = 0
	}
	timed := d.core.watchful(&d.gate) // a clean batch asks for no time
	for i := range d.turn {
		timed = timed || d.turn[i].Detail != nil
	}
	if timed {
		d.tickDetail.Now = d.now()
		d.apply(&d.tick)
	}
	if d.squeezed {
		d.relieve()
	}
	for i := range d.turn {
		d.apply(&d.turn[i])
	}
	clear(d.turn)
	d.setTimer()
}

// Time is the wall clock's time at t.
func (d *Driver) Time(t Ticks) time.Time { return d.start.Add(time.Duration(t-1) * time.Millisecond) }

// now is the core's time. It begins at 1, since 0 stands for no time.
func (d *Driver) now() Ticks {
	return 1 + Ticks(d.clock.Now().Sub(d.start)/time.Millisecond)
}

func (d *Driver) apply(ev *Event) {
	effects := d.core.Step(ev)
	if d.observe != nil {
		d.observe(ev, effects)
	}
	for i := range effects {
		d.effect(&effects[i])
	}
}

func (d *Driver) effect(e *Effect) {
	switch e.Kind {
	case Deliver:
		lane := d.Lane(e.Delivery.Consumer)
		e.Delivery.Lane = lane
		lane.mailbox <- e.Delivery // never blocks: the core has credit for it
	case Settle:
		d.gate.settled(e.Settlement.Messages, e.Settlement.Bytes)
		if !e.Settlement.Void {
			d.world.Settle(e.Settlement)
		}
	case Release:
		e.Batch.ReleaseSlab()
	case Free:
		e.Batch.Free()
	case Evacuate:
		d.evacuate(e.Batch, int(e.Index), e.Into)
	case Share:
		ShareOne(e.Batch, 0, e.Into)
	case DeadLetter:
		d.world.Bury(e.Unit, e.Consumer, e.Batch, e.Letter)
	case LapseHold:
		if d.world.Lapse(e.Handle) {
			d.Post(Event{Kind: HoldLapsed, Consumer: e.Consumer, Detail: &Detail{Token: e.Token}})
		}
	case AnnounceLink:
		d.world.LinkSettled(e.Link)
	case SetWindow:
		d.gate.resize(e.Window)
	case SetTimer:
		d.deadline = e.At
	case WantCredit:
		d.Lane(e.Consumer).watch(e.Items)
	case Quiet:
		d.world.Quiet(e.Consumer, e.Pause, e.Count)
	case Retired:
		d.world.Retired(e.Consumer)
	case Drained:
		d.world.Drained(e.Count)
	}
}

// setTimer sees to it that a Tick comes at the deadline. A timer that fires earlier is left alone: the deadline is looked at again then.
func (d *Driver) setTimer() {
	if d.deadline == 0 || d.timerAt != 0 && d.timerAt <= d.deadline {
		return
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timerAt = d.deadline
	wait := time.Duration(d.deadline-1)*time.Millisecond - d.clock.Now().Sub(d.start)
	d.timer = d.clock.AfterFunc(max(wait, 0), func() {
		d.fired.Store(true)
		d.wake()
	})
}

// wake has the core look at the time.
func (d *Driver) wake() { d.Post(Event{Kind: Tick, Detail: &Detail{Now: d.now()}}) }

// evacuate copies message i of b to memory of its own. If there is none, into keeps the slab instead, and the source waits until there is:
// nothing is dropped.
func (d *Driver) evacuate(b *arena.Batch, i int, into *arena.Batch) {
	if err := Copy(d.evac, b, i, into); err == nil {
		return
	}
	ShareOne(b, i, into)
	if !d.squeezed {
		d.squeezed = true
		d.Post(Event{Kind: Pressure, Detail: &Detail{On: true}})
		d.awaitRoom()
	}
}

// relieve lets the source go on if there is memory again. Another may have taken what there was: then it waits anew.
func (d *Driver) relieve() {
	if d.roomy.Swap(false) {
		d.awaiting = false
	}
	if d.evac.Room() {
		d.squeezed = false
		d.Post(Event{Kind: Pressure, Detail: &Detail{}}) // after the word that there is none, which may still be in the inbox
		return
	}
	d.awaitRoom()
}

// awaitRoom has the loop woken when there is memory to be had. Whoever releases it may hold locks, so that runs apart from it.
func (d *Driver) awaitRoom() {
	if d.awaiting {
		return
	}
	d.awaiting = true
	d.evac.AfterRoom(func() {
		d.roomy.Store(true)
		d.spawn(d.wake)
	})
}

// ShareOne makes into a batch of one message, message i of b, where it is; into has its own reference to the slab.
func ShareOne(b *arena.Batch, i int, into *arena.Batch) {
	if !mutate.On(mutate.ShareUncounted) {
		b.Slab.Retain()
	}
	into.Slab = b.Slab
	into.Frames = append(into.Frames[:0], b.Frames[i])
	if len(b.Hashes) > 0 {
		into.Hashes = append(into.Hashes[:0], b.Hashes[i])
	}
}

// Copy makes into a batch of one message, a copy of message i of b in memory leased from account and sized for it.
func Copy(account *arena.Account, b *arena.Batch, i int, into *arena.Batch) error {
	f := b.Frames[i]
	inside := f.KeyLen == 0 || f.KeyOff >= f.Off && f.KeyOff+f.KeyLen <= f.Off+f.Len
	size := int(f.Len + f.HdrLen)
	if !inside {
		size += int(f.KeyLen)
	}
	slab, err := account.LeaseSized(max(size, 1))
	if err != nil {
		return err
	}
	mem := slab.Bytes()
	at := uint32(copy(mem, b.Payload(i)))
	g := arena.Frame{Len: f.Len, KeyLen: f.KeyLen, HdrLen: f.HdrLen}
	if inside {
		g.KeyOff = f.KeyOff - f.Off
	} else {
		g.KeyOff = at
		at += uint32(copy(mem[at:], b.Key(i)))
	}
	if f.HdrLen > 0 {
		g.HdrOff = at
		copy(mem[at:], b.Headers(i))
	}
	if f.KeyLen == 0 {
		g.KeyOff = 0
	}
	into.Slab = slab
	into.Frames = append(into.Frames[:0], g)
	if len(b.Hashes) > 0 {
		into.Hashes = append(into.Hashes[:0], b.Hashes[i])
	}
	return nil
}

// Gate is where a source waits while it has as much unsettled as its window allows.
type Gate struct {
	messages atomic.Int64
	bytes    atomic.Int64
	maxMsgs  atomic.Int64
	maxBytes atomic.Int64
	waiting  atomic.Int32
	open     chan struct{} // one token: look again
}

func (g *Gate) init(w Window) {
	g.open = make(chan struct{}, 1)
	g.maxMsgs.Store(int64(w.Messages))
	g.maxBytes.Store(w.Bytes)
}

func (g *Gate) full() bool {
	if mutate.On(mutate.WindowIgnored) {
		return false
	}
	return g.messages.Load() >= g.maxMsgs.Load() || g.bytes.Load() >= g.maxBytes.Load()
}

// Wait returns when the window has room, or when one of the channels is closed; then it reports false.
func (g *Gate) Wait(done, stopped <-chan struct{}) bool {
	for g.full() {
		g.waiting.Add(1)
		if g.full() {
			select {
			case <-g.open:
			case <-done:
			case <-stopped:
			}
		}
		g.waiting.Add(-1)
		select {
		case <-done:
			g.wake() // it may have taken the word that was for another
			return false
		case <-stopped:
			return false
		default:
		}
	}
	g.wake() // there may be room for another who waits
	return true
}

func (g *Gate) arrived(messages int, bytes int64) {
	g.messages.Add(int64(messages))
	g.bytes.Add(bytes)
}

func (g *Gate) settled(messages int, bytes int64) {
	g.messages.Add(-int64(messages))
	g.bytes.Add(-bytes)
	g.wake()
}

func (g *Gate) resize(w Window) {
	g.maxMsgs.Store(int64(w.Messages))
	g.maxBytes.Store(w.Bytes)
	g.wake()
}

// roomy says whether a source that waits should go on: when an eighth of its window is free, so that it is not woken for every batch.
func (g *Gate) roomy() bool {
	messages, bytes := g.maxMsgs.Load(), g.maxBytes.Load()
	return g.messages.Load() <= messages-messages/8 && g.bytes.Load() <= bytes-bytes/8 && !g.full()
}

func (g *Gate) wake() {
	if g.waiting.Load() > 0 && g.roomy() {
		select {
		case g.open <- struct{}{}:
		default:
		}
	}
}
