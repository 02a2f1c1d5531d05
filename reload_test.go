package penstock_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// numbers is a source that gives "1", "2", ... in small batches, until its context ends. Its key is the last digit.
type numbers struct {
	list
	pause    time.Duration
	prepared error // of Prepare
}

func (n *numbers) Prepare(context.Context, source.Env) error { return n.prepared }

func (n *numbers) Run(ctx context.Context, in source.Intake) error {
	for i := 0; ; i += 10 {
		if err := in.Ready(ctx); err != nil {
			return err
		}
		batch := make([]string, 10)
		for j := range batch {
			batch[j] = fmt.Sprint(i + j)
		}
		if err := n.give(ctx, in, batch); err != nil {
			return err
		}
		select {
		case <-time.After(n.pause):
		case <-ctx.Done():
			return nil
		}
	}
}

func lastDigit(payload []byte) []byte { return payload[len(payload)-1:] }

// tally counts messages by their payload, and which handler saw them. It is a plugin with state.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
	tag  string
	fail func(m *penstock.Message) error
	slow time.Duration
	emit string
}

func (c *tally) Handle(_ context.Context, m *penstock.Message) error {
	if c.slow > 0 {
		time.Sleep(c.slow) // sleep: the handler is slow on purpose
	}
	if c.fail != nil {
		if err := c.fail(m); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.seen[string(m.Payload())]++
	c.mu.Unlock()
	if c.emit != "" {
		return m.Emit(c.emit, append([]byte(c.tag), m.Payload()...))
	}
	return nil
}

func (c *tally) Export(context.Context) ([]byte, error) { return json.Marshal(c.seen) }

func (c *tally) Import(_ context.Context, state []byte) error { return json.Unmarshal(state, &c.seen) }

// once checks that the numbers 0 to n-1 were seen once each.
func once(t *testing.T, what string, seen map[string]int, n int) {
	t.Helper()
	for i := range n {
		if seen[fmt.Sprint(i)] != 1 {
			t.Fatalf("%s: %d was seen %d times of %d", what, i, seen[fmt.Sprint(i)], n)
		}
	}
	if len(seen) != n {
		t.Errorf("%s: %d numbers seen, want %d", what, len(seen), n)
	}
}

// running runs a pipeline in the background. stop ends it and returns what Run returned.
func running(t *testing.T, p penstock.Pipeline) (rt *penstock.Runtime, letters *store, stop func() (penstock.Summary, error)) {
	t.Helper()
	letters = &store{}
	p.DeadLetters = letters
	rt, _ = prepare(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	type result struct {
		s   penstock.Summary
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := rt.Run(ctx)
		done <- result{s, err}
	}()
	synctest.Wait()
	return rt, letters, func() (penstock.Summary, error) {
		cancel()
		r := <-done
		return r.s, r.err
	}
}

func native(h penstock.Handler) func() (penstock.Handler, error) {
	return func() (penstock.Handler, error) { return h, nil }
}

// Promise: a reload touches nothing that has not changed: the source goes on, state stays, nothing is lost or handled twice.
func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &numbers{pause: time.Millisecond}
		stays, swapped := &tally{seen: map[string]int{}}, &tally{seen: map[string]int{}}
		out := &keep{}
		made := 0
		pipeline := func(identity string, h *tally) penstock.Pipeline {
			return penstock.Pipeline{
				Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers"}},
				Plugins: []penstock.Plugin{
					{Name: "stays", From: []string{"in"}, Identity: "a", New: func() (penstock.Handler, error) { made++; return stays, nil }},
					{Name: "swapped", From: []string{"in"}, Emits: []string{"out"}, Identity: identity, New: native(h)},
				},
				Sinks: []penstock.Sink{{Name: "out", From: []string{"out"}, To: out, Identity: "keep"}},
			}
		}
		swapped.emit = "out"
		rt, _, stop := running(t, pipeline("1", swapped))
		for i := range 5 {
			time.Sleep(50 * time.Millisecond)
			next := &tally{seen: map[string]int{}, emit: "out"}
			how, err := rt.Reload(t.Context(), pipeline(fmt.Sprint(i+2), next))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(how.Changed, []string{"plugin swapped"}) || len(how.Added)+len(how.Removed)+len(how.Failed) > 0 ||
				!slices.Equal(how.Untouched, []string{"source in", "plugin stays", "sink out"}) {
				t.Errorf("reload: %+v", how)
			}
			swapped = next
		}
		time.Sleep(50 * time.Millisecond)
		s, err := stop()
		if err != nil || s.Retried+s.Dead+s.Dropped+s.Returned > 0 || s.Accepted != s.Settled || made != 1 {
			t.Errorf("%+v, %v, made %d times", s, err, made)
		}
		src.all(t)
		once(t, "stays", stays.seen, int(s.Accepted))
		once(t, "swapped", swapped.seen, int(s.Accepted)) // by way of Export and Import
		if len(out.list) != int(s.Accepted) {
			t.Errorf("%d written", len(out.list))
		}
	})
}

