package penstock_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/deadletter"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/source"
)

// Promise: a message goes every way through the graph, and settles when the last has ended; Run ends with its input.
func TestMessagesGoAllWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := &list{batches: [][]string{{"1", "2"}, {"3"}}}, &keep{}
		s := whole(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: in}},
			Plugins: []penstock.Plugin{
				from(forward("last", "end"), "left", "right"), // in any order
				from(forward("l", "left"), "in"),
				from(forward("r", "right"), "in"),
			},
			Sinks: []penstock.Sink{{Name: "out", From: []string{"end", "left"}, To: out}},
		})
		in.all(t)
		var want []string
		for _, n := range []string{"1", "2", "3"} {
			want = append(want, n+"llast", n+"rlast", n+"l")
		}
		out.want(t, want...)
		if s.Accepted != 3 || s.Settled != 3 || s.Returned != 0 || len(s.Rows) != 5 {
			t.Errorf("summary %+v", s)
		}
	})
}

// Promise: two sources can share a plugin and its sink; each hears of its own messages.
func TestSourcesShareAPlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, out := &list{batches: [][]string{{"a1", "a2"}}}, &list{batches: [][]string{{"b1"}, {"b2", "b3"}}}, &keep{}
		var held []*penstock.Held
		s := whole(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "a", From: a}, {Name: "b", From: b}},
			Plugins: []penstock.Plugin{{Name: "sum", From: []string{"a", "b"}, Emits: []string{"sums"}, New: function(
				func(_ context.Context, m *penstock.Message) error {
					if len(held) < 4 {
						h, err := m.Hold(time.Hour)
						held = append(held, h)
						return err
					}
					return m.Emit("sums", fmt.Append(nil, len(held)+1), plugin.EmitFrom(held...)) // parents of both
				})}},
			Sinks: []penstock.Sink{{Name: "out", From: []string{"sums"}, To: out}},
		})
		a.all(t)
		b.all(t)
		out.want(t, "5")
		if s.Accepted != 5 || s.Settled != 5 || s.Held != 4 {
			t.Errorf("summary %+v", s)
		}
	})
}

// Promise: when its context ends, Run goes on for Drain, gives back the rest, and that is no error.
func TestRunDrainsWithinItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &list{batches: [][]string{{"quick", "slow", "for ever", "held"}}, stay: true}
		goOn := make(chan struct{})
		rt, _ := prepare(t, penstock.Pipeline{
			Drain:   10 * time.Second,
			Sources: []penstock.Source{{Name: "in", From: in}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"in"}, New: function(func(ctx context.Context, m *penstock.Message) error {
				switch string(m.Payload()) {
				case "slow":
					if m.Attempt() == 1 {
						return penstock.Retry(errNo, 5*time.Second)
					}
				case "for ever":
					return penstock.Retry(errNo, time.Hour)
				case "held":
					h, err := m.Hold(time.Hour)
					time.AfterFunc(time.Second+10*time.Second+time.Millisecond, func() { _ = h.Ack() })
					return err
				}
				return nil
			})}},
		})
		stop := start(t, rt)
		time.Sleep(time.Second)
		began := time.Now()
		s, err := stop()
		if err != nil && !errors.As(err, new(*arena.LeakError)) {
			t.Error(err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("took %v", took)
		}
		if s.Accepted != 4 || s.Settled != 2 || s.Returned != 2 || in.returned != 2 || s.Dead != 0 || in.closed != 1 {
			t.Errorf("summary %+v, %d returned", s, in.returned)
		}
		close(goOn)
		time.Sleep(time.Minute)
	})
}

// Promise: a handler that does not return is named, and does not keep Run.
func TestRunNamesAHandlerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		rt, log := prepare(t, penstock.Pipeline{
			Drain:   time.Second,
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"a"}}}}},
			Plugins: []penstock.Plugin{{Name: "stuck", From: []string{"in"}, Timeout: time.Second, New: function(
				func(context.Context, *penstock.Message) error { <-goOn; return nil })}},
		})
		stop := start(t, rt)
		time.Sleep(time.Minute)
		s, err := stop()
		if err == nil || !strings.Contains(err.Error(), `plugin "stuck": Handle has not returned`) {
			t.Errorf("error is %v", err)
		}
		if !strings.Contains(log.String(), "overdue") || s.Returned != 1 {
			t.Errorf("log %s, summary %+v", log, s)
		}
		close(goOn)
	})
}

