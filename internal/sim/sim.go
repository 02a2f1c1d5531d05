package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// Options are how a run is made, not what it is about.
type Options struct {
	Wait  func()    // returns when every other goroutine stands still: synctest.Wait
	Trace io.Writer // gets a line for each step, event and effect; nil for none
}

// Report is what a run was.
type Report struct {
	Steps    int
	Messages int // accepted and emitted
	Swaps    int // that went through
	Reloads  int
	Removed  int    // plugs, that were retired and stopped
	GaveUp   bool   // a drain ran out of time
	Trace    uint64 // a hash of all events and effects
}

// Sim is one run.
type Sim struct {
	seed  uint64
	opt   Options
	rnd   *rand.Rand
	set   *setup
	clock *simClock
	start time.Time
	arena *arena.Arena

	loops  []*simLoop
	plugs  []*plug
	holds  []*hold // whose verdict has not been tried
	dying  []*burial
	later  []func() // what drivers want run apart
	words  []func() // that a plug is quiet: on their way
	added  int      // plugs, by reloads
	byHeld map[*plugin.Held]*hold
	refs   []oldRef

	messages []*message // by id
	scratch  []byte
	calls    uint64 // of handlers
	links    uint64
	owing    string // what isComplete found last
	ending   bool
	failure  *Failure
	report   Report
	digest   uint64
}

// Run makes the history of a seed. The error is a *Failure.
func Run(seed uint64, opt Options) (r Report, err error) {
	s := &Sim{
		seed: seed, opt: opt, rnd: rand.New(rand.NewPCG(seed, 0x5eed)), clock: newClock(), byHeld: map[*plugin.Held]*hold{},
		scratch: make([]byte, 4096), messages: []*message{nil},
	}
	defer func() {
		if v := recover(); v != nil {
			s.fail(Misuse, "%v\n%s", v, debug.Stack())
		}
		s.abandon()
		r = s.report
		r.Messages, r.Trace = len(s.messages)-1, s.digest
		if s.failure != nil {
			err = s.failure
		}
	}()
	s.start = s.clock.Now()
	s.set = randomSetup(s.rnd)
	s.build()
	s.play()
	return r, nil
}

// fail notes the first invariant that did not hold. The run ends after the step in hand: fail is called from within handlers, whose
// panics are contained.
func (s *Sim) fail(i Invariant, format string, args ...any) {
	if s.failure == nil {
		s.failure = &Failure{Seed: s.seed, Invariant: i, Text: fmt.Sprintf(format, args...)}
		s.tracef("FAILURE %v", s.failure)
	}
}

func (s *Sim) tracef(format string, args ...any) {
	if s.opt.Trace != nil {
		_, _ = fmt.Fprintf(s.opt.Trace, "%6d  "+format+"\n", append([]any{s.now()}, args...)...)
	}
}

// now is the time in milliseconds of the run.
func (s *Sim) now() int64 { return int64(s.clock.Now().Sub(s.start) / time.Millisecond) }

func (s *Sim) build() {
	a, err := arena.New(arena.Config{Budget: s.set.slabs * 4096, SlabSize: 4096})
	if err != nil {
		panic(err)
	}
	s.arena = a
	for _, set := range s.set.plugs {
		s.plugs = append(s.plugs, s.newPlug(set))
	}
	for i, set := range s.set.sources {
		s.loops = append(s.loops, s.newLoop(i, set))
	}
	for _, l := range s.loops {
		for _, ln := range l.lanes {
			ln.attach()
		}
	}
}

func (s *Sim) account(c arena.Class, name string, guaranteed int64) *arena.Account {
	ac, err := s.arena.Account(c, name, guaranteed*4096, 1<<40)
	if err != nil {
		panic(err)
	}
	return ac
}

// plug is a plugin or a sink of the run.
type plug struct {
	s      *Sim
	set    *plugSetup
	actor  *actor.Actor // nil for a sink
	out    *sinkRun     // nil for a plugin
	lanes  []*lane
	emits  *arena.Account
	stays  *arena.Account
	env    plugin.Env
	latest int    // version made last
	seen   int    // version that has handled a message last
	state  uint64 // of a stateful instance, as its last message left it
	swap   *swapRun

	started  bool
	going    removal
	waits    bool       // it is to begin paused
	later    []string   // what it will read
	patience loop.Ticks // how long it has for what it is owed, once it is gone
}

// never is a time that does not come.
const never = math.MaxInt64

