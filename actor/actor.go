package actor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// key is the proof that messages are bound by Penstock itself.
var key lend.Key

// Config is what an Actor is made from. All fields without a default named are needed.
type Config struct {
	Name     string
	Version  string
	New      func() (plugin.Handler, error) // makes an instance; called again after a panic
	Settings json.RawMessage                // for Env.Config

	Workers int           // mode pool: how many; 0 for mode actor
	Order   bool          // order by key
	Timeout time.Duration // a Handle that takes longer is cancelled and named; 0 for never
	Spawn   int           // goroutines of Held.Go at one time
	Restart Restart
	Strict  bool // each message is a private copy that cannot be read after Handle

	Emits      []string // streams that it may emit to
	MaxMessage int      // bytes, of one emitted message
	MaxEmit    int      // bytes, of all that one call emits
	EmitMemory *arena.Account
	HoldMemory *arena.Account // for messages that stay
	Arena      *arena.Arena
	Hash       func(key []byte) uint64

	Places int // credit of all loops together
	Spare  int // for loops that come later: a pool does without
	Clock  clock.Clock
	Logger *slog.Logger
	Link   func() uint64                                                                // a number that no link has had
	Orphan func(stream string) (*loop.Lane, error)                                      // the lane for messages without a parent
	Sleep  func(ctx context.Context, c clock.Clock, d time.Duration) (interrupted bool) // nil: wait on the clock
}

// Restart is how an instance that panics is replaced.
type Restart struct {
	Backoff time.Duration // before the first restart; doubled while it keeps panicking
	Max     time.Duration // the longest backoff
	Crashes int           // that many panics
	Within  time.Duration // in that time, and the plugin is quarantined: it gets nothing more until it is resumed or replaced
}

// State is where an Actor is.
type State int32

// The states, in the order in which a plugin that goes well goes through them.
const (
	Idle        State = iota // not started
	Running                  // its instance serves
	Restarting               // its instance has panicked or did not start; another comes after a backoff
	Quarantined              // it has crashed too often; see Resume
	Stopped
)

var stateNames = [...]string{"idle", "running", "restarting", "quarantined", "stopped"}

// String is the name in lower case.
func (s State) String() string { return stateNames[s] }

// Stats are what an actor has seen, besides what the loops count.
type Stats struct {
	State    State
	Version  string
	Epoch    uint32
	Panics   uint64
	Restarts uint64
	Overdue  uint64 // calls that took longer than the timeout
	Swaps    uint64
	Spawned  int // goroutines of Held.Go now
}

// Errors of an Actor.
var (
	// ErrStopped says that the actor has been stopped.
	ErrStopped = errors.New("the plugin is stopped")
	// ErrSwapping refuses a second swap while one is under way.
	ErrSwapping = errors.New("a swap of this plugin is under way: wait for it")
	// ErrBusy refuses a Held.Go when as many goroutines run as the plugin may have.
	ErrBusy = errors.New("too many goroutines of Held.Go: wait until some are done, or give the verdict yourself")
)

// Actor runs one plugin. Its methods may be called concurrently.
type Actor struct {
	cfg     Config
	mailbox chan loop.Delivery
	control chan func(w *worker) // what is to be done between two deliveries; see ring
	rung    atomic.Bool          // a bell is in the mailbox
	tune    atomic.Pointer[tuning]

	ctx    context.Context // ends when the actor is stopped
	cancel context.CancelCauseFunc
	done   sync.WaitGroup

	workers []*worker
	pool    *pool // nil in mode actor

	mu      sync.RWMutex
	inst    atomic.Pointer[instance] // changed under mu
	lanes   []*loop.Lane
	swap    *Handover
	pauses  uint64
	crashes []time.Time
	resume  chan struct{} // closed to end a quarantine

	stopping atomic.Bool
	yielding atomic.Bool // what has not been handled is given back; see Yield
	state    atomic.Int32
	panics   atomic.Uint64
	restarts atomic.Uint64
	overdue  atomic.Uint64
	swaps    atomic.Uint64
	spawned  atomic.Int64
	holds    atomic.Uint64 // number of holds ever
	watch    clock.Timer
}

