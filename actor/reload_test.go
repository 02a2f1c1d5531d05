package actor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// Promise: a swap can be begun and then given up, of which the version that serves notices nothing; or carried through later.
func TestHandoverInTwoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		r := newRig(t, part{name: "p", from: []string{"in"}, new: (&life{s: &s, id: "1"}).make})
		a := r.actors["p"]
		next := func(id string) actor.Version { return actor.Version{Name: id, New: (&life{s: &s, id: id}).make} }
		h, err := a.Begin(t.Context(), next("2"))
		if err != nil {
			t.Fatal(err)
		}
		r.send("a")
		if _, err := a.Begin(t.Context(), next("x")); !errors.Is(err, actor.ErrSwapping) {
			t.Errorf("a second one was begun: %v", err)
		}
		synctest.Wait()
		if err := h.Abort(t.Context()); err != nil || a.Stats().Version != "1" {
			t.Errorf("given up: %v, serving %q", err, a.Stats().Version)
		}
		r.send("b")
		synctest.Wait()
		if h, err = a.Begin(t.Context(), next("3")); err != nil {
			t.Fatal(err)
		}
		r.send("c")
		synctest.Wait()
		how, err := h.Commit(t.Context())
		if err != nil || how.From != "1" || how.To != "3" {
			t.Errorf("%+v, %v", how, err)
		}
		r.send("d")
		r.finish()
		s.want(t, "1 start", "2 start", "1 a", "2 stop", "1 b", "3 start", "1 c", "1 stop", "3 d", "3 stop")
		if st := a.Stats(); st.Swaps != 1 || st.Epoch != 2 {
			t.Errorf("stats %+v", st)
		}
	})
}

// Promise: a plugin that is quarantined while a swap has it paused is replaced, and gets its messages.
func TestSwapOfOneThatIsQuarantinedInThePause(t *testing.T) {
	for name, order := range map[string]bool{"state": false, "order": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn := make(chan struct{})
				var s seen
				first := &bomb{counter: counter{life: life{s: &s, id: "1"}}, goOn: goOn}
				next := &counter{life: life{s: &s, id: "2"}}
				p := part{name: "p", from: []string{"in"}, new: func() (plugin.Handler, error) { return first, nil }}
				p.cfg.Order = order
				p.cfg.Restart = actor.Restart{Backoff: time.Second, Max: time.Second, Crashes: 1, Within: time.Hour}
				r := newRig(t, p)
				a := r.actors["p"]
				r.send("k:a", "k:b", "j:c")
				synctest.Wait()
				done := make(chan error)
				go func() {
					how, err := a.Swap(t.Context(), actor.Version{Name: "2", New: func() (plugin.Handler, error) { return next, nil }})
					if err == nil && how.Lost != 0 {
						err = errNo
					}
					done <- err
				}()
				synctest.Wait()
				r.send("k:d") // waits for the end of the pause
				close(goOn)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				r.finish()
				if st := a.Stats(); st.State != actor.Stopped || st.Version != "2" || st.Panics != 1 || len(next.seen) != 4 {
					t.Errorf("stats %+v; the next version saw %q", st, next.seen)
				}
				if got := strings.Join(next.seen, " "); order && strings.Index(got, "k:a") > strings.Index(got, "k:b") {
					t.Errorf("out of order: %s", got)
				}
			})
		})
	}
}

// bomb is a counter whose first message makes it panic, when it is told to go on.
type bomb struct {
	counter
	goOn chan struct{}
}

func (b *bomb) Handle(context.Context, *plugin.Message) error {
	<-b.goOn
	panic("boom")
}

// Promise: a quarantine that was over before the pause began is forgotten: the state that the plugin has gathered since goes over.
func TestSwapForgetsAQuarantineThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		close(goOn)
		var s seen
		n := 0
		next := &counter{life: life{s: &s, id: "2"}}
		p := part{name: "p", from: []string{"in"}, new: func() (plugin.Handler, error) {
			if n++; n == 1 {
				return &bomb{counter: counter{life: life{s: &s, id: "1"}}, goOn: goOn}, nil
			}
			return &counter{life: life{s: &s, id: "1"}}, nil
		}}
		p.cfg.Restart = actor.Restart{Backoff: time.Second, Max: time.Second, Crashes: 1, Within: time.Hour}
		r := newRig(t, p)
		a := r.actors["p"]
		h, err := a.Begin(t.Context(), actor.Version{Name: "2", New: func() (plugin.Handler, error) { return next, nil }})
		if err != nil {
			t.Fatal(err)
		}
		r.send("a")
		synctest.Wait()
		if !a.Resume() {
			t.Fatalf("stats %+v, want it quarantined", a.Stats())
		}
		time.Sleep(time.Minute)
		how, err := h.Commit(t.Context())
		if err != nil || !how.Stateful {
			t.Fatalf("%+v, %v", how, err)
		}
		r.send("b")
		r.finish()
		if got := strings.Join(next.seen, " "); got != "a b" {
			t.Errorf("the next version has seen %q, with what it took over", got)
		}
	})
}

