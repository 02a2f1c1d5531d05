package penstock_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock"
)

// Promise: what a handler has emitted goes on its way when it says so, and need not wait for the rest of its batch.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		at := map[string]time.Duration{}
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"1", "2", "3"}}}}},
			Plugins: []penstock.Plugin{
				{Name: "slow", From: []string{"in"}, Emits: []string{"out"}, New: function(func(_ context.Context, m *penstock.Message) error {
					m.Flush()
					time.Sleep(time.Second)
					return m.Forward("out")
				})},
				{Name: "last", From: []string{"out"}, New: function(func(_ context.Context, m *penstock.Message) error {
					mu.Lock()
					defer mu.Unlock()
					at[string(m.Payload())] = time.Since(began)
					return nil
				})},
			},
		})
		if s, err := rt.Run(t.Context()); err != nil || s.Settled != 3 {
			t.Fatalf("%+v, %v", s, err)
		}
		if at["1"] != time.Second || at["2"] != 2*time.Second || at["3"] != 3*time.Second {
			t.Errorf("%v", at)
		}
	})
}

// Promise: when the time for draining is up, what a slow plugin has handled is settled, and only the rest is given back.
func TestSlowPluginIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, handled, out := &list{batches: [][]string{slices.Repeat([]string{"x"}, 100)}, stay: true}, 0, &keep{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: src}},
			Plugins: []penstock.Plugin{{
				Name: "slow", From: []string{"in"}, Emits: []string{"out"}, New: function(func(_ context.Context, m *penstock.Message) error {
					time.Sleep(500 * time.Millisecond)
					handled++
					return m.Forward("out")
				}),
			}},
			Sinks: []penstock.Sink{{Name: "out", From: []string{"out"}, To: out}},
			Drain: 8 * time.Second,
		})
		s, err := rt.Run(ctx)
		if err != nil || handled < 30 || s.Settled != uint64(handled) || s.Returned != uint64(100-handled) || len(out.list) != handled {
			t.Errorf("%d handled, %d written, %+v, %v", handled, len(out.list), s, err)
		}
		if src.returned != 100-handled || len(src.settled) != handled {
			t.Errorf("the source heard of %d settled and %d returned", len(src.settled), src.returned)
		}
	})
}