// New makes an Actor; it does nothing before Start.
func New(cfg Config) *Actor {
	a := &Actor{
		cfg: cfg, mailbox: make(chan loop.Delivery, cfg.Places+cfg.Spare+1), control: make(chan func(*worker), 1),
		resume: make(chan struct{}),
	}
	if a.cfg.Sleep == nil {
		a.cfg.Sleep = func(ctx context.Context, c clock.Clock, d time.Duration) bool { return clock.Sleep(ctx, c, d) != nil }
	}
	a.Tune(Tuning{Timeout: cfg.Timeout, Emits: cfg.Emits, MaxEmit: cfg.MaxEmit})
	for range max(cfg.Workers, 1) {
		a.workers = append(a.workers, newWorker(a))
	}
	if cfg.Workers > 0 {
		a.pool = newPool(a)
	}
	return a
}

// Mailbox is where loops put deliveries, as far as they have credit.
func (a *Actor) Mailbox() chan<- loop.Delivery { return a.mailbox }

// Attach tells the actor of a lane by which it is fed. It does not overlap with a swap.
func (a *Actor) Attach(l *loop.Lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lanes = append(a.lanes, l)
}

// Detach tells the actor that nothing comes by a lane any more. It does not overlap with a swap.
func (a *Actor) Detach(l *loop.Lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lanes = slices.DeleteFunc(a.lanes, func(m *loop.Lane) bool { return m == l })
}

// Tuning is what may be changed while the plugin runs.
type Tuning struct {
	Timeout time.Duration // as Config.Timeout
	Emits   []string
	MaxEmit int
}

// tuning is a Tuning as workers use it.
type tuning struct {
	Tuning
	emits map[string]bool
}

// Tune changes the plugin's bounds, from the next call of Handle on.
func (a *Actor) Tune(t Tuning) {
	n := &tuning{Tuning: t, emits: make(map[string]bool, len(t.Emits))}
	for _, s := range t.Emits {
		n.emits[s] = true
	}
	a.tune.Store(n)
	if State(a.state.Load()) == Running {
		a.mu.RLock()
		unwatched := a.watch == nil
		a.mu.RUnlock()
		if unwatched {
			a.watchLater()
		}
	}
}

// Start makes and starts the instance; an error is that of New or of Start. Then the actor serves until Stop.
func (a *Actor) Start(ctx context.Context) error {
	if err := a.Prepare(ctx); err != nil {
		return err
	}
	if a.pool != nil {
		a.pool.start()
	} else {
		a.done.Go(func() { a.workers[0].serve() })
	}
	a.watchLater()
	return nil
}

// Prepare makes and starts the instance without serving: the simulator, which calls Step itself, begins with it.
func (a *Actor) Prepare(ctx context.Context) error {
	a.ctx, a.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	inst, err := a.launch(ctx, a.Serving(), 1)
	if err != nil {
		a.cancel(err)
		return err
	}
	a.inst.Store(inst)
	a.state.Store(int32(Running))
	for _, w := range a.workers {
		w.reset()
	}
	return nil
}

// Step serves one delivery, if there is one, in the caller's goroutine. Only an actor that was prepared, and not started, may be stepped.
func (a *Actor) Step() bool {
	select {
	case f := <-a.control:
		f(a.workers[0])
		return true
	default:
	}
	select {
	case a.workers[0].own = <-a.mailbox:
		a.answered(&a.workers[0].own)
		if a.workers[0].own.Lane != nil {
			a.workers[0].take(&a.workers[0].own)
		}
		return true
	default:
		return false
	}
}

// ring has whoever reads the mailbox look up: at control, and whether the actor is being stopped. A reader that waits for one channel only
// wakes much faster than one that selects, so the bell comes by the mailbox, as a delivery without a lane. There is at most one, for which
// the mailbox has a place more than loops have credit.
func (a *Actor) ring() {
	if a.rung.CompareAndSwap(false, true) {
		a.mailbox <- loop.Delivery{}
	}
}

