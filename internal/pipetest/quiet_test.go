package pipetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

func TestGoroutine(t *testing.T) {
	for _, c := range []struct {
		text       string
		id, parent uint64
		state      string
		shown      string
	}{
		{
			"goroutine 19 [chan receive, 2 minutes, locked to thread]:\nmain.f(0x1)\n\t/a.go:8 +0x1\ncreated by main.main in goroutine 1\n\t/a.go:2 +0x2",
			19, 1, "chan receive", "main.f (chan receive)",
		},
		{"goroutine 7 gp=0xc0 m=3 mp=0xd [select (no cases)]:\nmain.f()\n\t/a.go:8 +0x1", 7, 0, "select", "main.f (select)"},
		{
			"goroutine 8 [sleep]:\ntime.Sleep(0x1)\n\t/t.go:3 +0x3\nmain.(*T).g(...)\n\t/a.go:8\ncreated by main.f in goroutine 7",
			8, 7, "sleep", "main.(*T).g (sleep)",
		},
		{"goroutine 9 [running] {\"k\": \"v\"}:\nmain.f()\n\t/a.go:8 +0x1", 9, 0, "running", "main.f (running)"},
		{"goroutine profile: total 1", 0, 0, "", ""},
		{"", 0, 0, "", ""},
	} {
		g := goroutine([]byte(c.text))
		if g.id != c.id || g.parent != c.parent || g.state != c.state || c.id != 0 && g.String() != c.shown {
			t.Errorf("%q\nis goroutine %d of %d, %q, shown as %q", c.text, g.id, g.parent, g.state, g)
		}
	}
}

// Promise: what a goroutine can do is seen, and only where it is of the pipeline.
func TestQuiet(t *testing.T) {
	foreign, own, over := make(chan func()), make(chan struct{}), make(chan struct{})
	go func() {
		for f := range foreign {
			go f()
		}
	}()
	q := newQuiet()
	spin := func() {
		defer func() { over <- struct{}{} }()
		for {
			select {
			case <-own:
				return
			default:
				_ = fmt.Sprint(own)
			}
		}
	}
	foreign <- spin
	if l := q.look(); l.busy() != "" {
		t.Errorf("a goroutine of somebody else counts: %s", l.busy())
	}
	go spin()
	if l := q.look(); l.running == "" || len(l.active) != 1 {
		t.Errorf("a goroutine that runs is not seen: %+v", l)
	}
	close(own)
	<-over
	<-over
	close(foreign)
	hold := make(chan struct{})
	go func() { <-hold }()
	for l := q.look(); l.busy() != ""; l = q.look() { // until it waits
	}
	close(hold)
}

// Promise: messages of several sources come in one after another, in the order of the test.
func TestSeveralSources(t *testing.T) {
	for range 20 {
		passes(t, map[string]handle{"p": copies}, `
sources: { a: { port: { address: x } }, b: { port: { address: x } } }
plugins: { p: { native: p, from: [ a, b ], emits: out } }
sinks: { out: { from: out, port: { address: x } } }
`, `
tests:
  - name: in order
    input: [ { source: b, payload: 1 }, { source: a, payload: 2 }, { source: a, payload: 3 }, { source: b, payload: 4 } ]
    expect: { out: [ 1, 2, 3, 4 ], a: [ 2, 3 ], b: [ 1, 4 ] }
`)
	}
}

// batches is a handler that says how many messages it has got at once, and fails the second at first.
type batches struct{}

func (batches) Handle(ctx context.Context, m *plugin.Message) error { return copies(ctx, nil, m) }

func (batches) HandleBatch(_ context.Context, ms *plugin.Messages) error {
	for i := range ms.Len() {
		if m := ms.At(i); i == 1 {
			ms.Fail(i, fmt.Errorf("the second of %d", ms.Len()))
		} else if err := m.Emit("out", fmt.Appendf(nil, "%s of %d", m.Payload(), ms.Len())); err != nil {
			return err
		}
	}
	return nil
}

// Promise: plugins that take batches get them as in production.
func TestBatches(t *testing.T) {
	r := kinds(map[string]handle{"split": func(_ context.Context, _ *handler, m *plugin.Message) error {
		for part := range strings.SplitSeq(string(m.Payload()), " ") {
			if err := m.Emit("parts", []byte(part)); err != nil {
				return err
			}
		}
		return nil
	}})
	r.Add(kind.Native("batches", func() (plugin.Handler, error) { return batches{}, nil }))
	got := mustRun(t, nil, `
sources: { in: { port: { address: x } } }
plugins:
  split: { native: split, from: in, emits: parts }
  batches: { native: batches, from: parts, emits: out }
sinks: { out: { from: out, port: { address: x } } }
`, `
tests:
  - name: three at once
    input: [ payload: a b c ]
    expect: { parts: [ a, b, c ], out: [ a of 3, c of 3, b ], counts: { retried: 1, accepted: 1 } }
`, func(o *Options) { o.Registry = r })
	if strings.Contains(got, "FAIL") {
		t.Error(got)
	}
}

// starter is a handler that takes long to start.
type starter struct{ begin func(env plugin.Env) }

func (s *starter) Start(_ context.Context, env plugin.Env) error {
	s.begin(env)
	return nil
}

func (s *starter) Handle(ctx context.Context, m *plugin.Message) error { return copies(ctx, nil, m) }

// Promise: input comes when all plugins have started, however they wait for that.
func TestSlowStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(env plugin.Env)
	}{
		{"sleep", func(plugin.Env) { time.Sleep(2 * patience) }}, // sleep: this is what is tested
		{"real time", func(plugin.Env) {
			timer := time.NewTimer(2 * patience)
			<-timer.C
		}},
		{"virtual time", func(env plugin.Env) {
			done := make(chan struct{})
			env.Clock.AfterFunc(time.Hour, func() { close(done) })
			<-done
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := kinds(nil)
			r.Add(kind.Native("p", func() (plugin.Handler, error) { return &starter{c.begin}, nil }))
			const tests = "tests: [ { name: a, input: [ payload: a ], expect: { out: [ a ] } } ]"
			got := mustRun(t, nil, through(""), tests, func(o *Options) { o.Registry = r })
			if strings.Contains(got, "FAIL") {
				t.Error(got)
			}
		})
	}
	stay := make(chan struct{})
	defer close(stay)
	r := kinds(nil)
	r.Add(kind.Native("p", func() (plugin.Handler, error) { return &starter{func(plugin.Env) { <-stay }}, nil }))
	got := mustRun(t, nil, through(""), "tests: [ { name: a, input: [ payload: a ], expect: {} } ]", func(o *Options) {
		o.Registry, o.Limit = r, 100*time.Millisecond
	})
	fails(t, got, "the pipeline does not start: the real time of the test is over")
}