// Promise: a source that fails is reported, with what it has given settled, and the others go on.
func TestSourceThatFailsStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := &list{batches: [][]string{{"a"}}, err: errNo}, &list{batches: [][]string{{"b"}}}
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "bad", From: bad}, {Name: "good", From: good}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"bad", "good"}, New: function(ignore)}},
		})
		s, err := rt.Run(t.Context())
		if !errors.Is(err, errNo) || !strings.Contains(err.Error(), `source "bad"`) || s.Settled != 2 {
			t.Errorf("%v, %+v", err, s)
		}
		bad.all(t)
		good.all(t)
		if _, err := rt.Run(t.Context()); !errors.Is(err, penstock.ErrRan) {
			t.Errorf("second Run: %v", err)
		}
		if got := rt.Stats(); got.Settled != 2 {
			t.Errorf("stats after Run %+v", got)
		}
		if _, err := rt.Swap(t.Context(), "p", penstock.Version{New: function(ignore)}); err == nil {
			t.Error("swapped after Run")
		}
		if _, err := rt.Swap(t.Context(), "q", penstock.Version{}); !errors.Is(err, penstock.ErrNoPlugin) {
			t.Errorf("swap of nothing: %v", err)
		}
	})
}

// Promise: a plugin that does not start is an error of Run that names it, and nothing is read.
func TestPluginThatDoesNotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &list{batches: [][]string{{"a"}}}
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: in}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"in"}, New: func() (penstock.Handler, error) { return nil, errNo }}},
			Sinks:   []penstock.Sink{{Name: "s", From: []string{"in"}, To: &keep{}}},
		})
		if _, err := rt.Run(t.Context()); !errors.Is(err, errNo) || !strings.Contains(err.Error(), `"p"`) || in.given != 0 {
			t.Errorf("%v, %d read", err, in.given)
		}
		select {
		case <-rt.Started():
			t.Error("it says that it has started")
		default:
		}
	})
}

// Promise: Started is closed once all runs, and not before.
func TestStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"a"}}}}},
			Sinks:   []penstock.Sink{{Name: "s", From: []string{"in"}, To: &keep{}}},
		})
		select {
		case <-rt.Started():
			t.Error("it says that it has started")
		default:
		}
		if _, err := rt.Run(t.Context()); err != nil {
			t.Error(err)
		}
		<-rt.Started()
	})
}

// Promise: the dead letters hold the message and all that is known of it.
func TestDeadLettersTellTheStory(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := &list{batches: [][]string{{`{"k":"key"}`, "fine"}}, headers: arena.AppendHeader(nil, "h", []byte("v"))}
		began := time.Now()
		s := whole(t, penstock.Pipeline{
			Data:    dir,
			Sources: []penstock.Source{{Name: "in", From: in, Key: penstock.JSONKey("k")}},
			Plugins: []penstock.Plugin{{Name: "p", Version: "7", From: []string{"in"}, Retry: penstock.RetryPolicy{Attempts: 3}, New: function(
				func(_ context.Context, m *penstock.Message) error {
					if m.Key() != nil {
						return fmt.Errorf("attempt %d", m.Attempt())
					}
					return nil
				})}},
		})
		in.all(t)
		if s.Dead != 1 || s.Settled != 2 || s.Retried != 2 {
			t.Errorf("summary %+v", s)
		}
		n := 0
		for l, err := range deadletter.Read(deadletter.Path(dir)) {
			n++
			if err != nil || string(l.Payload) != `{"k":"key"}` || string(l.Key) != "key" || len(l.Headers) != 1 || string(l.Headers[0].Value) != "v" ||
				l.Source != "in" || l.Stream != "in" || l.Plugin != "p" || l.Version != "7" || l.Attempts != 3 || l.Reason != "attempt 3" || l.ID == "" ||
				l.First.Before(began) || l.Died.Before(l.First.Add(100*time.Millisecond)) {
				t.Errorf("letter %+v, %v", l, err)
			}
		}
		if n != 1 {
			t.Errorf("%d letters", n)
		}
	})
	if m, _ := filepath.Glob(filepath.Join(dir, "*")); len(m) == 0 {
		t.Error("no file")
	}
}