// Promise: word that an earlier pause was quiet is not taken for word of this one.
func TestSwapKnowsItsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		p := part{name: "p", from: []string{"in"}, handle: func(context.Context, *plugin.Message) error { <-goOn; return nil }}
		p.cfg.Order = true
		r := newRig(t, p)
		a := r.actors["p"]
		r.send("k:a")
		synctest.Wait()
		next := actor.Version{Name: "2", New: (&life{s: &seen{}, id: "2"}).make}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Swap(ctx, next); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			how, err := a.Swap(t.Context(), next)
			if how.Redelivered != 0 {
				err = errNo
			}
			done <- err
		}()
		synctest.Wait()
		a.Quiet(1, 7)
		synctest.Wait()
		if st := a.Stats(); st.Version != "1" {
			t.Error("it was exchanged while a message was with it")
		}
		close(goOn)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.finish()
	})
}

// Promise: one actor takes over the state of another, if that has any; whether it could is known before.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, heir := &counter{life: life{s: &seen{}}}, &counter{life: life{s: &seen{}}}
		bad := &counter{life: life{s: &seen{}}, importErr: errNo}
		other := func(name string, c plugin.Handler) part {
			return part{name: name, new: func() (plugin.Handler, error) { return c, nil }}
		}
		p := other("old", old)
		p.from = []string{"in"}
		r := newRig(t, p, other("heir", heir), other("bad", bad), other("plain", &life{s: &seen{}}))
		r.send("a", "b")
		synctest.Wait()
		if err := r.actors["heir"].CanTakeOver(r.actors["old"]); err != nil {
			t.Error(err)
		}
		if err := r.actors["plain"].CanTakeOver(r.actors["old"]); err == nil || !strings.Contains(err.Error(), "Importer") {
			t.Errorf("one that cannot take it: %v", err)
		}
		if err := r.actors["plain"].TakeOver(t.Context(), r.actors["old"]); err == nil {
			t.Error("it has taken it")
		}
		if err := r.actors["bad"].TakeOver(t.Context(), r.actors["old"]); !errors.Is(err, errNo) {
			t.Errorf("an import that fails: %v", err)
		}
		if err := r.actors["old"].CanTakeOver(r.actors["plain"]); err != nil {
			t.Errorf("from one without state: %v", err)
		}
		if err := r.actors["heir"].TakeOver(t.Context(), r.actors["old"]); err != nil || strings.Join(heir.seen, " ") != "a b" {
			t.Errorf("taken over %q, %v", heir.seen, err)
		}
		r.finish()
	})
}

// Promise: bounds can be changed while a plugin runs, from its next message on: where it may emit, how much, and how long it may take.
func TestTune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		r := newRig(t, part{name: "p", from: []string{"in"}, emits: []string{"x", "y"}, handle: func(ctx context.Context, m *plugin.Message) error {
			switch to := string(m.Payload()); to {
			case "wait":
				<-ctx.Done()
				return context.Cause(ctx)
			default:
				errs = append(errs, m.Emit(to, []byte("0123456789")))
				return nil
			}
		}, retry: loop.RetryPolicy{Attempts: 1}})
		a := r.actors["p"]
		a.Tune(actor.Tuning{Emits: []string{"x"}, MaxEmit: 10})
		r.send("x", "y")
		synctest.Wait()
		a.Tune(actor.Tuning{Emits: []string{"y"}, MaxEmit: 9, Timeout: time.Second})
		r.send("y", "x", "wait")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(errs) != 4 || errs[0] != nil || !errors.Is(errs[1], plugin.ErrUndeclared) || !errors.Is(errs[2], plugin.ErrEmitTooLarge) ||
			!errors.Is(errs[3], plugin.ErrUndeclared) {
			t.Errorf("errors %v", errs)
		}
		if st := a.Stats(); st.Overdue != 1 {
			t.Errorf("%d calls overdue, want the one that waited", st.Overdue)
		}
		a.Tune(actor.Tuning{Emits: []string{"y"}, MaxEmit: 10})
		r.send("y")
		r.finish()
		if errs[4] != nil {
			t.Error(errs[4])
		}
		if got := r.letters(); len(got) != 1 || got[0].payload != "wait" {
			t.Errorf("letters %v", got)
		}
	})
}
