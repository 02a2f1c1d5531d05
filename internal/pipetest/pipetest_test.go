package pipetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

const flights = `
data: data
sources:
  flights: { port: { address: "${ADDRESS}" }, key: $.origin }
plugins:
  big: { filter: { where: 'msg.delay >= ${THRESHOLD}' }, from: flights, emits: late }
sinks:
  late: { from: late, port: { address: "${ADDRESS}" } }
  all: { from: [flights, late], port: { address: "${ADDRESS}" } }
`

const env = "env: { THRESHOLD: '60', ADDRESS: nowhere }\n"

// Promise: a test sees what the pipeline makes of its input, without a real source or sink.
func TestPipelineWithoutCode(t *testing.T) {
	passes(t, nil, flights, env+`
tests:
  - name: a late flight goes to late
    input:
      - payload: { origin: SEA, delay: 75 }
      - source: flights
        payload: '{"origin":"HNL", "delay":  3.0}'
        headers: { trace: abc }
    expect:
      late: [ '{"delay": 75, "origin": "SEA"}' ]
      flights: [ { origin: SEA, delay: 75 }, { origin: HNL, delay: 3 } ]
      all:
        any_order: true
        messages:
          - { payload: { origin: HNL, delay: 3 }, key: HNL, headers: { trace: abc } }
          - { payload: { origin: SEA, delay: 75.0 }, key: SEA }
          - { payload: { delay: 7.5e1, origin: SEA } }
      dead_letters: []
      counts: { accepted: 2, settled: 2, retried: 0 }
  - name: what is no flight is given up
    input: [ payload: no JSON ]
    expect:
      late: []
      dead_letters: [ { plugin: big, source: flights, stream: flights, payload: no JSON, attempts: 1 } ]
      counts: { dead: 1 }
`)
}

// Promise: nothing but the variables that the file sets is seen of the environment.
func TestEnvironmentIsNotSeen(t *testing.T) {
	t.Setenv("ADDRESS", "somewhere")
	_, err := runFiles(t, nil, flights, "env: { THRESHOLD: '60' }\ntests: [ { name: a, input: [], expect: {} } ]\n")
	if err == nil || !strings.Contains(err.Error(), "penstock.yaml:4:32: the variable ADDRESS is not set") {
		t.Errorf("error is %v", err)
	}
}