// Promise: when dead letters cannot be written their plugin waits, others go on, nothing is dropped, and all goes on when they can be.
func TestDeadLettersThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, dead := &list{batches: [][]string{{"bad"}, {"a"}, {"b"}}}, &store{err: errNo}
		var other, same atomic.Int64
		rt, log := prepare(t, penstock.Pipeline{
			DeadLetters: dead,
			Sources:     []penstock.Source{{Name: "in", From: in}},
			Plugins: []penstock.Plugin{
				{Name: "p", From: []string{"in"}, New: function(func(_ context.Context, m *penstock.Message) error {
					same.Add(1)
					if string(m.Payload()) == "bad" {
						return penstock.Reject(errNo)
					}
					return nil
				})},
				{Name: "q", From: []string{"in"}, New: function(func(context.Context, *penstock.Message) error { other.Add(1); return nil })},
			},
		})
		time.AfterFunc(time.Hour, func() {
			if _, settled, cursor := in.now(); cursor != 0 || settled > 2 || other.Load() != 3 {
				t.Errorf("%d settled, cursor at %d, the other has %d", settled, cursor, other.Load())
			}
			dead.mu.Lock()
			dead.err = nil
			dead.mu.Unlock()
		})
		s, err := rt.Run(t.Context())
		if err != nil || s.Dead != 1 || len(dead.letters) != 1 || same.Load() != 3 {
			t.Errorf("%v, %+v, %d letters, %d handled", err, s, len(dead.letters), same.Load())
		}
		in.all(t)
		if !strings.Contains(log.String(), "dead letters cannot be written") {
			t.Error("nothing is logged")
		}
	})
}

// stopper emits as it stops.
type stopper struct {
	env plugin.Env
}

func (s *stopper) Start(_ context.Context, env plugin.Env) error   { s.env = env; return nil }
func (s *stopper) Handle(context.Context, *penstock.Message) error { return nil }
func (s *stopper) Stop(ctx context.Context) error                  { return s.env.Emit(ctx, "out", []byte("bye")) }

// Promise: what a plugin emits as it stops still arrives, also by way of others.
func TestEmitsInStopArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &keep{}
		whole(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"a"}}}}},
			Plugins: []penstock.Plugin{
				{Name: "p", From: []string{"in"}, Emits: []string{"out"}, New: func() (penstock.Handler, error) { return &stopper{}, nil }},
				from(forward("q", "end"), "out"),
			},
			Sinks: []penstock.Sink{{Name: "s", From: []string{"end"}, To: out}},
		})
		out.want(t, "byeq")
	})
}

// Promise: the cursor moves over what is settled without a hole only, and is written down while things settle.
func TestCursorAndCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &list{batches: [][]string{{"a", "b", "hold", "c"}, {"d"}}, stay: true}
		held := make(chan *penstock.Held, 1)
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: in}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"in"}, New: function(func(_ context.Context, m *penstock.Message) error {
				if string(m.Payload()) != "hold" {
					return nil
				}
				h, err := m.Hold(time.Hour)
				held <- h
				return err
			})}},
		})
		stop := start(t, rt)
		time.Sleep(10 * time.Second)
		if _, settled, cursor := in.figures(); settled != 4 || cursor != 2 {
			t.Errorf("%d settled, cursor at %d", settled, cursor)
		}
		in.mu.Lock()
		n := in.checkpoints
		in.mu.Unlock()
		_ = (<-held).Ack()
		time.Sleep(10 * time.Second)
		if _, settled, cursor := in.figures(); settled != 5 || cursor != 5 {
			t.Errorf("%d settled, cursor at %d", settled, cursor)
		}
		if _, err := stop(); err != nil {
			t.Error(err)
		}
		if n != 1 || in.checkpoints != 2 {
			t.Errorf("%d checkpoints, then %d", n, in.checkpoints)
		}
	})
}

// Promise: a key function that returns other bytes than the payload's is refused, by name.
func TestKeyFunctionThatMisbehavesIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &list{batches: [][]string{{"a"}}}
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: in, Key: bytes.Clone}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"in"}, New: function(ignore)}},
		})
		s, err := rt.Run(t.Context())
		if !errors.As(err, new(*penstock.KeyError)) || !strings.Contains(err.Error(), `"in"`) || s.Accepted != 0 {
			t.Errorf("%v, %+v", err, s)
		}
	})
}

