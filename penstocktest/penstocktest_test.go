package penstocktest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

var errBoom = errors.New("boom")

// handle makes a plugin of a function.
func handle(f func(ctx context.Context, m *plugin.Message) error) penstock.Plugin {
	return penstock.Plugin{
		Name: "p", Emits: []string{"a", "b"}, New: func() (penstock.Handler, error) { return plugin.HandlerFunc(f), nil },
	}
}

// obey does what the payload says.
func obey(_ context.Context, m *plugin.Message) error {
	switch p := string(m.Payload()); {
	case p == "retry":
		return plugin.Retry(errBoom, time.Minute)
	case p == "reject":
		return plugin.Reject(errBoom)
	case p == "fail":
		return errBoom
	case p == "panic":
		panic("ouch")
	case p == "twice" && m.Attempt() == 1:
		return errors.Join(m.Emit("a", []byte("lost")), errBoom)
	case p == "echo" || p == "twice":
		opts := []plugin.EmitOption{plugin.WithKey(m.Key()), plugin.WithHeader("h", m.Header("h"))}
		return errors.Join(m.Emit("b", m.Payload(), opts...), m.Emit("a", []byte(m.Stream())))
	case p == "undeclared":
		return m.Emit("elsewhere", nil)
	}
	return nil
}

// Promises: each verdict shows as what it is; attempts and backoff are those of the runtime; a failed attempt emits nothing.
func TestRun(t *testing.T) {
	echo := []Emit{{Stream: "b", Payload: "echo", Key: "k", Headers: []Header{{"h", "v"}}}, {Stream: "a", Payload: "in"}}
	Run(t, handle(obey), []Case{
		{Name: "acknowledged", Message: Message{Payload: "fine"}},
		{Name: "empty"},
		{Name: "emits", Message: Message{Payload: "echo", Key: "k", Headers: []Header{{"h", "v"}}}, Emits: echo},
		{Name: "asks to come again", Message: Message{Payload: "retry"}, Want: Retried, After: time.Minute, Is: errBoom},
		{Name: "rejects", Message: Message{Payload: "reject"}, Want: Rejected, Is: errBoom},
		{Name: "panics", Message: Message{Payload: "panic"}, Want: Failed, Is: plugin.ErrPanic, Then: []Then{{Want: Failed}}},
		{Name: "undeclared", Message: Message{Payload: "undeclared"}, Want: Failed, Is: plugin.ErrUndeclared},
		{Name: "the first attempt's emits are discarded", Message: Message{Payload: "twice"}, Want: Failed, Then: []Then{
			{Emits: []Emit{{Stream: "b", Payload: "twice", Headers: []Header{{"h", ""}}}, {Stream: "a", Payload: "in"}}},
		}},
		{Name: "dies of its fifth attempt", Message: Message{Payload: "fail"}, Want: Failed, Then: []Then{
			{Want: Failed}, {Want: Failed}, {Want: Failed}, {Want: Failed, Dead: true, Is: errBoom},
		}},
	})
}

// Promise: time stands still but for Advance, and what becomes due is handled at its time.
func TestAdvance(t *testing.T) {
	var at []time.Duration
	var h *Harness
	h = New(t, penstock.Plugin{Retry: penstock.RetryPolicy{Attempts: 3}, New: func() (penstock.Handler, error) {
		return plugin.HandlerFunc(func(context.Context, *plugin.Message) error {
			at = append(at, h.Now().Sub(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)))
			return plugin.Retry(errBoom, time.Minute)
		}), nil
	}})
	r := h.Send(Message{Payload: "x"})
	if r.Verdict != Retried || r.After != time.Minute || r.Attempt != 1 || r.Dead {
		t.Errorf("first: %+v", r)
	}
	if got := h.Advance(time.Minute - time.Millisecond); len(got) != 0 {
		t.Errorf("before its time: %v", got)
	}
	got := h.Advance(time.Hour)
	if len(got) != 2 || got[1].Attempt != 3 || !got[1].Dead {
		t.Errorf("in the hour: %v", got)
	}
	if want := "[0s 1m0s 2m0s]"; fmt.Sprint(at) != want {
		t.Errorf("handled at %v, want %v", at, want)
	}
	if r.Next().Attempt != 2 || r.Next().Next().Attempt != 3 {
		t.Error("Next does not go through the history")
	}
}