// Promise: a failure shows what differs, at the line of the expectation.
func TestDifferences(t *testing.T) {
	got := mustRun(t, map[string]handle{"p": copies}, through(""), `
tests:
  - name: it differs
    input:
      - payload: { k: a, n: 1 }
      - payload: { k: b, n: 2, text: same }
      - payload: some text
      - payload: { k: c }
    expect:
      out:
        - { k: a, n: 1 }
        - { k: b, n: 3, text: same }
        - { k: c }
        - "more"
      counts: { accepted: 5, settled: 4 }
  - name: in any order
    input: [ payload: { k: a }, payload: { k: b }, payload: { k: b } ]
    expect:
      out: { any_order: true, payloads: [ { k: b }, { k: a }, { k: c } ] }
  - name: keys and headers
    input: [ { payload: { k: a }, key: z, headers: { h: v, i: w } } ]
    expect:
      in: { messages: [ { payload: { k: a }, key: a, headers: { h: u } } ] }
`)
	want := `--- FAIL: it differs
    penstock_test.yaml:12: out: want 4 messages, got 4 messages (- expected, + got)
          (1 message as expected)
          message 2:
          {
            "k": "b",
        -   "n": 3,
        +   "n": 2,
            "text": "same"
          }
          message 3 is not expected:
        + some text
          (1 message as expected)
          missing:
        - more
    penstock_test.yaml:15: counts: accepted is 4, want 5
--- FAIL: in any order
    penstock_test.yaml:19: out: want 3 messages, got 3 messages (- expected, + got)
        - {
        -   "k": "c"
        - }
        + {
        +   "k": "b"
        + }
--- FAIL: keys and headers
    penstock_test.yaml:23: in: want 1 message, got 1 message (- expected, + got)
          message 1:
          {
            "k": "a"
          }
        - key: "a"
        - header h: "u"
        + key: "z"
        + header h: "v"
FAIL penstock_test.yaml
3 of 3 tests failed
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// Promise: retries take no real time, and come as far apart as in production.
func TestRetriesInVirtualTime(t *testing.T) {
	began := time.Now()
	passes(t, map[string]handle{"p": failing(4)}, through(", retry: { attempts: 5, backoff: 30s, max: 30s }"), `
tests:
  - name: it comes again
    input: [ payload: { k: a } ]
    expect: { out: [ { k: a } ], counts: { retried: 4, dead: 0 } }
  - name: it has not come again yet
    input: [ payload: { k: a }, wait: 10s, payload: { k: b } ]
    expect: { out: { any_order: true, payloads: [ { k: a }, { k: b } ] } }
`)
	got := mustRun(t, map[string]handle{"p": failing(9)}, through(", retry: { attempts: 3, backoff: 30s }"), `
tests:
  - name: it is given up
    input: [ payload: { k: a } ]
    expect: { out: [], dead_letters: [ { plugin: p, reason: attempt 3 fails, attempts: 3, payload: { k: a } } ] }
  - name: nobody expected that
    input: [ payload: { k: a } ]
    expect: { out: [] }
  - name: that was another
    input: [ payload: { k: a } ]
    expect: { dead_letters: [ { plugin: p, reason: attempt 4 }, {} ] }
`)
	fails(t, got, "nobody expected that", "penstock_test.yaml:6: dead letters: want 0, got 1",
		`+ plugin "p", source "in", stream "in", reason "attempt 3 fails", attempts 3, payload {"k":"a"}`,
		"that was another", "penstock_test.yaml:11: dead letters: want 2, got 1", `- plugin "p", reason "attempt 4"`)
	if !strings.Contains(got, "--- PASS: it is given up") {
		t.Errorf("it was not given up:\n%s", got)
	}
	if took := time.Since(began); took > 20*second {
		t.Errorf("it took %v of real time", took)
	}
}

// Promise: the time that a test waits is the time that the pipeline sees.
func TestWaits(t *testing.T) {
	passes(t, map[string]handle{"p": func(_ context.Context, h *handler, m *plugin.Message) error { return stamp(h, m) }}, through(""), `
tests:
  - name: time passes
    input: [ payload: 1, wait: 30s, payload: 2, wait: 24h, payload: 3, wait: 1ms, payload: 4 ]
    expect:
      out: [ { at: 0s, of: 1 }, { at: 30s, of: 2 }, { at: 24h0m30s, of: 3 }, { at: 24h0m30.001s, of: 4 } ]
`)
}

// Promise: a wait of a year takes no longer than one of a minute, since what the runtime does for ever in the background is known as that.
func TestLongWaits(t *testing.T) {
	began := time.Now()
	passes(t, map[string]handle{"p": func(_ context.Context, h *handler, m *plugin.Message) error { return stamp(h, m) }},
		through(", timeout: 1s"), `
tests:
  - name: a year
    input: [ wait: 8760h, payload: 1, wait: 8760h, payload: 2 ]
    expect:
      out: [ { at: 8760h0m0s, of: 1 }, { at: 17520h0m0s, of: 2 } ]
`)
	if took := time.Since(began); took > 5*second {
		t.Errorf("it took %v", took)
	}
}

// Promise: what waits for the world outside all the time is not waited for.
func TestPluginThatListens(t *testing.T) {
	r := kinds(nil)
	r.Add(kind.Native("p", func() (plugin.Handler, error) { return &listener{}, nil }))
	got := mustRun(t, nil, through(""), `
tests:
  - name: a plugin with a port, and one that sleeps and sleeps
    input: [ payload: a, payload: b, wait: 10h, payload: c ]
    expect: { out: [ a, b, c ] }
`, func(o *Options) { o.Registry = r })
	if strings.Contains(got, "FAIL") {
		t.Error(got)
	}
}

// Promise: a hold lapses when its lease has run out, in virtual time.
func TestHoldsLapse(t *testing.T) {
	passes(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		if m.Attempt() == 1 {
			_, err := m.Hold(10 * time.Minute)
			return err
		}
		return stamp(h, m)
	}}, through(", retry: { backoff: 1ms, max: 1ms }"), `
tests:
  - name: a hold lapses
    input: [ payload: 1 ]
    expect: { out: [ { at: 10m0.001s, of: 1 } ], counts: { held: 1, lapsed: 1 } }
`)
}

// Promise: a goroutine of Held.Go is waited for, whatever it waits for.
func TestHeldGo(t *testing.T) {
	passes(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		held, err := m.Hold(time.Hour)
		if err != nil {
			return err
		}
		return held.Go(func(ctx context.Context, m plugin.OwnedMessage) error {
			done := make(chan struct{})
			if string(m.Payload()) == "1" {
				time.AfterFunc(20*time.Millisecond, func() { close(done) }) // not the clock that it should go by
			} else {
				h.Clock.AfterFunc(20*time.Minute, func() { close(done) })
			}
			<-done
			return held.Emit("out", []byte(fmt.Sprintf(`"%v"`, h.Clock.Now().Sub(epoch()))))
		})
	}}, through(""), `
tests:
  - name: in real time
    input: [ payload: 1, wait: 5m ]
    expect: { out: [ '"0s"' ], counts: { held: 1, lapsed: 0 } }
  - name: in virtual time
    input: [ payload: 2, wait: 5m, payload: 3 ]
    expect: { out: [ '"20m0s"', '"25m0s"' ] }
`)
}

// Promise: a throttle waits in virtual time, and the order stays.
func TestThrottleAndDedupe(t *testing.T) {
	passes(t, map[string]handle{"p": func(_ context.Context, h *handler, m *plugin.Message) error { return stamp(h, m) }}, `
sources: { in: { port: { address: nowhere } } }
plugins:
  once: { dedupe: { by: msg, window: 10m }, from: in, emits: new }
  slow: { throttle: { rate: 1/s, burst: 1 }, from: new, emits: slow }
  p: { native: p, from: slow, emits: out }
sinks: { out: { from: out, port: { address: nowhere } } }
`, `
tests:
  - name: one in a second
    input: [ payload: 1, payload: 2, payload: 2, payload: 1, payload: 3, wait: 9m, payload: 2, wait: 2m, payload: 2 ]
    expect:
      out: [ { at: 0s, of: 1 }, { at: 1s, of: 2 }, { at: 2s, of: 3 }, { at: 11m0s, of: 2 } ]
      counts: { accepted: 7, settled: 7, retried: 0, overdue: 0 }
`)
}

// Promise: a message whose handler never returns fails the test, which names the plugin, and the tests after it are run.
func TestHandlerThatNeverReturns(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	began := time.Now()
	got := mustRun(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		if string(m.Payload()) == "stay" {
			<-release
		}
		return copies(ctx, h, m)
	}}, through(", timeout: 5s"), `
tests:
  - name: it stays
    within: 10m
    input:
      - payload: stay
      - payload: go
    expect: { out: [ stay, go ], counts: { overdue: 1 } }
  - name: it goes
    input: [ payload: go ]
    expect: { out: [ go ] }
`)
	fails(t, got, "it stays", "penstock_test.yaml:6: this message is not settled, nor is that of line 7, and 10m0s of virtual time have passed",
		`plugin "p" has it: its Handle has not returned for 10m0s`, "out: want 2 messages, got 0", "--- PASS: it goes", "1 of 2 tests failed")
	if strings.Contains(got, "overdue is") {
		t.Errorf("it was not overdue:\n%s", got)
	}
	if took := time.Since(began); took > 5*second {
		t.Errorf("it took %v of real time", took)
	}
}

// Promise: a handler that waits for its context is cancelled after its timeout, in virtual time.
func TestOverdue(t *testing.T) {
	passes(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		if m.Attempt() == 1 {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return copies(ctx, h, m)
	}}, through(", timeout: 60s, retry: { attempts: 2 }"), `
tests:
  - name: it comes again
    input: [ payload: a ]
    expect: { out: [ a ], counts: { overdue: 1, retried: 1 } }
`)
}

// Promise: a handler that waits for what comes in real time is not taken for one that does nothing.
func TestRealTimeInHandle(t *testing.T) {
	passes(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		done := make(chan struct{})
		switch string(m.Payload()) {
		case "timer":
			time.AfterFunc(30*time.Millisecond, func() { close(done) })
		case "sleep":
			time.Sleep(30 * time.Millisecond) // sleep: this is what is tested
			close(done)
		case "work":
			go func() {
				for began := time.Now(); time.Since(began) < 30*time.Millisecond; {
				}
				close(done)
			}()
		}
		select {
		case <-done:
		case <-ctx.Done():
			return plugin.Reject(context.Cause(ctx))
		}
		return m.Emit("out", fmt.Append(nil, h.Clock.Now().Sub(epoch())))
	}}, through(", timeout: 1s"), `
tests:
  - name: no time passes meanwhile
    input: [ payload: timer, payload: sleep, payload: work ]
    expect: { out: [ 0s, 0s, 0s ], counts: { overdue: 0, retried: 0 } }
`)
}

// Promise: order by key holds over retries, and only there.
func TestOrder(t *testing.T) {
	natives := map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		if m.Attempt() == 1 && strings.Contains(string(m.Payload()), "hard") {
			return errors.New("not yet")
		}
		return copies(ctx, h, m)
	}}
	input := `
    input: [ payload: { k: a, n: hard }, payload: { k: a, n: 2 }, payload: { k: b, n: 3 } ]
`
	passes(t, natives, through(", order: key"), "tests:\n  - name: in order"+input+
		"    expect: { out: [ { k: b, n: 3 }, { k: a, n: hard }, { k: a, n: 2 } ] }\n")
	passes(t, natives, through(", order: key, mode: pool, workers: 3"), "tests:\n  - name: in order"+input+
		"    expect: { out: [ { k: b, n: 3 }, { k: a, n: hard }, { k: a, n: 2 } ] }\n")
	passes(t, natives, through(""), "tests:\n  - name: not in order"+input+
		"    expect: { out: [ { k: a, n: 2 }, { k: b, n: 3 }, { k: a, n: hard } ] }\n")
}

// Promise: what a plugin emits as it stops, or by a timer of its own, is seen too; what it holds back for ever is not settled.
func TestEmitsOfItsOwn(t *testing.T) {
	r := kinds(nil)
	r.Add(nativeWithStop())
	got := mustRun(t, nil, through(""), `
tests:
  - name: it says goodbye
    input: [ payload: 1, wait: 25s, payload: 2 ]
    expect: { out: [ tick 1, tick 1, bye 2 ] }
`, func(o *Options) { o.Registry = r })
	if strings.Contains(got, "FAIL") {
		t.Error(got)
	}
}

// Promise: a message that nobody will ever settle fails the test at its input, at once.
func TestNeverSettled(t *testing.T) {
	got := mustRun(t, map[string]handle{"p": func(_ context.Context, _ *handler, m *plugin.Message) error {
		if m.Attempt() > 1 {
			panic("no")
		}
		return errors.New("again")
	}}, through(", retry: { attempts: -1, backoff: 30s }"), `
tests:
  - name: it is quarantined, or tried for ever
    within: 2h
    input: [ wait: 1s, payload: 1 ]
    expect: { counts: { accepted: 1, settled: 0 } }
`)
	fails(t, got, "penstock_test.yaml:5: this message is not settled, and 2h0m0s of virtual time", `plugin "p" has it: `, "retries so far")
}

// Promise: a pipeline that does not start, or that fails, fails the test with the reason.
func TestPipelineFails(t *testing.T) {
	r := kinds(nil)
	r.Add(nativeThatFails())
	got := mustRun(t, nil, through(""), "tests: [ { name: a, input: [], expect: {} } ]", func(o *Options) { o.Registry = r })
	fails(t, got, "penstock_test.yaml:1: the pipeline failed", `plugin "p"`, "there is no disk")
}

// Promise: input that the pipeline refuses is counted, and everything of a large message arrives.
func TestLargeMessages(t *testing.T) {
	large, small := strings.Repeat("x", 300<<10), strings.Repeat("y", 200<<10)
	passes(t, map[string]handle{"p": copies}, "max_message: 256KiB\n"+through(""), `
tests:
  - name: large
    input: [ payload: `+large+`, payload: `+small+`, payload: "" ]
    expect: { out: [ `+small+`, "" ], counts: { accepted: 2, bad: 1 } }
`)
}

// Promise: a source's limit is kept; what waits behind it is given when there is room.
func TestLimit(t *testing.T) {
	passes(t, map[string]handle{"p": failing(1)}, strings.Replace(through(", retry: { backoff: 1s, max: 1s }"), "key: $.k", "limit: 1", 1), `
tests:
  - name: one after another
    input: [ payload: 1, payload: 2, payload: 3 ]
    expect: { out: [ 1, 2, 3 ], counts: { retried: 3 } }
`)
}

func TestOnlySome(t *testing.T) {
	results, err := runFiles(t, map[string]handle{"p": copies}, through(""), `
tests:
  - { name: one, input: [], expect: {} }
  - { name: two, input: [], expect: {} }
`, func(o *Options) { o.Run = regexp.MustCompile("^t") })
	if err != nil || len(results) != 1 || results[0].Name != "two" || results[0].Line != 4 {
		t.Errorf("results are %+v, error %v", results, err)
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	write(t, dir, "penstock.yaml", through(""))
	file := write(t, dir, "a_test.yaml", "tests:\n  - { name: one, input: [ payload: a ], expect: {} }\n  - { name: two, input: [], expect: {} }\n")
	natives := map[string]handle{"p": func(context.Context, *handler, *plugin.Message) error {
		cancel()
		return nil
	}}
	results, err := Run(ctx, []string{file}, Options{Registry: kinds(natives)})
	if !errors.Is(err, context.Canceled) || len(results) != 1 {
		t.Errorf("results are %+v, error %v", results, err)
	}
}

// Promise: a test that takes too long in real time fails, and says what still goes on.
func TestRealTimeIsBounded(t *testing.T) {
	var stop atomic.Bool
	defer stop.Store(true)
	got := mustRun(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		for !stop.Load() {
		}
		return nil
	}}, through(""), "tests: [ { name: a, input: [ payload: a ], expect: {} } ]", func(o *Options) { o.Limit = 300 * time.Millisecond })
	fails(t, got, "penstock_test.yaml:1: the real time of the test is over: ", "TestRealTimeIsBounded", "still goes on", `plugin "p" has it`)
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	b := write(t, dir, "b_test.yml", "")
	a := write(t, dir, "a_test.yaml", "")
	p := write(t, dir, "penstock.yaml", "")
	write(t, dir, ".c_test.yaml", "")
	got, err := Files(dir, p, a)
	if want := []string{a, b, p}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("found %v, error %v; want %v", got, err, want)
	}
	if _, err := Files(t.TempDir()); !errors.Is(err, ErrNoTests) {
		t.Errorf("error is %v, want ErrNoTests", err)
	}
	if _, err := Files(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want that it does not exist", err)
	}
}