// Promise: a message at which the handler always panics goes to the dead letters by the default policy, and the others are handled.
func TestMessageThatAlwaysPanicsIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := &list{batches: [][]string{{"a", "panic", "b"}}}, &keep{}
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: in}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"in"}, Emits: []string{"out"}, New: function(
				func(_ context.Context, m *penstock.Message) error {
					if string(m.Payload()) == "panic" {
						panic("always")
					}
					return m.Emit("out", m.Payload())
				},
			)}},
			Sinks: []penstock.Sink{{Name: "out", From: []string{"out"}, To: out}},
		})
		s, err := rt.Run(t.Context())
		if err != nil || s.Settled != 3 || s.Dead != 1 {
			t.Errorf("%v, %+v", err, s)
		}
		out.want(t, "a", "b")
	})
}

// Promise: a key function, or a source, that panics ends that source with an error that names it, and nothing else.
func TestPanicOfASourceIsItsError(t *testing.T) {
	for name, broken := range map[string]penstock.Source{
		"key function": {Name: "in", From: &list{batches: [][]string{{"a"}}}, Key: func([]byte) []byte { panic("no key") }},
		"source":       {Name: "in", From: panics{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				other := &list{batches: [][]string{{"b", "c"}}}
				rt, _ := prepare(t, penstock.Pipeline{
					Sources: []penstock.Source{broken, {Name: "other", From: other}},
					Plugins: []penstock.Plugin{{Name: "p", From: []string{"in", "other"}, New: function(ignore)}},
				})
				s, err := rt.Run(t.Context())
				if err == nil || !strings.Contains(err.Error(), `"in"`) || !strings.Contains(err.Error(), "panicked") {
					t.Errorf("error %v", err)
				}
				if s.Accepted != 2 || s.Settled != 2 {
					t.Errorf("the other source: %+v", s)
				}
			})
		})
	}
}

// panics is a source that does.
type panics struct{}

func (panics) Run(context.Context, source.Intake) error { panic("no source") }
func (panics) Settle(source.Settlement)                 {}
func (panics) Close(context.Context) error              { return nil }

// Promise: the summary as JSON has the totals at the top.
func TestSummaryAsJSON(t *testing.T) {
	b, err := json.Marshal(penstock.Summary{Accepted: 1, Settled: 2, Retried: 3, Held: 4, Dead: 5, Dropped: 6})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"accepted", "settled", "retried", "held", "dead", "dropped"} {
		if got[name] != float64(i+1) {
			t.Errorf("%s is %v in %s", name, got[name], b)
		}
	}
}

// Promise: a plugin that blocks stops its source at the window, and leaves other sources alone.
func TestBlockedPluginStopsItsSourceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many []string
		for range 100 {
			many = append(many, strings.Repeat("x", 100))
		}
		blocked, free := &list{batches: [][]string{many}, endless: true}, &list{stay: true}
		for range 100 {
			free.batches = append(free.batches, many)
		}
		goOn := make(chan struct{})
		rt, _ := prepare(t, penstock.Pipeline{
			Memory:  64 << 20,
			Drain:   time.Second,
			Sources: []penstock.Source{{Name: "blocked", From: blocked, Limit: 1000}, {Name: "free", From: free}},
			Plugins: []penstock.Plugin{
				{Name: "p", From: []string{"blocked"}, New: function(func(context.Context, *penstock.Message) error { <-goOn; return nil })},
				{Name: "q", From: []string{"free"}, New: function(ignore)},
			},
		})
		stop := start(t, rt)
		time.Sleep(time.Second)
		given, settled, _ := blocked.figures()
		if given != 1000 || settled != 0 {
			t.Errorf("the blocked source has given %d, of which %d are settled", given, settled)
		}
		if given, settled, _ := free.figures(); given != 10_000 || settled != given {
			t.Errorf("the free source has given %d, of which %d are settled", given, settled)
		}
		time.AfterFunc(500*time.Millisecond, func() { close(goOn) })
		if _, err := stop(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}
