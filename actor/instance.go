package actor

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// instance is one life of a plugin: made by its factory, started, served, and stopped unless it has panicked.
type instance struct {
	handler plugin.Handler
	batch   plugin.BatchHandler // handler, if it is one
	version string
	epoch   uint32
	crashed bool
}

// launch makes an instance and starts it.
func (a *Actor) launch(ctx context.Context, make func() (plugin.Handler, error), version string, epoch uint32) (*instance, error) {
	var h plugin.Handler
	err := guard(func() (err error) {
		if h, err = make(); err == nil && h == nil {
			err = fmt.Errorf("its factory returned no handler")
		}
		return err
	})
	if err == nil {
		if s, ok := h.(plugin.Starter); ok {
			err = guard(func() error { return s.Start(ctx, a.env(version)) })
		}
	}
	if err != nil {
		return nil, fmt.Errorf("plugin %q: version %q does not start: %w", a.cfg.Name, version, err)
	}
	b, _ := h.(plugin.BatchHandler)
	return &instance{handler: h, batch: b, version: version, epoch: epoch}, nil
}

func (a *Actor) env(version string) plugin.Env {
	return plugin.Env{
		Plugin: a.cfg.Name, Version: version, Config: a.cfg.Settings, Logger: a.cfg.Logger, Clock: a.cfg.Clock, Emit: a.emitOrphan,
	}
}

// stop lets the handler clean up.
func (i *instance) stop(ctx context.Context) error {
	s, ok := i.handler.(plugin.Stopper)
	if !ok || i.crashed {
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

// current is the instance that serves now.
func (a *Actor) current() *instance {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.inst
}

// crash replaces an instance that has panicked: after a backoff, by another from the same factory. It returns when one serves, or when
// the actor is stopped. After too many crashes it waits until the plugin is resumed or replaced.
func (a *Actor) crash(old *instance, p *plugin.PanicError) {
	a.panics.Add(1)
	a.mu.Lock()
	if a.inst != old { // another worker, or a swap, was first
		a.mu.Unlock()
		return
	}
	old.crashed = true
	factory, version := a.cfg.New, a.cfg.Version
	a.mu.Unlock()
	a.cfg.Logger.Error("handler panicked", "plugin", a.cfg.Name, "version", old.version, "panic", fmt.Sprint(p.Value), "stack", string(p.Stack))
	for try := 0; a.ctx.Err() == nil; try++ {
		if !a.backoff() {
			return
		}
		inst, err := a.launch(a.ctx, factory, version, old.epoch)
		if err != nil {
			a.cfg.Logger.Error("plugin does not start again", "plugin", a.cfg.Name, "error", err)
			continue
		}
		a.mu.Lock()
		replaced := a.inst != old
		if !replaced {
			a.inst = inst
		}
		a.mu.Unlock()
		if !replaced {
			a.restarts.Add(1)
			a.state.Store(int32(Running))
		}
		return
	}
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
	a.crashes = append(recent, now)
	crashes, resume := len(a.crashes), a.resume
	a.mu.Unlock()
	if r.Crashes > 0 && crashes >= r.Crashes {
		a.state.Store(int32(Quarantined))
		a.cfg.Logger.Error("plugin quarantined: it gets no messages until it is resumed or replaced", "plugin", a.cfg.Name,
			"panics", crashes, "within", r.Within)
		select {
		case <-resume:
			return true
		case <-a.ctx.Done():
			return false
		}
	}
	a.state.Store(int32(Restarting))
	wait := r.Backoff
	for range min(crashes-1, 30) {
		wait = min(2*wait, max(r.Max, time.Millisecond))
	}
	return !a.cfg.Sleep(a.ctx, a.cfg.Clock, wait)
}

// Resume ends a quarantine: the plugin is started again. It reports false if the plugin was not quarantined.
func (a *Actor) Resume() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if State(a.state.Load()) != Quarantined {
		return false
	}
	a.crashes = a.crashes[:0]
	close(a.resume)
	a.resume = make(chan struct{})
	return true
}