// Promise: what is added reads all that arrives from then on, what is taken out gets all that had arrived, and what both make is whole.
func TestReloadAddsAndRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, other := &numbers{pause: time.Millisecond}, &numbers{pause: 3 * time.Millisecond}
		old := &tally{seen: map[string]int{}, emit: "old", slow: 100 * time.Microsecond}
		late := &tally{seen: map[string]int{}, emit: "late"}
		oldOut, lateOut := &keep{}, &keep{}
		rt, letters, stop := running(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers"}},
			Plugins: []penstock.Plugin{{Name: "old", From: []string{"in"}, Emits: []string{"old"}, New: native(old)}},
			Sinks:   []penstock.Sink{{Name: "old", From: []string{"old"}, To: oldOut}},
		})
		time.Sleep(100 * time.Millisecond)
		how, err := rt.Reload(t.Context(), penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers"}, {Name: "other", From: other}},
			Plugins: []penstock.Plugin{{Name: "late", From: []string{"in", "other"}, Emits: []string{"late"}, New: native(late)}},
			Sinks:   []penstock.Sink{{Name: "late", From: []string{"late"}, To: lateOut}},
		})
		if err != nil || !slices.Equal(how.Added, []string{"source other", "plugin late", "sink late"}) ||
			!slices.Equal(how.Removed, []string{"plugin old", "sink old"}) || len(how.Failed) > 0 {
			t.Fatalf("%+v, %v", how, err)
		}
		time.Sleep(100 * time.Millisecond)
		if s := rt.Stats(); len(s.Rows) != 4 {
			t.Errorf("rows %+v", s.Rows)
		}
		how, err = rt.Reload(t.Context(), penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers"}},
			Sinks:   []penstock.Sink{{Name: "last", From: []string{"in"}, To: &keep{}}},
		})
		if err != nil || !slices.Equal(how.Removed, []string{"source other", "plugin late", "sink late"}) || len(how.Failed) > 0 {
			t.Fatalf("%+v, %v", how, err)
		}
		time.Sleep(10 * time.Millisecond)
		s, err := stop()
		if err != nil || s.Accepted != s.Settled || s.Returned+s.Dead+s.Retried > 0 || len(letters.letters) > 0 {
			t.Errorf("%+v, %v", s, err)
		}
		src.all(t)
		other.all(t)
		seen := map[string]int{}
		for n := range old.seen {
			seen[n]++
		}
		if len(oldOut.list) != len(old.seen) {
			t.Errorf("%d emitted, %d written", len(old.seen), len(oldOut.list))
		}
		fromOther := other.given
		total := 0
		for _, n := range late.seen {
			total += n
		}
		if len(lateOut.list) != total || total <= int(fromOther) {
			t.Errorf("%d emitted, %d written, %d of the other", total, len(lateOut.list), fromOther)
		}
		for i := range old.seen {
			if old.seen[i] != 1 {
				t.Fatalf("%s handled %d times", i, old.seen[i])
			}
		}
	})
}

// Promise: a sink that goes over to another stream still gets what the plugin that leaves has to emit to the old one.
func TestReloadOfAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, out := &numbers{pause: time.Millisecond}, &keep{}
		slow := &tally{seen: map[string]int{}, emit: "kept", slow: 200 * time.Microsecond}
		pipeline := func(from string, plugins ...penstock.Plugin) penstock.Pipeline {
			return penstock.Pipeline{
				Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers"}},
				Plugins: plugins,
				Sinks:   []penstock.Sink{{Name: "out", From: []string{from}, To: out, Identity: "keep"}},
			}
		}
		through := penstock.Plugin{Name: "slow", From: []string{"in"}, Emits: []string{"kept"}, Identity: "slow", New: native(slow)}
		rt, _, stop := running(t, pipeline("kept", through))
		for i := range 6 {
			time.Sleep(50 * time.Millisecond)
			next := pipeline("in")
			if i%2 == 1 {
				next = pipeline("kept", through)
			}
			if how, err := rt.Reload(t.Context(), next); err != nil || len(how.Failed) > 0 {
				t.Fatalf("%+v, %v", how, err)
			}
		}
		time.Sleep(50 * time.Millisecond)
		s, err := stop()
		if err != nil || s.Accepted != s.Settled || s.Dead+s.Retried > 0 {
			t.Errorf("%+v, %v", s, err)
		}
		seen := map[string]int{}
		for _, n := range out.list {
			seen[n]++
		}
		once(t, "out", seen, int(s.Accepted))
	})
}

