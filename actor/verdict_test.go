package actor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

var errNo = errors.New("no")

// Promise: an error retries by the policy, then goes to the dead letters; the others of the batch are not shown again.
func TestFailuresRetryByPolicyThenDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		var attempts []int
		r := newRig(t, part{
			name: "p", from: []string{"in"}, retry: loop.RetryPolicy{Attempts: 3, Backoff: 100, Max: 1000},
			handle: func(ctx context.Context, m *plugin.Message) error {
				if string(m.Payload()) == "bad" {
					attempts = append(attempts, m.Attempt())
					return errNo
				}
				return s.handle(ctx, m)
			},
		})
		began := time.Now()
		r.send("a", "bad", "b")
		if r.done() != 2 {
			t.Errorf("a retry holds up %d others", 2-r.done())
		}
		r.finish()
		if took := time.Since(began); took < 150*time.Millisecond || took > 310*time.Millisecond {
			t.Errorf("two backoffs, of 100 and 200 ms with jitter in the upper half, took %v", took)
		}
		s.want(t, "a", "b")
		if fmt.Sprint(attempts) != "[1 2 3]" {
			t.Errorf("attempts %v", attempts)
		}
		if got := r.letters(); len(got) != 1 || got[0] != (letter{"bad", "p", "no", 3}) {
			t.Errorf("letters %v", got)
		}
	})
}

// Promise: Retry comes again after exactly that long, Reject never.
func TestRetryAfterIsExactAndRejectIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		began := time.Now()
		r := newRig(t, part{
			name: "p", from: []string{"in"}, retry: loop.RetryPolicy{Backoff: 5},
			handle: func(_ context.Context, m *plugin.Message) error {
				if string(m.Payload()) == "reject" {
					return plugin.Reject(errNo)
				}
				times = append(times, time.Since(began))
				if m.Attempt() < 3 {
					return fmt.Errorf("wrapped: %w", plugin.Retry(errNo, 7*time.Second))
				}
				return nil
			},
		})
		r.send("retry", "reject")
		r.finish()
		if fmt.Sprint(times) != "[0s 7s 14s]" {
			t.Errorf("shown at %v", times)
		}
		if got := r.letters(); len(got) != 1 || got[0].attempts != 1 || got[0].payload != "reject" {
			t.Errorf("letters %v", got)
		}
	})
}

// Promise: a dead letter that cannot be written pauses its plugin, nothing is dropped, and it goes on when it can be.
func TestDeadLettersThatFailPauseThePlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		r := newRig(t, part{name: "p", from: []string{"in"}, handle: func(ctx context.Context, m *plugin.Message) error {
			_ = s.handle(ctx, m)
			if string(m.Payload()) == "bad" {
				return plugin.Reject(errNo)
			}
			return nil
		}})
		r.refuse = errNo
		r.send("bad")
		if r.done() != 0 {
			t.Error("settled without a letter")
		}
		r.send("next")
		time.Sleep(10 * time.Second)
		s.want(t, "bad")
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		time.Sleep(2 * time.Second)
		s.want(t, "bad", "next")
		r.finish()
		if len(r.letters()) != 1 {
			t.Errorf("letters %v", r.letters())
		}
	})
}

// Promise: a message that is held settles with its verdict, from any goroutine; the verdicts do as those of Handle do.
func TestHeldMessagesSettleByTheirVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan *plugin.Held, 1)
		r := newRig(t, part{
			name: "p", from: []string{"in"}, retry: loop.RetryPolicy{Backoff: 1000, Max: 1000},
			handle: func(_ context.Context, m *plugin.Message) error {
				if m.Attempt() > 1 {
					return nil
				}
				h, err := m.Hold(time.Hour)
				held <- h
				return err
			},
		})
		verdicts := map[string]func(h *plugin.Held) error{
			"ack":    (*plugin.Held).Ack,
			"retry":  func(h *plugin.Held) error { return h.Retry(errNo, time.Minute) },
			"reject": func(h *plugin.Held) error { return h.Reject(errNo) },
		}
		n := 0
		for name, give := range verdicts {
			r.send("key:" + name)
			h := <-held
			time.Sleep(30 * time.Minute)
			if r.done() != n || string(h.Payload()) != "key:"+name || string(h.Key()) != "key" {
				t.Errorf("%s: %d settled, payload %q", name, r.done(), h.Payload())
			}
			if err := give(h); err != nil {
				t.Error(err)
			}
			if name == "retry" {
				if time.Sleep(time.Minute - 2*time.Millisecond); r.done() != n {
					t.Error("retried too early")
				}
				time.Sleep(2 * time.Millisecond)
			}
			if n++; r.done() != n {
				t.Errorf("%s: %d settled, want %d", name, r.done(), n)
			}
		}
		r.finish()
		if c := r.counts("p"); c.Held != 3 || c.Retried != 1 || c.Dead != 1 {
			t.Errorf("counts %+v", c)
		}
	})
}

// Promise: a lease that lapses is a retry, an extension moves it, and verdicts after it are refused.
func TestLeasesLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan *plugin.Held, 1)
		var shown []time.Duration
		began := time.Now()
		p := part{name: "p", from: []string{"in"}, retry: loop.RetryPolicy{Backoff: 1}}
		p.handle = func(_ context.Context, m *plugin.Message) error {
			shown = append(shown, time.Since(began))
			if m.Attempt() > 1 {
				return nil
			}
			h, err := m.Hold(time.Second)
			held <- h
			return err
		}
		r := newRig(t, p)
		r.send("a")
		h := <-held
		time.Sleep(900 * time.Millisecond)
		if err := h.Extend(2 * time.Second); err != nil {
			t.Error(err)
		}
		time.Sleep(1999 * time.Millisecond)
		if r.done() != 0 {
			t.Error("lapsed too early")
		}
		time.Sleep(2 * time.Millisecond)
		if r.done() != 1 || len(shown) != 2 || shown[1] != 2901*time.Millisecond {
			t.Errorf("%d settled, shown at %v", r.done(), shown)
		}
		if string(h.Payload()) != "a" {
			t.Errorf("a late reader reads %q", h.Payload())
		}
		if err := h.Ack(); !errors.Is(err, plugin.ErrLeaseLost) {
			t.Errorf("Ack after the lapse: %v", err)
		}
		if c := r.counts("p"); c.Lapsed != 1 || c.Retried != 1 {
			t.Errorf("counts %+v", c)
		}
		r.finish()
	})
}