// held is a handler that leaves the test its Held.
func held(lease time.Duration) penstock.Plugin {
	return handle(func(_ context.Context, m *plugin.Message) error {
		if m.Attempt() > 1 {
			return nil
		}
		if string(m.Payload()) == "first" {
			if err := m.Emit("b", m.Payload()); err != nil {
				return err
			}
		}
		_, err := m.Hold(lease)
		return err
	})
}

func TestHeld(t *testing.T) {
	held := held(time.Minute)
	Run(t, held, []Case{
		{Name: "acknowledged", Message: Message{Payload: "x"}, Want: Held, Then: []Then{{
			Do: func(r Result) {
				if err := errors.Join(r.Held.Emit("a", []byte("y")), r.Held.Ack()); err != nil {
					t.Error(err)
				}
			},
			Emits: []Emit{{Stream: "a", Payload: "y"}},
		}}},
		{Name: "acknowledged, with what the call emitted", Message: Message{Payload: "first"}, Want: Held, Then: []Then{{
			Do: func(r Result) { _ = r.Held.Ack() }, Emits: []Emit{{Stream: "b", Payload: "first"}},
		}}},
		{Name: "retried, without what the call emitted", Message: Message{Payload: "first"}, Want: Held, Then: []Then{
			{Do: func(r Result) { _ = r.Held.Retry(errBoom, time.Second) }, Want: Retried}, {},
		}},
		{Name: "retried", Message: Message{Payload: "x"}, Want: Held, Then: []Then{
			{Do: func(r Result) { _ = r.Held.Retry(errBoom, time.Second) }, Want: Retried, After: time.Second, Is: errBoom}, {},
		}},
		{Name: "empty and retried", Want: Held, Then: []Then{
			{Do: func(r Result) { _ = r.Held.Retry(errBoom, time.Second) }, Want: Retried}, {},
		}},
		{Name: "rejected", Message: Message{Payload: "x"}, Want: Held, Then: []Then{
			{Do: func(r Result) { _ = r.Held.Reject(errBoom) }, Want: Rejected, Is: errBoom},
		}},
		{Name: "lapses", Message: Message{Payload: "x"}, Want: Held, Then: []Then{
			{Want: Lapsed, Is: loop.ErrLapsed}, {},
		}},
		{Name: "lapses at its time", Message: Message{Payload: "x"}, Want: Held, Then: []Then{
			{Advance: time.Minute, Want: Lapsed}, {},
		}},
		{Name: "extended", Message: Message{Payload: "x"}, Want: Held, Then: []Then{{
			Do:      func(r Result) { _ = r.Held.Extend(time.Hour) },
			Advance: 59 * time.Minute, Want: Lapsed, // only then does Next let the lease run out
		}}},
	})
}

// Promise: after a lapse the holder's verdict counts no more.
func TestLeaseLost(t *testing.T) {
	h := New(t, held(time.Minute))
	r := h.Send(Message{Payload: "x"})
	got := h.Advance(time.Minute)
	if len(got) != 1 || got[0].Verdict != Lapsed {
		t.Fatalf("after a minute: %v", got)
	}
	if err := r.Held.Ack(); !errors.Is(err, plugin.ErrLeaseLost) {
		t.Errorf("Ack: %v", err)
	}
	if next := r.Next().Next(); next.Verdict != Acked || next.Attempt != 2 {
		t.Errorf("then: %v", next)
	}
}

