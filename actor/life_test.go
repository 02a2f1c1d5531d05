package actor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/plugin"
)

// life is a handler that says what happens to it.
type life struct {
	s      *seen
	id     string
	handle plugin.HandlerFunc
	start  error
}

func (l *life) Start(context.Context, plugin.Env) error { l.s.add(l.id + " start"); return l.start }
func (l *life) Stop(context.Context) error              { l.s.add(l.id + " stop"); return nil }
func (l *life) Handle(ctx context.Context, m *plugin.Message) error {
	if l.handle != nil {
		return l.handle(ctx, m)
	}
	l.s.add(l.id + " " + string(m.Payload()))
	return nil
}

func (l *life) make() (plugin.Handler, error) { return l, nil }

// Promise: a panic fails its message only; the instance is replaced after a backoff, and what has panicked is not stopped.
func TestPanicFailsItsMessageOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		n := 0
		began := time.Now()
		r := newRig(t, part{name: "p", from: []string{"in"}, new: func() (plugin.Handler, error) {
			n++
			l := &life{s: &s, id: fmt.Sprint(n)}
			l.handle = func(_ context.Context, m *plugin.Message) error {
				if string(m.Payload()) == "bad" && m.Attempt() == 1 {
					panic("boom")
				}
				s.add(l.id + " " + string(m.Payload()))
				return nil
			}
			return l, nil
		}})
		r.send("a", "bad", "b")
		synctest.Wait()
		if st := r.actors["p"].Stats(); st.State != actor.Restarting || r.actors["p"].Check(t.Context()) == nil {
			t.Errorf("state %v", st.State)
		}
		r.finish()
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("the backoff took %v", took)
		}
		s.want(t, "1 start", "1 a", "2 start", "2 b", "2 bad", "2 stop")
		if st := r.actors["p"].Stats(); st.Panics != 1 || st.Restarts != 1 || st.Overdue != 0 || !r.log.has("boom") {
			t.Errorf("stats %+v", st)
		}
	})
}

// Promise: repeated crashes quarantine the plugin, visibly; it gets nothing until Resume or Swap, and is not called overdue meanwhile.
func TestRepeatedCrashesQuarantine(t *testing.T) {
	ways := map[string]func(r *rig) error{
		"resume": func(r *rig) error {
			if !r.actors["p"].Resume() || r.actors["p"].Resume() {
				return errors.New("not resumed once")
			}
			return nil
		},
		"swap": func(r *rig) error {
			_, err := r.actors["p"].Swap(r.t.Context(), actor.Version{Name: "2", New: func() (plugin.Handler, error) {
				return plugin.HandlerFunc(func(context.Context, *plugin.Message) error { return nil }), nil
			}})
			return err
		},
	}
	for name, end := range ways {
		for _, mode := range []struct {
			workers int
			order   bool
		}{{0, false}, {0, true}, {3, false}} {
			t.Run(fmt.Sprintf("%s %+v", name, mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex
					broken, calls := true, 0
					p := part{name: "p", from: []string{"in"}, timeout: time.Second, handle: func(context.Context, *plugin.Message) error {
						mu.Lock()
						defer mu.Unlock()
						if calls++; broken {
							panic("boom")
						}
						return nil
					}}
					p.cfg.Workers, p.cfg.Order = mode.workers, mode.order
					p.cfg.Restart = actor.Restart{Backoff: time.Second, Max: time.Second, Crashes: 3, Within: time.Hour}
					r := newRig(t, p)
					for i := range 5 {
						r.send(fmt.Sprintf("a:%d", i))
					}
					time.Sleep(time.Minute)
					st := r.actors["p"].Stats()
					if st.State != actor.Quarantined || st.Overdue != 0 || !strings.Contains(fmt.Sprint(r.actors["p"].Check(t.Context())), "quarantined") {
						t.Errorf("stats %+v", st)
					}
					mu.Lock()
					before := calls
					broken = false
					mu.Unlock()
					time.Sleep(time.Hour)
					if calls != before {
						t.Errorf("%d calls in quarantine", calls-before)
					}
					if err := end(r); err != nil {
						t.Error(err)
					}
					r.finish()
					if st := r.actors["p"].Stats(); st.State != actor.Stopped {
						t.Errorf("stats %+v", st)
					}
				})
			})
		}
	}
}

// Promise: an instance that does not start again is tried again; one that does not start at first is an error that names the plugin.
func TestInstanceThatDoesNotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		n := 0
		r := newRig(t, part{name: "p", from: []string{"in"}, new: func() (plugin.Handler, error) {
			n++
			switch n {
			case 1:
				return plugin.HandlerFunc(func(context.Context, *plugin.Message) error { panic("boom") }), nil
			case 2:
				return nil, errNo
			case 3:
				return nil, nil
			case 4:
				panic("boom")
			}
			return plugin.HandlerFunc(s.handle), nil
		}})
		r.send("a")
		time.Sleep(time.Minute)
		r.actors["p"].Resume() // the fifth crash
		r.finish()
		s.want(t, "a")
	})
	synctest.Test(t, func(t *testing.T) {
		a := actor.New(actor.Config{Name: "p", Version: "7", New: (&life{s: &seen{}, start: errNo}).make})
		if err := a.Start(t.Context()); !errors.Is(err, errNo) || !strings.Contains(err.Error(), `"p"`) || !strings.Contains(err.Error(), `"7"`) {
			t.Errorf("Start: %v", err)
		}
		if _, err := a.Swap(t.Context(), actor.Version{}); err == nil {
			t.Error("an actor that does not run can be swapped")
		}
	})
}