// Promise: a verdict that is given before Handle returns counts, an error that Handle returns too, and so does a panic.
func TestVerdictsOfHeldMessagesWithinTheCall(t *testing.T) {
	tests := map[string]struct {
		within func(h *plugin.Held) error
		dead   int
		again  bool
	}{
		"ack within":      {func(h *plugin.Held) error { return h.Ack() }, 0, false},
		"ack, then error": {func(h *plugin.Held) error { _ = h.Ack(); return errNo }, 0, false},
		"error":           {func(*plugin.Held) error { return errNo }, 0, true},
		"reject":          {func(*plugin.Held) error { return plugin.Reject(errNo) }, 1, false},
		"panic":           {func(*plugin.Held) error { panic("boom") }, 0, true},
		"ack in a Held.Go": {func(h *plugin.Held) error {
			return h.Go(func(context.Context, plugin.OwnedMessage) error { return nil })
		}, 0, false},
		"fail in a Held.Go": {func(h *plugin.Held) error {
			return h.Go(func(context.Context, plugin.OwnedMessage) error { return errNo })
		}, 0, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s seen
				r := newRig(t, part{name: "p", from: []string{"in"}, handle: func(_ context.Context, m *plugin.Message) error {
					s.add(fmt.Sprintf("%s %d", m.Payload(), m.Attempt()))
					if m.Attempt() > 1 || string(m.Payload()) != "a" {
						return nil
					}
					h, err := m.Hold(time.Hour)
					if err != nil {
						return err
					}
					return tt.within(h)
				}})
				r.send("a", "b")
				r.finish()
				if len(r.letters()) != tt.dead {
					t.Errorf("letters %v", r.letters())
				}
				want := []string{"a 1", "b 1"}
				if tt.again {
					want = append(want, "a 2")
				}
				s.sorted(t, want...)
			})
		})
	}
}

// Promise: the goroutines of Held.Go are bounded, and end when the plugin is stopped.
func TestHeldGoIsBoundedAndCancelledAtStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy []error
		p := part{name: "p", from: []string{"in"}, handle: func(_ context.Context, m *plugin.Message) error {
			h, err := m.Hold(time.Hour)
			if err != nil {
				return err
			}
			err = h.Go(func(ctx context.Context, _ plugin.OwnedMessage) error { <-ctx.Done(); return context.Cause(ctx) })
			if err != nil {
				busy = append(busy, err)
			}
			return err
		}}
		p.cfg.Spawn = 2
		r := newRig(t, p)
		r.send("a", "b")
		r.send("c")
		synctest.Wait()
		if len(busy) != 1 || !strings.Contains(busy[0].Error(), `"p"`) {
			t.Errorf("errors %v", busy)
		}
		if n := r.actors["p"].Stats().Spawned; n != 2 {
			t.Errorf("%d goroutines", n)
		}
		r.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{After: 1}})
		<-r.drained
		r.stop()
		if n := r.actors["p"].Stats().Spawned; n != 0 || r.returned != 3 {
			t.Errorf("%d goroutines after Stop, %d returned", n, r.returned)
		}
	})
}

// Promise: with order by key, nothing of a key is shown while an earlier message of it is retried or held, and other keys go on.
func TestOrderByKeyIsKept(t *testing.T) {
	for _, workers := range []int{0, 1, 4} {
		t.Run(fmt.Sprintf("workers %d", workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s seen
				held := make(chan *plugin.Held, 1)
				p := part{name: "p", from: []string{"in"}, handle: func(ctx context.Context, m *plugin.Message) error {
					switch first := m.Attempt() == 1; {
					case first && string(m.Payload()) == "a:1":
						return plugin.Retry(errNo, time.Second)
					case first && string(m.Payload()) == "b:1":
						h, err := m.Hold(time.Hour)
						held <- h
						return err
					case first && string(m.Payload()) == "c:1":
						return plugin.Reject(errNo)
					}
					return s.handle(ctx, m)
				}}
				p.cfg.Order, p.cfg.Workers = true, workers
				r := newRig(t, p)
				r.refuse = nil
				r.send("a:1", "b:1", "c:1", "d:1", "a:2", "b:2")
				r.send("a:3", "b:3", "c:2", "d:2")
				s.sorted(t, "d:1", "d:2", "c:2")
				time.Sleep(time.Second)
				s.sorted(t, "d:1", "d:2", "c:2", "a:1", "a:2", "a:3")
				if err := (<-held).Retry(nil, time.Second); err != nil {
					t.Error(err)
				}
				r.send("b:4")
				time.Sleep(time.Second)
				r.finish()
				for _, key := range []string{"a", "b", "c", "d"} {
					last := ""
					for _, x := range s.all() {
						if strings.HasPrefix(x, key) {
							if x < last {
								t.Errorf("%s after %s", x, last)
							}
							last = x
						}
					}
				}
				s.sorted(t, "d:1", "d:2", "c:2", "a:1", "a:2", "a:3", "b:1", "b:2", "b:3", "b:4")
			})
		})
	}
}