// What is given to Held.Go is waited for; many at a time.
func TestHeldGo(t *testing.T) {
	h := New(t, handle(func(_ context.Context, m *plugin.Message) error {
		held, err := m.Hold(time.Minute)
		if err != nil {
			return err
		}
		return held.Go(func(_ context.Context, m plugin.OwnedMessage) error {
			if string(m.Payload()) == "odd" && m.Attempt() == 1 {
				return errBoom
			}
			return nil
		})
	}))
	var sent []Result
	for i := range 100 {
		sent = append(sent, h.Send(Message{Payload: []string{"even", "odd"}[i%2]}))
	}
	for i, r := range sent {
		if r.Verdict != Held {
			t.Fatalf("%d: %v", i, r)
		}
		r = r.Next()
		if want := []Verdict{Acked, Failed}[i%2]; r.Verdict != want {
			t.Errorf("%d: %v, want %v", i, r, want)
		}
		if i%2 == 1 {
			if r = r.Next(); r.Verdict != Held {
				t.Errorf("%d: %v after the backoff", i, r)
			}
			if r = r.Next(); r.Verdict != Acked || r.Attempt != 2 {
				t.Errorf("%d: %v in the end", i, r)
			}
		}
	}
}

// An aggregate: the first messages are held until the third comes, whose emit is their child too.
func TestEmitFrom(t *testing.T) {
	var waiting []*plugin.Held
	h := New(t, handle(func(_ context.Context, m *plugin.Message) error {
		if len(waiting) < 2 {
			held, err := m.Hold(time.Hour)
			waiting = append(waiting, held)
			return err
		}
		return m.Emit("a", []byte("all"), plugin.EmitFrom(waiting...))
	}))
	one, two := h.Send(Message{Payload: "1"}), h.Send(Message{Payload: "2"})
	three := h.Send(Message{Payload: "3"})
	if diff := three.Diff(Want{Emits: []Emit{{Stream: "a", Payload: "all"}}}); diff != "" {
		t.Error(diff)
	}
	if a, b := one.Next(), two.Next(); a.Verdict != Acked || b.Verdict != Acked {
		t.Errorf("parents: %v, %v", a, b)
	}
}

// life is a handler with all there is to a life.
type lifetime struct {
	env  plugin.Env
	seen []int
	cfg  struct{ Every time.Duration }
}

func (l *lifetime) Start(_ context.Context, env plugin.Env) error {
	l.env = env
	if err := env.Decode(&l.cfg); err != nil {
		return err
	}
	env.Clock.AfterFunc(l.cfg.Every, func() { _ = env.Emit(context.Background(), "tick", []byte(env.Clock.Now().Format("15:04"))) })
	return nil
}

func (l *lifetime) Handle(context.Context, *plugin.Message) error { return nil }

func (l *lifetime) HandleBatch(_ context.Context, ms *plugin.Messages) error {
	l.seen = append(l.seen, ms.Len())
	for i := range ms.Len() {
		if string(ms.At(i).Payload()) == "bad" {
			ms.Fail(i, plugin.Reject(errBoom))
			continue
		}
		if err := ms.At(i).Emit("tick", ms.At(i).Payload()); err != nil {
			return err
		}
	}
	return nil
}

func (l *lifetime) Stop(ctx context.Context) error { return l.env.Emit(ctx, "tick", []byte("stopped")) }

// Start gets its config and clock, timers emit without a parent, batches have verdicts one by one, Stop is called.
func TestLife(t *testing.T) {
	l := &lifetime{}
	h := New(t, penstock.Plugin{
		New: func() (penstock.Handler, error) { return l, nil }, From: []string{"x", "y"}, Emits: []string{"tick"},
		Config: map[string]any{"every": time.Hour},
	})
	h.Advance(2 * time.Hour)
	if got := fmt.Sprint(h.Emits()); got != `[tick "01:00"]` {
		t.Errorf("the timer emitted %v", got)
	}
	rs := h.SendAll(Message{Payload: "good", Stream: "y"}, Message{Payload: "bad"}, Message{Payload: "fine"})
	for i, want := range []Want{
		{Emits: []Emit{{Stream: "tick", Payload: "good"}}}, {Verdict: Rejected, Is: errBoom}, {Emits: []Emit{{Stream: "tick", Payload: "fine"}}},
	} {
		if diff := rs[i].Diff(want); diff != "" {
			t.Errorf("message %d: %s", i, diff)
		}
	}
	if fmt.Sprint(l.seen) != "[3]" {
		t.Errorf("batches of %v", l.seen)
	}
	h.Stop()
	if got := fmt.Sprint(h.Emits()); got != `[tick "stopped"]` {
		t.Errorf("Stop emitted %v", got)
	}
}