// Promise: an overdue handler is cancelled with the cause ErrOverdue and named; its message stays owed to it; other plugins go on.
func TestOverdueHandlerIsCancelledAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var other seen
		var cause error
		var took time.Duration
		r := newRig(t, part{name: "slow", from: []string{"in"}, timeout: time.Second, handle: func(ctx context.Context, m *plugin.Message) error {
			if string(m.Payload()) != "stuck" {
				return nil
			}
			began := time.Now()
			<-ctx.Done()
			took, cause = time.Since(began), context.Cause(ctx)
			time.Sleep(time.Minute)
			return nil
		}}, part{name: "other", from: []string{"in"}, handle: other.handle})
		r.send("a", "stuck", "b")
		time.Sleep(30 * time.Second)
		other.want(t, "a", "stuck", "b")
		r.send("c")
		other.want(t, "a", "stuck", "b", "c")
		if !errors.Is(cause, plugin.ErrOverdue) || took < time.Second || took > 1600*time.Millisecond {
			t.Errorf("cancelled after %v: %v", took, cause)
		}
		if r.done() != 0 || r.actors["slow"].Stats().Overdue != 1 || !r.log.has("overdue") || !r.log.has("plugin=slow") {
			t.Errorf("%d settled, stats %+v", r.done(), r.actors["slow"].Stats())
		}
		r.finish()
		if c := r.counts("slow"); c.Delivered != 4 || c.Retried != 0 {
			t.Errorf("counts %+v", c)
		}
	})
}

// Promise: a call that ends in time is not overdue, however many there are in a delivery.
func TestCallsInTimeAreNotOverdue(t *testing.T) {
	for _, n := range []int{1, 10, 200} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, part{name: "p", from: []string{"in"}, timeout: time.Second, handle: func(context.Context, *plugin.Message) error {
				time.Sleep(950 * time.Millisecond)
				return nil
			}})
			r.send(numbered(0, n, 10)...)
			r.send(numbered(n, n, 10)...)
			r.finish()
			if st := r.actors["p"].Stats(); st.Overdue != 0 {
				t.Errorf("%d of %d calls overdue", st.Overdue, 2*n)
			}
		})
	}
}

// Promise: the context of a call ends with it when its Done was taken, and is used again when it was not.
func TestContextEndsWithItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ctxs []context.Context
		var done []<-chan struct{}
		r := newRig(t, part{name: "p", from: []string{"in"}, handle: func(ctx context.Context, m *plugin.Message) error {
			if len(done) > 0 {
				select {
				case <-done[len(done)-1]:
				default:
					t.Errorf("%s: the context of an earlier call has not ended", m.Payload())
				}
			}
			if ctx.Err() != nil {
				t.Errorf("%s: its context has ended", m.Payload())
			}
			ctxs = append(ctxs, ctx)
			switch string(m.Payload()) {
			case "done":
				done = append(done, ctx.Done())
			case "panic":
				if m.Attempt() == 1 {
					done = append(done, ctx.Done())
					panic("boom")
				}
			}
			return nil
		}})
		r.send("a", "b", "done", "c", "d", "done")
		synctest.Wait()
		select {
		case <-done[1]:
		default:
			t.Error("the context of the last call has not ended")
		}
		r.send("panic")
		synctest.Wait()
		select {
		case <-done[2]:
		default:
			t.Error("the context of a call that panicked has not ended before the restart")
		}
		if ctxs[0] != ctxs[1] || ctxs[1] != ctxs[2] || ctxs[2] == ctxs[3] || ctxs[3] != ctxs[4] || ctxs[4] != ctxs[5] || ctxs[5] == ctxs[6] {
			t.Errorf("contexts %p", ctxs)
		}
		r.finish()
	})
}

// counter is a plugin with state.
type counter struct {
	life
	seen      []string
	importErr error
}

func (c *counter) Handle(_ context.Context, m *plugin.Message) error {
	c.seen = append(c.seen, string(m.Payload()))
	return nil
}

func (c *counter) Export(context.Context) ([]byte, error) {
	return []byte(strings.Join(c.seen, ",")), nil
}

func (c *counter) Import(_ context.Context, state []byte) error {
	if len(state) > 0 {
		c.seen = strings.Split(string(state), ",")
	}
	return c.importErr
}

