package actor

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// instance is one life of a plugin: made by its factory, started, served, and stopped unless it has panicked.
type instance struct {
	handler plugin.Handler
	batch   plugin.BatchHandler // handler, if it is one
	version string
	epoch   uint32
	crashed atomic.Bool
	over    chan struct{}  // closed when another has taken its place
	busy    sync.WaitGroup // workers of a pool that are at it
	held    atomic.Int64   // messages that it holds
	lapsed  atomic.Int64   // messages that it held too long
	handed  chan struct{}  // one token: it holds nothing, look again
}

// holdEnded hears that a message which the instance held has had its verdict, or has lapsed.
func (i *instance) holdEnded() {
	if i.held.Add(-1) == 0 {
		select {
		case i.handed <- struct{}{}:
		default:
		}
	}
}

// finished waits until the instance holds nothing more; it reports false if ctx ends first.
func (i *instance) finished(ctx context.Context) bool {
	for i.held.Load() > 0 {
		select {
		case <-i.handed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// launch makes an instance and starts it.
func (a *Actor) launch(ctx context.Context, v Version, epoch uint32) (*instance, error) {
	var h plugin.Handler
	err := guard(func() (err error) {
		if h, err = v.New(); err == nil && h == nil {
			err = fmt.Errorf("its factory returned no handler")
		}
		return err
	})
	if err == nil {
		if s, ok := h.(plugin.Starter); ok {
			err = guard(func() error { return s.Start(ctx, a.env(v)) })
		}
	}
	if err != nil {
		return nil, fmt.Errorf("plugin %q: version %q does not start: %w", a.cfg.Name, v.Name, err)
	}
	b, _ := h.(plugin.BatchHandler)
	return &instance{
		handler: h, batch: b, version: v.Name, epoch: epoch, over: make(chan struct{}), handed: make(chan struct{}, 1),
	}, nil
}

func (a *Actor) env(v Version) plugin.Env {
	return plugin.Env{
		Plugin: a.cfg.Name, Version: v.Name, Config: v.Config, Logger: a.cfg.Logger, Clock: a.cfg.Clock, Emit: a.emitOrphan,
	}
}

// stop lets the handler clean up.
func (i *instance) stop(ctx context.Context) error {
	s, ok := i.handler.(plugin.Stopper)
	if !ok || i.crashed.Load() {
		return nil
	}
	return guard(func() error { return s.Stop(ctx) })
}

// guard calls f and turns a panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &plugin.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// Serving is the version that serves, as it was given.
func (a *Actor) Serving() Version {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Version{Name: a.cfg.Version, New: a.cfg.New, Config: a.cfg.Settings}
}

// current is the instance that serves now.
func (a *Actor) current() *instance { return a.inst.Load() }

// install makes next the instance, if old still is.
func (a *Actor) install(old, next *instance) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inst.Load() != old {
		return false
	}
	a.inst.Store(next)
	close(old.over)
	return true
}

// enter takes the instance that serves now. One that has panicked serves nobody: then it waits for another.
func (w *worker) enter() {
	a := w.a
	for {
		if a.pool == nil {
			w.inst = a.current()
		} else {
			a.mu.RLock()
			w.inst = a.current()
			w.inst.busy.Add(1)
			a.mu.RUnlock()
		}
		if !w.inst.crashed.Load() || a.stopping.Load() {
			return
		}
		w.leave()
		select {
		case <-w.inst.over:
		case <-a.ctx.Done():
		}
	}
}

// leave ends what enter began.
func (w *worker) leave() {
	if w.a.pool != nil {
		w.inst.busy.Done()
	}
}

// crash reports what there is, and waits for an instance that has not panicked. That is no call, so nobody is overdue meanwhile.
func (w *worker) crash(p *plugin.PanicError) {
	w.flush()
	if w.attention.Load() != 0 {
		w.attend()
	}
	w.progress.Store(w.progress.Load() >> 20 << 20)
	w.leave()
	w.a.crash(w.inst, p)
	w.enter()
}

// crash replaces an instance that has panicked: after a backoff, by another from the same factory. It returns when one serves, or when
// the actor is stopped. After too many crashes it waits until the plugin is resumed or replaced. Where several workers panic, the first
// one sees to it.
func (a *Actor) crash(old *instance, p *plugin.PanicError) {
	a.panics.Add(1)
	a.cfg.Logger.Error("handler panicked", "plugin", a.cfg.Name, "version", old.version, "panic", fmt.Sprint(p.Value), "stack", string(p.Stack))
	if !old.crashed.CompareAndSwap(false, true) {
		return
	}
	for a.current() == old {
		if !a.backoff() {
			return
		}
		version := a.Serving()
		if a.current() != old {
			break
		}
		inst, err := a.launch(a.ctx, version, old.epoch)
		switch {
		case err != nil:
			a.cfg.Logger.Error("plugin does not start again", "plugin", a.cfg.Name, "error", err)
		case a.install(old, inst):
			a.restarts.Add(1)
		default: // a swap was quicker
			if err := inst.stop(a.ctx); err != nil {
				a.cfg.Logger.Warn("instance that is not needed did not stop cleanly", "plugin", a.cfg.Name, "error", err)
			}
		}
	}
	a.state.CompareAndSwap(int32(Restarting), int32(Running))
	a.state.CompareAndSwap(int32(Quarantined), int32(Running))
}

// backoff counts a crash and waits before the next start; it reports false if there is to be none.
func (a *Actor) backoff() bool {
	r := &a.cfg.Restart
	now := a.cfg.Clock.Now()
	a.mu.Lock()
	recent := a.crashes[:0]
	for _, t := range a.crashes {
		if now.Sub(t) < r.Within {
			recent = append(recent, t)
		}
	}
	recent = append(recent, now)
	a.crashes = recent
	crashes, resume := len(a.crashes), a.resume
	a.mu.Unlock()
	if r.Crashes > 0 && crashes >= r.Crashes {
		a.state.Store(int32(Quarantined))
		a.mu.Lock()
		if s := a.swap; s != nil {
			select {
			case s.crashed <- struct{}{}:
			default:
			}
		}
		a.mu.Unlock()
		a.cfg.Logger.Error("plugin quarantined: it gets no messages, and its sources wait, until Runtime.Resume or Runtime.Swap", "plugin", a.cfg.Name,
			"panics", crashes, "within", r.Within)
		return a.quarantine(resume)
	}
	a.state.Store(int32(Restarting))
	wait := r.Backoff
	for range min(crashes-1, 30) {
		wait = min(2*wait, max(r.Max, time.Millisecond))
	}
	return !a.cfg.Sleep(a.ctx, a.cfg.Clock, wait)
}

// quarantine waits until the plugin is resumed or replaced; it reports false if the actor is stopped.
func (a *Actor) quarantine(resume <-chan struct{}) bool {
	for crashed := a.current(); a.current() == crashed; {
		select {
		case <-resume:
			return true
		case f := <-a.control: // a swap, perhaps one that was given up meanwhile
			f(nil)
		case <-a.ctx.Done():
			return false
		}
	}
	a.mu.Lock()
	a.crashes = a.crashes[:0] // of the version that was replaced
	a.mu.Unlock()
	return true
}

// Resume ends a quarantine: the plugin is started again. It reports false if the plugin was not quarantined.
func (a *Actor) Resume() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.state.CompareAndSwap(int32(Quarantined), int32(Restarting)) {
		return false
	}
	a.crashes = a.crashes[:0]
	close(a.resume)
	a.resume = make(chan struct{})
	return true
}
