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

// Promise: a quarantine ends by Resume or a swap, and not by a swap that was given up before it began.
func TestSwapThatWasGivenUpEndsNoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn, calls := make(chan struct{}), 0
		p := part{name: "p", from: []string{"in"}, handle: func(context.Context, *plugin.Message) error {
			if calls++; calls == 1 {
				<-goOn
				panic("boom")
			}
			return nil
		}}
		p.cfg.Restart = actor.Restart{Backoff: time.Second, Max: time.Second, Crashes: 1, Within: time.Hour}
		r := newRig(t, p)
		r.send("a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		next := actor.Version{Name: "2", New: (&life{s: &seen{}, id: "2"}).make}
		if _, err := r.actors["p"].Swap(ctx, next); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("swap of a busy plugin: %v", err)
		}
		close(goOn)
		time.Sleep(time.Minute)
		if st := r.actors["p"].Stats(); st.State != actor.Quarantined || calls != 1 {
			t.Errorf("stats %+v, %d calls", st, calls)
		}
		r.actors["p"].Resume()
		r.finish()
	})
}
