package pipetest

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// call is a call of a handler that is under way.
type call struct {
	plugin string
	began  time.Time // real time
	at     time.Time // virtual time
}

// player is a handler of the pipeline, watched.
type player struct {
	w     *world
	name  string
	inner plugin.Handler
}

var (
	_ plugin.Handler      = (*player)(nil)
	_ plugin.Starter      = (*player)(nil)
	_ plugin.Stopper      = (*player)(nil)
	_ plugin.BatchHandler = (*batchPlayer)(nil)
)

// player makes an instance of a plugin.
func (w *world) player(name string, create func() (plugin.Handler, error)) (plugin.Handler, error) {
	inner, err := create()
	if err != nil || inner == nil {
		return nil, err
	}
	p := player{w: w, name: name, inner: inner}
	if b, ok := inner.(plugin.BatchHandler); ok {
		return &batchPlayer{player: p, batch: b}, nil
	}
	return &p, nil
}

// Start implements plugin.Starter.
func (p *player) Start(ctx context.Context, env plugin.Env) error {
	s, ok := p.inner.(plugin.Starter)
	if !ok {
		return nil
	}
	env.Clock = pluginClock{p.w.clock, &p.w.pending}
	return s.Start(ctx, env)
}

// Stop implements plugin.Stopper.
func (p *player) Stop(ctx context.Context) error {
	if s, ok := p.inner.(plugin.Stopper); ok {
		return s.Stop(ctx)
	}
	return nil
}

// Handle implements plugin.Handler.
func (p *player) Handle(ctx context.Context, m *plugin.Message) error {
	defer p.enter()()
	return p.inner.Handle(ctx, m)
}

// batchPlayer is a player of a handler that takes batches.
type batchPlayer struct {
	player
	batch plugin.BatchHandler
}

// HandleBatch implements plugin.BatchHandler.
func (p *batchPlayer) HandleBatch(ctx context.Context, ms *plugin.Messages) error {
	defer p.enter()()
	return p.batch.HandleBatch(ctx, ms)
}

// enter notes that a call is under way, and makes a use of memory that is lent no more a panic. What it returns must be deferred.
func (p *player) enter() (leave func()) {
	c := &call{plugin: p.name, began: time.Now(), at: p.w.clock.Now()}
	p.w.mu.Lock()
	p.w.calls[c] = struct{}{}
	p.w.mu.Unlock()
	before := debug.SetPanicOnFault(true)
	return func() {
		v := recover()
		debug.SetPanicOnFault(before)
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		delete(p.w.calls, c)
		if v == nil {
			return
		}
		if _, fault := v.(interface{ Addr() uintptr }); fault {
			p.w.faults = append(p.w.faults, fmt.Sprintf("plugin %q used bytes of a message after Handle had returned, or beyond their end, "+
				"at %s: keep what you need with Clone or Hold", p.name, faultLine()))
		}
		panic(v)
	}
}

// faultLine is the line that touched memory that it may not.
func faultLine() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for fault, more := false, true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if fault && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		fault = fault || f.Function == "runtime.sigpanic"
	}
	return "an unknown line"
}

// inCall is the calls that are under way.
func (w *world) inCall() (out []call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.calls {
		out = append(out, *c)
	}
	return out
}
