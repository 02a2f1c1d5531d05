package actor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/internal/mutate"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// Version is another version of a plugin, to take the place of the one that serves.
type Version struct {
	Name   string
	New    func() (plugin.Handler, error)
	Drain  time.Duration   // how long what the old one holds may still take, before it is taken back
	Config json.RawMessage // the settings for its Starter; nil for those of the old one
}

// Swapped says how a swap went.
type Swapped struct {
	From        string        `json:"from"`
	To          string        `json:"to"`
	Stateful    bool          `json:"stateful"`    // the plugin was paused, and its state carried over
	Lost        int           `json:"lost"`        // 0; stated because it is what one asks
	Redelivered int           `json:"redelivered"` // messages taken back from the old version
	Pause       time.Duration `json:"pause_ns"`    // for which the plugin served nothing
}

// Handover is a swap that is under way: the next version has started, and the old one serves. It ends with Commit or Abort.
type Handover struct {
	a           *Actor
	lanes       []*loop.Lane
	old, next   *instance
	version     Version
	pause       uint64        // the number of the pause
	quiet       chan struct{} // one token from each lane that is quiet
	crashed     chan struct{} // one token: the plugin was quarantined meanwhile
	redelivered int
}

// Swap replaces the plugin's instance. The new one is made and started first; if it does not start, the old one never stops serving.
//
// A plugin without state (no Exporter) and without order hands over between two deliveries; what the old version holds it may still
// finish, for as long as v.Drain. One with state or with order by key is paused: delivery stops, what is out comes back, the state is
// exported and imported, then the new version goes on; if any of that fails, the old one does.
//
// Swap fails with [ErrSwapping] while another swap is under way, and with ctx's error when that ends first.
func (a *Actor) Swap(ctx context.Context, v Version) (Swapped, error) {
	h, err := a.Begin(ctx, v)
	if err != nil {
		return Swapped{}, err
	}
	return h.Commit(ctx)
}

// Begin starts v beside the version that serves, which notices nothing. It fails as Swap does.
func (a *Actor) Begin(ctx context.Context, v Version) (*Handover, error) {
	if s := State(a.state.Load()); s == Idle || s == Stopped {
		return nil, fmt.Errorf("plugin %q is %v: swap it while it runs", a.cfg.Name, s)
	}
	a.mu.Lock()
	if a.swap != nil {
		a.mu.Unlock()
		return nil, fmt.Errorf("plugin %q: %w", a.cfg.Name, ErrSwapping)
	}
	a.pauses++
	h := &Handover{
		a: a, lanes: slices.Clone(a.lanes), old: a.current(), version: v, pause: a.pauses,
		quiet: make(chan struct{}, len(a.lanes)), crashed: make(chan struct{}, 1),
	}
	a.swap = h
	if h.version.Config == nil {
		h.version.Config = a.cfg.Settings
	}
	a.mu.Unlock()
	next, err := a.launch(ctx, h.version, h.old.epoch+1)
	if err != nil {
		h.end()
		return nil, err
	}
	h.next = next
	return h, nil
}

// end lets another swap begin.
func (h *Handover) end() {
	h.a.mu.Lock()
	h.a.swap = nil
	h.a.mu.Unlock()
}

// Abort stops the next version. The old one has noticed nothing.
func (h *Handover) Abort(ctx context.Context) error {
	defer h.end()
	return h.next.stop(context.WithoutCancel(ctx))
}

// Commit puts the next version in the place of the old one. If that fails, the old one goes on.
func (h *Handover) Commit(ctx context.Context) (Swapped, error) {
	defer h.end()
	a := h.a
	_, stateful := h.old.handler.(plugin.Exporter)
	how := Swapped{From: h.old.version, To: h.version.Name, Stateful: stateful || a.cfg.Order}
	select {
	case <-h.crashed: // a quarantine since Begin, which may be over
	default:
	}
	var err error
	if how.Stateful && State(a.state.Load()) != Quarantined { // one that has crashed has no state to carry over, and is at nothing
		err = h.exchange(ctx, &how)
	} else {
		err = h.handOver(ctx, &how)
	}
	if err != nil {
		stopErr := h.next.stop(context.WithoutCancel(ctx))
		return Swapped{}, errors.Join(fmt.Errorf("plugin %q: version %q goes on: %w", a.cfg.Name, h.old.version, err), stopErr)
	}
	a.swaps.Add(1)
	how.Redelivered = h.redelivered
	return how, nil
}

// handOver changes the instance between two deliveries.
func (h *Handover) handOver(ctx context.Context, how *Swapped) error {
	a, v, next := h.a, h.version, h.next
	old, began, err := a.replace(ctx, next, v, nil)
	if err != nil {
		return err
	}
	how.Pause = a.cfg.Clock.Now().Sub(began)
	before := old.lapsed.Load()
	for _, l := range h.lanes { // what the old one holds ends within v.Drain
		l.Post(loop.Unpause, &loop.Detail{Epoch: next.epoch, After: loop.TicksOf(v.Drain)})
	}
	if !old.finished(ctx) {
		a.cfg.Logger.Warn("replaced version still holds messages", "plugin", a.cfg.Name, "version", old.version, "messages", old.held.Load())
	}
	h.redelivered += int(old.lapsed.Load() - before)
	a.retire(ctx, old)
	return nil
}