// Promise: a swap under load loses and doubles nothing; a stateful plugin's state goes over, and the old version is stopped once.
func TestSwapUnderLoad(t *testing.T) {
	for name, mode := range map[string]struct {
		stateful, order bool
		workers         int
	}{"stateless": {}, "order": {order: true}, "pool": {workers: 4}, "ordered pool": {workers: 4, order: true}, "stateful": {stateful: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s, shown seen
				var last *counter
				version := func(id string) func() (plugin.Handler, error) {
					return func() (plugin.Handler, error) {
						l := life{s: &s, id: id}
						if mode.stateful {
							last = &counter{life: l}
							return last, nil
						}
						l.handle = func(_ context.Context, m *plugin.Message) error {
							time.Sleep(time.Millisecond)
							if slices.Contains(s.all(), id+" stop") {
								t.Errorf("version %s is called after its Stop", id)
							}
							shown.add(string(m.Payload()))
							return nil
						}
						return &l, nil
					}
				}
				p := part{name: "p", from: []string{"in"}, new: version("1")}
				p.cfg.Workers, p.cfg.Order = mode.workers, mode.order
				r := newRig(t, p)
				var load sync.WaitGroup
				load.Go(func() {
					for i := range 50 {
						r.send(numbered(10*i, 10, 7)...)
						time.Sleep(2 * time.Millisecond)
					}
				})
				for v := 2; v <= 5; v++ {
					time.Sleep(10 * time.Millisecond)
					how, err := r.actors["p"].Swap(t.Context(), actor.Version{Name: fmt.Sprint(v), New: version(fmt.Sprint(v))})
					if err != nil || how.From != fmt.Sprint(v-1) || how.To != fmt.Sprint(v) || how.Stateful != (mode.stateful || mode.order) || how.Lost != 0 {
						t.Errorf("swap %d: %+v, %v", v, how, err)
					}
				}
				load.Wait()
				r.finish()
				got := shown.all()
				if mode.stateful {
					got = last.seen
				}
				if mode.order {
					at := map[string]int{}
					for _, x := range got {
						var n int
						k, num, _ := strings.Cut(x, ":")
						_, _ = fmt.Sscan(num, &n)
						if n < at[k] {
							t.Errorf("%s after %d", x, at[k])
						}
						at[k] = n
					}
				}
				slices.Sort(got)
				want := numbered(0, 500, 7)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%d messages shown", len(got))
				}
				s.sorted(t, "1 start", "2 start", "3 start", "4 start", "5 start", "1 stop", "2 stop", "3 stop", "4 stop", "5 stop")
				if st := r.actors["p"].Stats(); st.Swaps != 4 || st.Version != "5" || st.Epoch != 5 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

// Promise: if any step of a swap fails the old version goes on, with its state; and a second swap is refused while one is under way.
func TestSwapThatFailsKeepsTheOldVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		first := &counter{life: life{s: &s, id: "1"}}
		r := newRig(t, part{name: "p", from: []string{"in"}, new: func() (plugin.Handler, error) { return first, nil }})
		a := r.actors["p"]
		r.send("a")
		tests := map[string]func() (plugin.Handler, error){
			"importing": func() (plugin.Handler, error) {
				return &counter{life: life{s: &s, id: "x"}, importErr: errNo}, nil
			},
			"starting":     (&life{s: &seen{}, start: errNo}).make,
			"making":       func() (plugin.Handler, error) { return nil, errNo },
			"panicking":    func() (plugin.Handler, error) { panic(errNo.Error()) },
			"no Importer":  (&life{s: &seen{}}).make,
			"made nothing": func() (plugin.Handler, error) { return nil, nil },
		}
		for name, make := range tests {
			if _, err := a.Swap(t.Context(), actor.Version{Name: "x", New: make}); err == nil || !strings.Contains(err.Error(), `"p"`) {
				t.Errorf("%s: %v", name, err)
			}
			r.send(name)
			synctest.Wait()
			if first.seen[len(first.seen)-1] != name {
				t.Errorf("%s: the old version does not go on", name)
			}
		}
		s.sorted(t, "1 start", "x start", "x stop")
		r.finish()
	})
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		r := newRig(t, part{name: "p", from: []string{"in"}, handle: func(context.Context, *plugin.Message) error { <-goOn; return nil }})
		a := r.actors["p"]
		r.send("a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		next := actor.Version{Name: "2", New: (&life{s: &seen{}, id: "2"}).make}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.Swap(ctx, next); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a swap of a busy plugin, bounded in time: %v", err)
			}
		})
		synctest.Wait()
		if _, err := a.Swap(ctx, next); !errors.Is(err, actor.ErrSwapping) {
			t.Errorf("second swap: %v", err)
		}
		wg.Wait()
		close(goOn)
		r.finish()
		if st := a.Stats(); st.Version != "1" || st.Swaps != 0 {
			t.Errorf("stats %+v: a swap that was given up has happened", st)
		}
		if _, err := a.Swap(t.Context(), next); err == nil {
			t.Error("an actor that is stopped can be swapped")
		}
	})
}