// lane is what one loop sends to one plug.
type lane struct {
	p    *plug
	l    *simLoop
	id   loop.ConsumerID
	c    loop.Consumer      // as the core has it
	pipe chan loop.Delivery // in place of the mailbox, so that the schedule decides which loop's delivery is next
	box  chan<- loop.Delivery
	keys map[uint64][]*debt

	out      int // deliveries not done with
	outBytes int64
	serving  bool
	paused   bool
	revokeAt int64  // holds of versions before epoch may be revoked from then on
	epoch    uint32 // that serves, as the core was told
	stuck    int    // dead letters refused
	dropped  int
	dead     int
	held     int
	emitted  map[string]uint64 // by stream, the last one that has arrived

	drops     bool // it drops what is oldest, or has
	gone      bool
	goneUntil int64 // what it is owed may be buried from then on
	up        bool  // the core has been told of that time
	retired   bool
}

// maxEmit is how many bytes one call may emit.
const maxEmit = 4 * 4096

func (s *Sim) newPlug(set *plugSetup) *plug {
	p := &plug{s: s, set: set}
	if set.sink {
		p.out = newSinkRun(p)
		return p
	}
	p.emits = s.account(arena.Emits, set.name, 2)
	p.stays = s.account(arena.Evacuation, set.name, 0)
	p.latest = 1
	p.actor = actor.New(actor.Config{
		Name: set.name, Version: "1", New: p.factory(1), Order: set.order, Emits: set.emits,
		MaxMessage: 4096, MaxEmit: maxEmit, EmitMemory: p.emits, HoldMemory: p.stays, Arena: s.arena, Hash: hashOf,
		Places: 4, Clock: s.clock, Logger: slog.New(&panics{s: s}),
		Link:   func() uint64 { s.links++; return s.links },
		Orphan: p.orphanLane,
		Sleep:  func(context.Context, clockClock, time.Duration) bool { return false },
	})
	return p
}

// orphanLane is the way of messages that have no parent.
func (p *plug) orphanLane(string) (*loop.Lane, error) {
	ln := p.lanes[0]
	return ln.l.driver.Lane(ln.id), nil
}

// attach makes the lane the way to its plug.
func (ln *lane) attach() {
	p := ln.p
	if p.set.sink {
		p.out.sink.Attach(ln.l.driver.Lane(ln.id))
		ln.box = p.out.sink.Mailbox()
	} else {
		p.actor.Attach(ln.l.driver.Lane(ln.id))
		ln.box = p.actor.Mailbox()
	}
	p.start()
}

// abandon stops what still runs, so that the bubble can end.
func (s *Sim) abandon() {
	defer func() {
		if v := recover(); v != nil {
			s.fail(Misuse, "at the end: %v\n%s", v, debug.Stack())
		}
	}()
	if s.arena == nil {
		return
	}
	for _, p := range s.plugs {
		p.stop()
	}
	s.opt.Wait()
	err := s.arena.Close()
	if err != nil && s.failure == nil {
		s.fail(Leaks, "%v", err)
	}
}

func (p *plug) stop() {
	defer func() {
		if v := recover(); v != nil {
			p.s.fail(Misuse, "stopping %q: %v\n%s", p.set.name, v, debug.Stack())
		}
	}()
	if p.swap != nil {
		p.swap.cancel()
	}
	if !p.started || p.going == stopped {
		return
	}
	if p.out != nil {
		p.out.stop()
		return
	}
	if err := p.actor.Stop(context.Background()); err != nil {
		p.s.fail(Misuse, "stopping %q: %v", p.set.name, err)
	}
}

// panics is the log of the actors: a panic in it that the script did not ask for is a failure.
type panics struct{ s *Sim }

// Enabled is true: every record is looked at.
func (*panics) Enabled(context.Context, slog.Level) bool { return true }

// Handle looks for panics.
func (p *panics) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "parent of an aggregate took another verdict" {
		p.s.fail(Verdicts, "%s", r.Message)
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "panic" && a.Value.String() != scripted {
			p.s.fail(Misuse, "%s: %v", r.Message, a.Value)
		}
		return true
	})
	return nil
}

// WithAttrs is the handler itself.
func (p *panics) WithAttrs([]slog.Attr) slog.Handler { return p }

// WithGroup is the handler itself.
func (p *panics) WithGroup(string) slog.Handler { return p }

// note adds to the hash of the history.
func (s *Sim) note(parts ...uint64) {
	h := fnv.New64a()
	var b [8]byte
	for _, x := range append(parts, s.digest) {
		for i := range b {
			b[i] = byte(x >> (8 * i))
		}
		_, _ = h.Write(b[:])
	}
	s.digest = h.Sum64()
}