// exchange pauses the plugin, carries its state over, and changes the instance.
func (h *Handover) exchange(ctx context.Context, how *Swapped) error {
	a, v, next := h.a, h.version, h.next
	began := a.cfg.Clock.Now()
	for _, l := range h.lanes {
		l.Post(loop.Pause, &loop.Detail{After: loop.TicksOf(v.Drain), Pause: h.pause})
	}
	resume := func(epoch uint32) {
		for _, l := range h.lanes {
			l.Post(loop.Unpause, &loop.Detail{Epoch: epoch})
		}
		how.Pause = a.cfg.Clock.Now().Sub(began)
	}
	for range h.lanes {
		select {
		case <-h.quiet:
		case <-h.crashed: // it will not be quiet, since its worker waits; and it has no state to carry over
			err := h.handOver(ctx, how)
			if err != nil {
				resume(0)
			}
			return err
		case <-ctx.Done():
			resume(0)
			return fmt.Errorf("waiting for what it has in hand: %w", context.Cause(ctx))
		}
	}
	old, _, err := a.replace(ctx, next, v, func(old *instance) error { return transfer(ctx, old, next) })
	if err != nil {
		resume(0)
		return err
	}
	resume(next.epoch)
	a.retire(ctx, old)
	return nil
}

// CanTakeOver says whether the plugin could take over the state of another, if that has any. Both have started.
func (a *Actor) CanTakeOver(from *Actor) error {
	_, stateful := from.current().handler.(plugin.Exporter)
	if _, ok := a.current().handler.(plugin.Importer); stateful && !ok {
		return fmt.Errorf("plugin %q: it has state, and version %q has no Importer to take it", a.cfg.Name, a.current().version)
	}
	return nil
}

// TakeOver carries the state of another plugin over, if that has any. Neither has anything in hand.
func (a *Actor) TakeOver(ctx context.Context, from *Actor) error {
	return transfer(ctx, from.current(), a.current())
}

// transfer carries the state of one instance over to another.
func transfer(ctx context.Context, old, next *instance) error {
	from, ok := old.handler.(plugin.Exporter)
	if !ok || old.crashed.Load() {
		return nil
	}
	to, ok := next.handler.(plugin.Importer)
	if !ok {
		return fmt.Errorf("version %q has state, but version %q has no Importer to take it", old.version, next.version)
	}
	var state []byte
	if err := guard(func() (err error) { state, err = from.Export(ctx); return err }); err != nil {
		return fmt.Errorf("export from version %q: %w", old.version, err)
	}
	if err := guard(func() error { return to.Import(ctx, state) }); err != nil {
		return fmt.Errorf("import into version %q: %w", next.version, err)
	}
	return nil
}

// replace makes next the instance, in the worker's goroutine and so between two deliveries, after before has succeeded. Workers of a pool
// take it up with their next delivery.
func (a *Actor) replace(ctx context.Context, next *instance, v Version, before func(old *instance) error) (*instance, time.Time, error) {
	type answer struct {
		old *instance
		at  time.Time
		err error
	}
	answered := make(chan answer, 1)
	var claimed atomic.Bool // by change, or by who waits for it no longer
	change := func(*worker) {
		if !claimed.CompareAndSwap(false, true) {
			return
		}
		x := answer{old: a.current(), at: a.cfg.Clock.Now()}
		if before != nil {
			x.err = before(x.old)
		}
		if x.err == nil {
			x.err = a.change(x.old, next, v)
		}
		answered <- x
	}
	if State(a.state.Load()) == Quarantined { // its worker waits; it finds the new instance when it is let go
		change(nil)
		a.endQuarantine()
	} else {
		select {
		case a.control <- change:
			a.ring()
		case <-ctx.Done():
		case <-a.ctx.Done():
		}
	}
	select {
	case x := <-answered:
		return x.old, x.at, x.err
	case <-ctx.Done():
	case <-a.ctx.Done():
	}
	if !claimed.CompareAndSwap(false, true) { // it is at it
		x := <-answered
		return x.old, x.at, x.err
	}
	if a.ctx.Err() != nil {
		return nil, time.Time{}, ErrStopped
	}
	return nil, time.Time{}, fmt.Errorf("its worker is busy: %w", context.Cause(ctx))
}

// change makes next the instance, and v what is started after a panic.
func (a *Actor) change(old, next *instance, v Version) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current() != old { // it was quarantined, and has been resumed at this moment
		return errors.New("its instance was started again meanwhile: swap it again")
	}
	if !mutate.On(mutate.OldVersionServes) {
		a.inst.Store(next)
	}
	a.cfg.New, a.cfg.Version, a.cfg.Settings = v.New, v.Name, v.Config
	close(old.over)
	return nil
}

// retire stops an instance that has been replaced, when no worker is at it any more.
func (a *Actor) retire(ctx context.Context, old *instance) {
	stop := func() {
		old.busy.Wait()
		if err := old.stop(context.WithoutCancel(ctx)); err != nil {
			a.cfg.Logger.Warn("replaced version did not stop cleanly", "plugin", a.cfg.Name, "version", old.version, "error", err)
		}
	}
	if a.pool == nil {
		stop()
		return
	}
	stopped := make(chan struct{})
	if !a.spawn(func() { stop(); close(stopped) }) {
		return // its workers end, and the actor stops the new one only: Stop was not promised while the old one served
	}
	select {
	case <-stopped:
	case <-ctx.Done():
	}
}

func (a *Actor) endQuarantine() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.crashes = a.crashes[:0]
	close(a.resume)
	a.resume = make(chan struct{})
}

// Quiet hears that, on one lane, nothing of the plugin is out in the pause of that number; count messages were taken back from it.
func (a *Actor) Quiet(pause uint64, count int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.swap; h != nil && (h.pause == pause || mutate.On(mutate.PauseNumberIgnored)) {
		h.redelivered += count
		select {
		case h.quiet <- struct{}{}:
		default:
		}
	}
}
