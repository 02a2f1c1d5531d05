package penstocktest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// watched makes an instance of the plugin that says what became of each message.
func (h *Harness) watched() (plugin.Handler, error) {
	inner, err := h.plugin.New()
	if err != nil || inner == nil {
		return nil, err
	}
	w := watch{h: h, inner: inner}
	if b, ok := inner.(plugin.BatchHandler); ok {
		return &batchWatch{watch: w, batch: b}, nil
	}
	return &w, nil
}

// watch is a handler that notes the verdicts of another.
type watch struct {
	h     *Harness
	inner plugin.Handler
}

var (
	_ plugin.Handler      = (*watch)(nil)
	_ plugin.Starter      = (*watch)(nil)
	_ plugin.Stopper      = (*watch)(nil)
	_ plugin.BatchHandler = (*batchWatch)(nil)
)

// Start implements plugin.Starter.
func (w *watch) Start(ctx context.Context, env plugin.Env) error {
	if s, ok := w.inner.(plugin.Starter); ok {
		return s.Start(ctx, env)
	}
	return nil
}

// Stop implements plugin.Stopper.
func (w *watch) Stop(ctx context.Context) error {
	if s, ok := w.inner.(plugin.Stopper); ok {
		return s.Stop(ctx)
	}
	return nil
}

// Handle implements plugin.Handler.
func (w *watch) Handle(ctx context.Context, m *plugin.Message) error {
	id, attempt := ident(m), m.Attempt()
	defer w.panicked(func(err error) { w.h.handled(id, attempt, err, m.Held(key)) })
	err := w.inner.Handle(ctx, m)
	w.h.handled(id, attempt, err, m.Held(key))
	return err
}

// ident is the number of a message: the harness gives each a key hash of its own, which goes with it wherever it is copied.
func ident(m *plugin.Message) uint64 { return m.Batch(key).Hashes[m.Index(key)] }

// panicked notes a panic and lets it go on. It must be deferred.
func (w *watch) panicked(note func(err error)) {
	v := recover()
	if v == nil {
		return
	}
	if _, fault := v.(interface{ Addr() uintptr }); fault {
		w.h.t.Errorf("plugin %q used bytes of a message after Handle had returned, or beyond their end, at %s: "+
			"keep what you need with Clone or Hold", w.h.plugin.Name, faultLine())
	}
	note(&plugin.PanicError{Value: v})
	panic(v)
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

// batchWatch is a watch of a handler that takes batches.
type batchWatch struct {
	watch
	batch plugin.BatchHandler
}

// HandleBatch implements plugin.BatchHandler.
func (w *batchWatch) HandleBatch(ctx context.Context, ms *plugin.Messages) error {
	note := func(verdict func(i int) error) {
		for i := range ms.Len() {
			m := ms.At(i)
			w.h.handled(ident(m), m.Attempt(), verdict(i), nil)
		}
	}
	defer w.panicked(func(err error) { note(func(int) error { return err }) })
	err := w.batch.HandleBatch(ctx, ms)
	note(func(i int) error { return ms.Verdict(key, i, err) })
	return err
}

// handled hears what a call made of a message.
func (h *Harness) handled(id uint64, attempt int, err error, held *plugin.Held) {
	r := &Result{Attempt: attempt, Err: err, Held: held}
	var kind plugin.Kind
	var after time.Duration
	switch kind, after = plugin.Classify(err); kind {
	case plugin.KindAck:
	case plugin.KindReject:
		r.Verdict = Rejected
	case plugin.KindRetry:
		r.Verdict, r.After = Retried, after
	default:
		r.Verdict = Failed
	}
	if held != nil && err == nil {
		r.Verdict = Held
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[id-1]
	h.addLocked(l, r)
	if r.Verdict == Held {
		l.handle = held
	}
}

// addLocked adds a verdict to the history of a message.
func (h *Harness) addLocked(l *life, r *Result) {
	r.of, r.n = l, len(l.history)
	if r.Verdict != Held {
		r.Held, l.handle = nil, nil
	}
	l.history = append(l.history, r)
	h.log = append(h.log, r)
	close(h.changed)
	h.changed = make(chan struct{})
}