// Promise: a reload that fails changes nothing, and says why.
func TestReloadThatFailsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &numbers{pause: time.Millisecond}
		count := &tally{seen: map[string]int{}}
		base := penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers"}},
			Plugins: []penstock.Plugin{{Name: "count", From: []string{"in"}, Identity: "1", New: native(count)}},
		}
		rt, _, stop := running(t, base)
		fails := func() (penstock.Handler, error) { return nil, errNo }
		silent := handler(func(context.Context, *penstock.Message) error { return nil }) // has no Importer
		for _, c := range []struct {
			name string
			next func(p *penstock.Pipeline)
			want string
		}{
			{"a plugin that does not start", func(p *penstock.Pipeline) {
				p.Plugins = append(p.Plugins, penstock.Plugin{Name: "bad", From: []string{"in"}, New: fails})
			}, "does not start"},
			{"a version that does not start", func(p *penstock.Pipeline) { p.Plugins[0].Identity, p.Plugins[0].New = "2", fails }, "does not start"},
			{"a version that cannot take the state", func(p *penstock.Pipeline) {
				p.Plugins[0].Identity, p.Plugins[0].New = "2", native(silent)
			}, "no Importer"},
			{"workers that cannot take the state", func(p *penstock.Pipeline) {
				p.Plugins[0].Workers, p.Plugins[0].New = 2, native(silent)
			}, "no Importer"},
			{"a sink that does not open", func(p *penstock.Pipeline) {
				p.Sinks = append(p.Sinks, penstock.Sink{Name: "bad", From: []string{"in"}, To: &unopened{}})
			}, "cannot open"},
			{"a source that cannot be prepared", func(p *penstock.Pipeline) {
				p.Sources = append(p.Sources, penstock.Source{Name: "bad", From: &numbers{prepared: errNo}})
				p.Plugins[0].From = []string{"in", "bad"}
			}, "no"},
			{"a stream that nobody makes", func(p *penstock.Pipeline) { p.Plugins[0].From = []string{"im"} }, `"im"`},
			{"other memory", func(p *penstock.Pipeline) { p.Memory = 512 << 20 }, "Memory cannot be changed"},
		} {
			next := base
			next.Plugins = slices.Clone(base.Plugins)
			next.Sources = slices.Clone(base.Sources)
			c.next(&next)
			time.Sleep(20 * time.Millisecond)
			if _, err := rt.Reload(t.Context(), next); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		time.Sleep(20 * time.Millisecond)
		s, err := stop()
		if err != nil || s.Accepted != s.Settled || s.Retried+s.Dead > 0 || len(s.Rows) != 2 {
			t.Errorf("%+v, %v", s, err)
		}
		src.all(t)
		once(t, "count", count.seen, int(s.Accepted))
		if _, err := rt.Reload(t.Context(), base); !errors.Is(err, penstock.ErrChanging) {
			t.Errorf("reload of what has ended: %v", err)
		}
	})
}

type unopened struct{ keep }

func (*unopened) Open(context.Context, sink.Env) error { return errors.New("cannot open") }

// Promise: another number of workers keeps the state and the order by key.
func TestReloadChangesWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &numbers{pause: time.Millisecond}
		var mu sync.Mutex
		last := map[string]int{}
		ordered := func(m *penstock.Message) error {
			n, key := 0, string(m.Key())
			if _, err := fmt.Sscan(string(m.Payload()), &n); err != nil {
				return err
			}
			if n%17 == 0 && m.Attempt() == 1 {
				return penstock.Retry(errNo, 3*time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			if n < last[key] {
				t.Errorf("%d after %d", n, last[key])
			}
			last[key] = n
			return nil
		}
		pipeline := func(workers int, h *tally) penstock.Pipeline {
			h.fail = ordered
			return penstock.Pipeline{
				Sources: []penstock.Source{{Name: "in", From: src, Identity: "numbers", Key: lastDigit}},
				Plugins: []penstock.Plugin{{Name: "count", From: []string{"in"}, Workers: workers, ByKey: true, Identity: "1", New: native(h)}},
			}
		}
		rt, _, stop := running(t, pipeline(0, &tally{seen: map[string]int{}}))
		var now *tally
		for _, workers := range []int{2, 4, 1, 0} {
			time.Sleep(30 * time.Millisecond)
			now = &tally{seen: map[string]int{}}
			if how, err := rt.Reload(t.Context(), pipeline(workers, now)); err != nil || len(how.Failed) > 0 || len(how.Changed) != 1 {
				t.Fatalf("%+v, %v", how, err)
			}
		}
		time.Sleep(30 * time.Millisecond)
		s, err := stop()
		if err != nil || s.Accepted != s.Settled || s.Dead+s.Returned > 0 || s.Rows[1].Delivered < s.Accepted {
			t.Errorf("%+v, %v", s, err)
		}
		src.all(t)
		once(t, "count", now.seen, int(s.Accepted))
	})
}