// answered notes that d was the bell, if it was.
func (a *Actor) answered(d *loop.Delivery) {
	if d.Lane == nil {
		a.rung.Store(false)
	}
}

// obey does what is to be done between two deliveries.
func (a *Actor) obey(w *worker) {
	if len(a.control) == 0 {
		return
	}
	select {
	case f := <-a.control:
		f(w)
	default:
	}
}

// Stop ends the actor: no further delivery is served, goroutines of Held.Go are cancelled and waited for, the instance is stopped. A
// handler that does not return before ctx ends is left behind; the error names it. What is in the mailbox is returned to the loops.
func (a *Actor) Stop(ctx context.Context) error {
	a.mu.Lock()
	if a.watch != nil {
		a.watch.Stop()
	}
	a.stopping.Store(true)
	a.mu.Unlock()
	a.cancel(ErrStopped)
	a.ring()
	finished := make(chan struct{})
	go func() {
		a.done.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		return fmt.Errorf("plugin %q: Handle has not returned: %w", a.cfg.Name, context.Cause(ctx))
	}
	a.returnAll()
	a.state.Store(int32(Stopped))
	for _, w := range a.workers {
		w.emits.close()
	}
	return a.current().stop(ctx)
}

// Yield ends the actor's work between two messages: what it has handled is reported, so that it can settle, and what it has not is given
// back. Nothing more is delivered to it. It is called when the time for draining is nearly up, before Stop.
func (a *Actor) Yield() {
	if !a.yielding.CompareAndSwap(false, true) {
		return
	}
	a.mu.RLock()
	lanes := slices.Clone(a.lanes)
	a.mu.RUnlock()
	for _, l := range lanes {
		l.Post(loop.Pause, &loop.Detail{After: 1})
	}
	for _, w := range a.workers {
		w.attention.Or(attendWatch)
	}
}

// spawn runs f in a goroutine that Stop waits for; false if the actor is being stopped.
func (a *Actor) spawn(f func()) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.stopping.Load() {
		return false
	}
	a.done.Go(f)
	return true
}

// returnAll gives back the deliveries that nobody will serve.
func (a *Actor) returnAll() {
	if a.pool != nil {
		a.pool.returnAll()
	}
	for {
		select {
		case d := <-a.mailbox:
			if a.answered(&d); d.Lane != nil {
				a.workers[0].revoke(&d, nil)
				a.finish(&d)
			}
		default:
			return
		}
	}
}

// finish returns a delivery's batch and its credit.
func (a *Actor) finish(d *loop.Delivery) {
	if d.Batch != nil && d.Batch.Return() {
		d.Lane.Report(d.Unit, true, nil)
	}
	d.Lane.Done(d)
}

// Stats are the figures so far.
func (a *Actor) Stats() Stats {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := Stats{
		State: State(a.state.Load()), Panics: a.panics.Load(), Restarts: a.restarts.Load(), Overdue: a.overdue.Load(),
		Swaps: a.swaps.Load(), Spawned: int(a.spawned.Load()),
	}
	if inst := a.current(); inst != nil {
		s.Version, s.Epoch = inst.version, inst.epoch
	}
	return s
}

// Check asks the instance whether it could serve. A plugin that has no Checker can, unless it is quarantined.
func (a *Actor) Check(ctx context.Context) error {
	switch s := State(a.state.Load()); s {
	case Running:
	case Quarantined:
		return fmt.Errorf("plugin %q is quarantined: it has panicked %d times within %v", a.cfg.Name, a.cfg.Restart.Crashes,
			a.cfg.Restart.Within)
	default:
		return fmt.Errorf("plugin %q is %v", a.cfg.Name, s)
	}
	a.mu.RLock()
	c, ok := a.current().handler.(plugin.Checker)
	a.mu.RUnlock()
	if !ok {
		return nil
	}
	return guard(func() error { return c.Check(ctx) })
}