// keeper keeps bytes that it was lent.
type keeper struct{ kept []byte }

//go:noinline
func (k *keeper) Handle(_ context.Context, m *plugin.Message) error {
	if k.kept != nil && k.kept[0] == 'x' { // the misuse
		return nil
	}
	k.kept = m.Payload()
	return nil
}

// Promise: a use of lent bytes after Handle has returned fails the test, and names the line.
func TestUseAfterReturn(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no pages to protect on this system")
	}
	said := fails(t, func(t testing.TB) {
		h := New(t, penstock.Plugin{New: func() (penstock.Handler, error) { return &keeper{}, nil }})
		h.Send(Message{Payload: "x"})
		if r := h.Send(Message{Payload: "y"}); !errors.Is(r.Err, plugin.ErrPanic) {
			t.Errorf("the second: %v", r)
		}
	})
	_, file, _, _ := runtime.Caller(0)
	if !strings.Contains(said, file) || !strings.Contains(said, "after Handle had returned") || strings.Contains(said, "the second") {
		t.Errorf("it said: %s", said)
	}
}

// Promise: a failure shows what was expected and what came.
func TestFailures(t *testing.T) {
	tests := []struct {
		name string
		c    Case
		says []string
	}{
		{"verdict", Case{Message: Message{Payload: "fail"}}, []string{`message "fail", attempt 1`, "verdict is failed, want acked", "boom"}},
		{"delay", Case{Message: Message{Payload: "retry"}, Want: Retried, After: time.Second}, []string{"after 1m0s, want 1s"}},
		{
			"error",
			Case{Message: Message{Payload: "fail"}, Want: Failed, Is: context.Canceled},
			[]string{"error is boom, want one that is: context canceled"},
		},
		{"missing emit", Case{Message: Message{Payload: "x"}, Emits: []Emit{{Stream: "a", Payload: "p"}}}, []string{`emit 1 is missing, want a "p"`}},
		{"surplus emit", Case{Message: Message{Payload: "echo", Key: "k"}}, []string{`emit 1 is b "echo" key "k"`, `emit 2 is a "in", want no more`}},
		{
			"other emit",
			Case{Message: Message{Payload: "echo"}, Emits: []Emit{{Stream: "a", Payload: "echo"}}},
			[]string{`emit 1 is b "echo"`, `want a "echo"`},
		},
		{"not dead", Case{Message: Message{Payload: "fail"}, Want: Failed, Dead: true}, []string{"dead letters: false, want true"}},
		{"nothing follows", Case{Message: Message{Payload: "x"}, Then: []Then{{}}}, []string{"no verdict follows", "it is acked, and done with"}},
		{"dead and done", Case{Message: Message{Payload: "reject"}, Want: Rejected, Then: []Then{{}}}, []string{"it went to the dead letters"}},
		{"unknown stream", Case{Message: Message{Stream: "z"}}, []string{`stream "z"`, `now ["in"]`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			said := fails(t, func(t testing.TB) { tt.c.run(t, handle(obey)) })
			for _, want := range tt.says {
				if !strings.Contains(said, want) {
					t.Errorf("it said:\n%s\nwant something with: %s", said, want)
				}
			}
		})
	}
}

func TestNewFailures(t *testing.T) {
	for want, p := range map[string]penstock.Plugin{
		"New is nil":     {},
		"does not start": {New: func() (penstock.Handler, error) { return nil, errBoom }},
		"Config":         {Config: func() {}, New: func() (penstock.Handler, error) { return nil, nil }},
		"no handler":     {New: func() (penstock.Handler, error) { return nil, nil }},
	} {
		if said := fails(t, func(t testing.TB) { New(t, p) }); !strings.Contains(said, want) {
			t.Errorf("it said %q, want something with %q", said, want)
		}
	}
}

// fails runs a test against a stand-in of t and returns what it had to say.
func fails(t *testing.T, test func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // a test that fails ends its goroutine
		defer close(done)
		test(r)
	}()
	<-done
	if len(r.said) == 0 {
		t.Error("it did not fail")
	}
	return strings.Join(r.said, "\n")
}

// recorder is a testing.TB that keeps failures to itself.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
