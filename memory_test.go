package penstock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/source"
)

// late is a list whose source begins after a while.
type late struct{ list }

func (l *late) Run(ctx context.Context, in source.Intake) error {
	time.Sleep(10 * time.Second) // sleep: others have had their time by then
	return l.list.Run(ctx, in)
}

// Promise: a source whose messages stay, because they fail again and again, leaves another the memory that its own exceptions need: that
// one goes on, however much the first has.
func TestMemoryForWhatStaysIsGuaranteed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 10_000)
		failing := &list{batches: [][]string{{large, large, large, large, large}}, endless: true}
		var good [][]string
		for i := range 50 {
			good = append(good, []string{fmt.Sprint(large, 2*i), fmt.Sprint(large, 2*i+1)})
		}
		src := &late{list: list{batches: good, stay: true}}
		retry := penstock.RetryPolicy{Backoff: time.Hour, Max: time.Hour}
		p := penstock.Pipeline{
			Memory: 32 << 20, Drain: time.Second,
			Sources: []penstock.Source{{Name: "failing", From: failing}, {Name: "good", From: src}},
			Plugins: []penstock.Plugin{
				{Name: "fails", From: []string{"failing"}, Retry: retry, New: function(func(context.Context, *penstock.Message) error { return errNo })},
				{
					Name: "twice", From: []string{"good"}, Retry: penstock.RetryPolicy{Backoff: time.Second, Max: time.Second},
					New: function(func(_ context.Context, m *penstock.Message) error {
						if m.Attempt() == 1 {
							return errNo
						}
						return nil
					}),
				},
			},
		}
		_, _, stop := running(t, p)
		time.Sleep(time.Minute)
		src.mu.Lock()
		settled := len(src.settled)
		src.mu.Unlock()
		if settled != 100 {
			t.Errorf("%d of 100 messages of the good source are settled after a minute", settled)
		}
		count := func() uint64 {
			failing.mu.Lock()
			defer failing.mu.Unlock()
			return failing.given
		}
		first := count()
		time.Sleep(time.Minute)
		if again := count(); again != first {
			t.Errorf("%d messages were given, and later %d: the failing source has not filled what it may have", first, again)
		}
		if _, err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Promise: a plugin can be taken out while what it has emitted is still with its readers, who get all of it.
func TestReloadRemovesAPluginWhoseEmitsAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &list{batches: [][]string{{"1", "2"}, {"3"}}, stay: true}
		slow := &tally{seen: map[string]int{}, slow: time.Minute}
		pipeline := func(plugins ...penstock.Plugin) penstock.Pipeline {
			return penstock.Pipeline{
				Sources: []penstock.Source{{Name: "in", From: src, Identity: "list"}}, Plugins: plugins, Drain: 5 * time.Second,
			}
		}
		reader := penstock.Plugin{Name: "slow", From: []string{"x"}, Identity: "slow", New: native(slow)}
		emitter := func(name string) penstock.Plugin {
			return penstock.Plugin{
				Name: name, From: []string{"in"}, Emits: []string{"x"}, Identity: name, New: function(func(_ context.Context, m *penstock.Message) error {
					return m.Emit("x", m.Payload())
				}),
			}
		}
		rt, _, stop := running(t, pipeline(emitter("one"), reader))
		time.Sleep(time.Second)
		how, err := rt.Reload(t.Context(), pipeline(emitter("other"), reader))
		slow.mu.Lock()
		read := len(slow.seen)
		slow.mu.Unlock()
		if err != nil || len(how.Failed) > 0 || read > 0 {
			t.Errorf("%+v, %v; %d messages were read before", how, err, read)
		}
		time.Sleep(time.Hour)
		if s, err := stop(); err != nil || s.Settled != 3 || s.Dead != 0 {
			t.Errorf("%+v, %v", s, err)
		}
		if slow.seen["1"] != 1 || slow.seen["2"] != 1 || slow.seen["3"] != 1 {
			t.Errorf("read %v", slow.seen)
		}
	})
}