// dead is a sink whose destination is not there.
type dead struct{ keep }

func (*dead) Write(context.Context, *sink.Batch) error { return errNo }

// Promise: a sink that is down can be replaced by one that works, which gets all that was owed; one that is taken out leaves dead letters.
func TestReloadReplacesADeadSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &list{batches: [][]string{{"1", "2"}, {"3"}}, stay: true}
		out := &keep{}
		pipeline := func(sinks ...penstock.Sink) penstock.Pipeline {
			return penstock.Pipeline{Sources: []penstock.Source{{Name: "in", From: src, Identity: "list"}}, Sinks: sinks, Drain: time.Second}
		}
		rt, letters, stop := running(t, pipeline(
			penstock.Sink{Name: "a", From: []string{"in"}, To: &dead{}}, penstock.Sink{Name: "b", From: []string{"in"}, To: &dead{}}))
		time.Sleep(time.Second)
		how, err := rt.Reload(t.Context(), pipeline(penstock.Sink{Name: "a", From: []string{"in"}, To: out}))
		if err != nil || len(how.Failed) > 0 || len(letters.letters) != 3 || !strings.Contains(letters.letters[0].Reason, "taken out") {
			t.Fatalf("%+v, %v, %d letters", how, err, len(letters.letters))
		}
		synctest.Wait() // none of them waits for its backoff
		out.want(t, "1", "2", "3")
		s, err := stop()
		if err != nil || s.Settled != 3 || s.Dead != 3 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// Promise: a source that is changed ends, with all settled, before the other takes its place; and one that has failed is run again.
func TestReloadReplacesSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, failed := &numbers{pause: time.Millisecond}, &list{err: errNo}
		count := &tally{seen: map[string]int{}, slow: 50 * time.Microsecond}
		pipeline := func(a, b source.Source, identity string) penstock.Pipeline {
			return penstock.Pipeline{
				Sources: []penstock.Source{{Name: "a", From: a, Identity: identity}, {Name: "b", From: b, Identity: "same"}},
				Plugins: []penstock.Plugin{{Name: "count", From: []string{"a", "b"}, Identity: "count", New: native(count)}},
				Linger:  true,
			}
		}
		rt, _, stop := running(t, pipeline(first, failed, "1"))
		time.Sleep(50 * time.Millisecond)
		second, again := &list{batches: [][]string{{"x"}}}, &list{batches: [][]string{{"y"}}}
		how, err := rt.Reload(t.Context(), pipeline(second, again, "2"))
		if err != nil || !slices.Equal(how.Changed, []string{"source a", "source b"}) || len(how.Failed) > 0 {
			t.Fatalf("%+v, %v", how, err)
		}
		first.all(t)
		time.Sleep(time.Second)
		s, err := stop()
		if !errors.Is(err, errNo) || s.Accepted != s.Settled || s.Accepted != first.given+2 || s.Rows[2].Delivered != s.Accepted {
			t.Errorf("%+v, %v", s, err)
		}
		if count.seen["x"] != 1 || count.seen["y"] != 1 {
			t.Errorf("%v", count.seen)
		}
	})
}

// Promise: the age of the oldest message is told, by source and by plugin.
func TestOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		rt, _, stop := running(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"1"}}, stay: true}}},
			Plugins: []penstock.Plugin{
				{Name: "fast", From: []string{"in"}, New: function(func(context.Context, *penstock.Message) error { return nil })},
				{Name: "stuck", From: []string{"in"}, New: function(func(context.Context, *penstock.Message) error { <-block; return nil })},
			},
		})
		time.Sleep(10 * time.Second)
		rows := rt.Stats().Rows
		for i, want := range []time.Duration{9 * time.Second, 0, 9 * time.Second} {
			if rows[i].Oldest != want {
				t.Errorf("%s: %v, want %v", rows[i].Name, rows[i].Oldest, want)
			}
		}
		close(block)
		time.Sleep(2 * time.Second)
		for _, r := range rt.Stats().Rows {
			if r.Oldest != 0 {
				t.Errorf("%s: %v when all is settled", r.Name, r.Oldest)
			}
		}
		if _, err := stop(); err != nil {
			t.Error(err)
		}
	})
}
