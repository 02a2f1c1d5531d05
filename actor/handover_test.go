package actor_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/plugin"
)

// Promise: what a replaced version holds it may finish for as long as the swap says; what is left goes to the new version, is counted, and
// does not count as an attempt. Only then is the old version stopped.
func TestHandOverWaitsForWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var attempts []int
		var kept *plugin.Held
		old := &stoppable{handle: func(_ context.Context, m *plugin.Message) error {
			h, err := m.Hold(time.Hour)
			if err == nil && string(m.Payload()) == "quick" {
				time.AfterFunc(time.Second, func() { _ = h.Ack() })
			} else {
				kept = h
			}
			return err
		}}
		next := plugin.HandlerFunc(func(_ context.Context, m *plugin.Message) error {
			attempts = append(attempts, m.Attempt())
			return nil
		})
		r := newRig(t, part{name: "p", from: []string{"in"}, new: func() (plugin.Handler, error) { return old, nil }})
		r.send("quick", "never")
		how, err := r.actors["p"].Swap(t.Context(), actor.Version{
			Name: "2", Drain: 10 * time.Second, New: func() (plugin.Handler, error) { return next, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began).Round(time.Second); how.Redelivered != 1 || took != 10*time.Second || old.stopped != took {
			t.Errorf("%+v after %v, the old version was stopped after %v", how, took, old.stopped)
		}
		if err := kept.Ack(); !errors.Is(err, plugin.ErrLeaseLost) {
			t.Errorf("a verdict on what was taken back: %v", err)
		}
		r.finish()
		if r.done() != 2 || len(attempts) != 1 || attempts[0] != 1 {
			t.Errorf("%d settled; the new version saw attempts %v", r.done(), attempts)
		}
	})
}

// stoppable is a handler that remembers when it was stopped.
type stoppable struct {
	handle  plugin.HandlerFunc
	began   time.Time
	stopped time.Duration
}

func (s *stoppable) Start(context.Context, plugin.Env) error { s.began = time.Now(); return nil }

func (s *stoppable) Handle(ctx context.Context, m *plugin.Message) error { return s.handle(ctx, m) }

func (s *stoppable) Stop(context.Context) error {
	s.stopped = time.Since(s.began).Round(time.Second)
	return nil
}
