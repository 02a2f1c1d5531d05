package builtin_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buger/jsonparser"
	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/builtin"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/penstocktest"
	"github.com/penstock-dev/penstock/plugin"
)

func dedupe(by string, change func(s *builtin.DedupeSettings)) builtin.DedupeSettings {
	return with(builtin.Dedupe(), func(s *builtin.DedupeSettings) {
		if s.By = by; change != nil {
			change(s)
		}
	})
}

// sends gives a plugin messages one by one, or all at once, and returns the payloads that it forwards.
func sends(h *penstocktest.Harness, together bool, ms ...message) string {
	var out []string
	results := make([]penstocktest.Result, 0, len(ms))
	if together {
		results = h.SendAll(ms...)
	} else {
		for _, m := range ms {
			results = append(results, h.Send(m))
		}
	}
	for _, r := range results {
		if r.Verdict != penstocktest.Acked {
			out = append(out, r.Verdict.String())
		}
		for _, e := range r.Emits {
			out = append(out, e.Payload)
		}
	}
	return strings.Join(out, " ")
}

func payloads(ps ...string) (out []message) {
	for _, p := range ps {
		out = append(out, message{Payload: p})
	}
	return out
}

// Promise: the first of messages that are the same is forwarded, and one that comes after the window again.
func TestDedupe(t *testing.T) {
	for _, together := range []bool{false, true} {
		h := penstocktest.New(t, build(t, builtin.Dedupe(), dedupe("payload", nil), "o"))
		if got := sends(h, together, payloads("a", "b", "a", "c", "b")...); got != "a b c" {
			t.Errorf("together %v: %s", together, got)
		}
		h.Advance(10*time.Minute - time.Nanosecond)
		if got := sends(h, together, payloads("a", "b")...); got != "" {
			t.Errorf("within the window: %s", got)
		}
		h.Advance(time.Nanosecond)
		if got := sends(h, together, payloads("b", "a", "b")...); got != "b a" {
			t.Errorf("after the window: %s", got)
		}
	}
}

func TestDedupeBy(t *testing.T) {
	same := payloads(`{"id":"x","n":1}`, `{"n":2,"id":"\u0078"}`, `{"id":null}`, `{"id":null}`, `{"id":""}`, `{}`)
	for _, by := range []string{"msg.id", "$.id"} {
		h := penstocktest.New(t, build(t, builtin.Dedupe(), dedupe(by, nil), "o"))
		if got := sends(h, false, same...); got != `{"id":"x","n":1} {"id":null} {"id":null} {"id":""} `+penstocktest.Rejected.String() {
			t.Errorf("%s: %s", by, got)
		}
	}
	path := penstocktest.New(t, build(t, builtin.Dedupe(), dedupe("$.a-b['c d'][1].in", nil), "o"))
	deep := `{"a-b":{"c d":[0,{"in":"x"}]}}`
	if got := sends(path, false, payloads(deep, deep)...); got != deep {
		t.Errorf("by a path: %s", got)
	}
	h := penstocktest.New(t, build(t, builtin.Dedupe(), dedupe("key", nil), "o"))
	keyed := append([]message{{Payload: "1", Key: "k"}, {Payload: "2", Key: "k"}}, payloads("3", "4")...)
	if got := sends(h, true, keyed...); got != "1 3 4" {
		t.Errorf("by key: %s", got)
	}
}

// Promise: no more than max_keys are remembered; the oldest goes first.
func TestDedupeBound(t *testing.T) {
	h := penstocktest.New(t, build(t, builtin.Dedupe(), dedupe("", func(s *builtin.DedupeSettings) { s.MaxKeys = 100 }), "o"))
	for i := range 500 {
		if got := sends(h, false, payloads(fmt.Sprint(i))...); got != fmt.Sprint(i) {
			t.Fatalf("%d: %q", i, got)
		}
	}
	if got := sends(h, true, payloads("499", "400", "399", "401", "400")...); got != "399 400" {
		t.Errorf("after 500: %s", got)
	}
}

// failing is a host whose emits fail.
type failing struct {
	plugin.Host
	err error
	n   int
}

func (h *failing) Flush(lend.Key) {}

func (h *failing) Emit(lend.Key, *plugin.Message, string, []byte, *plugin.Emission) error {
	if h.err == nil {
		h.n++
	}
	return h.err
}

// lent is a message for a handler, without an actor around it.
func lent(t testing.TB, host plugin.Host, attempt int, payload string) *plugin.Message {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	account, err := a.Account(arena.Sources, "test", 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	slab, err := account.LeaseSized(max(len(payload), 1))
	if err != nil {
		t.Fatal(err)
	}
	b := a.NewBatch()
	b.Slab = slab
	b.Frames = append(b.Frames, arena.Frame{Len: uint32(copy(slab.Bytes(), payload))})
	m := new(plugin.Message)
	m.Describe(lend.Key{}, host, "in", attempt)
	m.Open(lend.Key{}, b, 0)
	t.Cleanup(func() {
		m.Shut(lend.Key{})
		b.Free()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// started makes an instance of a plugin, and starts it.
func started(t testing.TB, p penstock.Plugin, c plugin.Clock) plugin.Handler {
	t.Helper()
	h, err := p.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.(plugin.Starter).Start(context.Background(), plugin.Env{Clock: c}); err != nil {
		t.Fatal(err)
	}
	return h
}

// Promise: a message is remembered only once it has been forwarded, and is never taken for its own duplicate.
func TestDedupeOwnRetry(t *testing.T) {
	h := started(t, build(t, builtin.Dedupe(), dedupe("", nil), "o"), clock.NewManual(time.Now()))
	host := &failing{err: errors.New("full")}
	if err := h.Handle(t.Context(), lent(t, host, 1, "x")); !errors.Is(err, host.err) {
		t.Fatalf("the error of the emit: %v", err)
	}
	host.err = nil
	for i, x := range []struct{ attempt, forwarded int }{{1, 1}, {1, 1}, {2, 2}, {3, 3}, {1, 3}} {
		if err := h.Handle(t.Context(), lent(t, host, x.attempt, "x")); err != nil || host.n != x.forwarded {
			t.Errorf("step %d, attempt %d: %d forwarded, want %d: %v", i, x.attempt, host.n, x.forwarded, err)
		}
	}
}

// Promise: another version takes over what is remembered, with the time that is left to it; other state is refused.
func TestDedupeState(t *testing.T) {
	c := clock.NewManual(time.Now())
	host := &failing{}
	handle := func(h plugin.Handler, payload string) bool {
		n := host.n
		if err := h.Handle(t.Context(), lent(t, host, 1, payload)); err != nil {
			t.Fatal(err)
		}
		return host.n > n
	}
	old := started(t, build(t, builtin.Dedupe(), dedupe("", nil), "o"), c)
	handle(old, "expired")
	c.Advance(5 * time.Minute)
	handle(old, "a")
	c.Advance(5 * time.Minute)
	handle(old, "b")
	state, err := old.(plugin.Exporter).Export(t.Context())
	if err != nil || len(state) != 1+2*24 {
		t.Fatalf("%d bytes: %v", len(state), err)
	}
	c.Advance(time.Hour) // the other's clock may stand elsewhere
	changed := started(t, build(t, builtin.Dedupe(), dedupe("", func(s *builtin.DedupeSettings) { s.Window = 4 * time.Minute }), "o"), c)
	if err := changed.(plugin.Importer).Import(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	if handle(changed, "a") || handle(changed, "b") || !handle(changed, "expired") {
		t.Error("the memory was not taken over")
	}
	c.Advance(4 * time.Minute)
	if !handle(changed, "a") || !handle(changed, "b") {
		t.Error("it is remembered for longer than the window")
	}
	few := started(t, build(t, builtin.Dedupe(), dedupe("", func(s *builtin.DedupeSettings) { s.MaxKeys = 1 }), "o"), c)
	if err := few.(plugin.Importer).Import(t.Context(), state); err != nil || handle(few, "b") || !handle(few, "a") {
		t.Errorf("of more than may be remembered the last should be: %v", err)
	}
	for _, bad := range []string{"", "\x02", "\x01short"} {
		if few.(plugin.Importer).Import(t.Context(), []byte(bad)) == nil {
			t.Errorf("state %q was taken", bad)
		}
	}
}

// Any state: it is refused, or what is exported from it is taken again and the same.
func FuzzDedupeState(f *testing.F) {
	good, _ := hex.DecodeString("01" + strings.Repeat("ab", 16) + "00e40b5402000000" + strings.Repeat("cd", 16) + "ffffffffffffffff")
	f.Add(good)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, state []byte) {
		p := build(t, builtin.Dedupe(), dedupe("", nil), "o")
		c := clock.NewManual(time.Now())
		export := func(state []byte) ([]byte, error) {
			h := started(t, p, c)
			if err := h.(plugin.Importer).Import(t.Context(), state); err != nil {
				return nil, err
			}
			return h.(plugin.Exporter).Export(t.Context())
		}
		once, err := export(state)
		if err != nil {
			return
		}
		if twice, err := export(once); err != nil || string(twice) != string(once) {
			t.Errorf("%x\nthen %x: %v", once, twice, err)
		}
	})
}

func throttle(rate string, change func(s *builtin.ThrottleSettings)) builtin.ThrottleSettings {
	return with(builtin.Throttle(), func(s *builtin.ThrottleSettings) {
		if err := s.Rate.UnmarshalText([]byte(rate)); err != nil {
			panic(err)
		}
		if change != nil {
			change(s)
		}
	})
}

// Promise: no more than the burst goes at once, and no more than the rate over time.
func TestThrottle(t *testing.T) {
	for _, overflow := range []string{"drop", "reject"} {
		h := penstocktest.New(t, build(t, builtin.Throttle(), throttle("10/s", func(s *builtin.ThrottleSettings) {
			s.Overflow, s.Burst = overflow, 3
		}), "o"))
		for step, want := range []int{3, 0, 1, 2, 3} {
			got := 0
			for range 5 {
				r := h.Send(message{Payload: "x"})
				got += len(r.Emits)
				if len(r.Emits) == 0 && (r.Verdict == penstocktest.Rejected) != (overflow == "reject") ||
					r.Verdict == penstocktest.Rejected && !errors.Is(r.Err, builtin.ErrThrottled) {
					t.Fatalf("%s: %v", overflow, r)
				}
			}
			if got != want {
				t.Errorf("%s, step %d: %d, want %d", overflow, step, got, want)
			}
			h.Advance([]time.Duration{99 * time.Millisecond, time.Millisecond, 200 * time.Millisecond, time.Hour, 0}[step])
		}
	}
}

// Promise: each key has the rate to itself, and no more than max_keys are counted: the one that was not seen for longest is forgotten.
func TestThrottleKeys(t *testing.T) {
	h := penstocktest.New(t, build(t, builtin.Throttle(), throttle("1/h", func(s *builtin.ThrottleSettings) {
		s.Key, s.Overflow, s.MaxKeys, s.OnError = "$.k", "drop", 3, "pass"
	}), "o"))
	keys := func(ks string) (got string) {
		for _, k := range ks {
			if len(h.Send(message{Payload: fmt.Sprintf(`{"k":%q}`, k)}).Emits) > 0 {
				got += string(k)
			}
		}
		return got
	}
	for _, x := range [][2]string{{"aabbccabc", "abc"}, {"d", "d"}, {"bcd", ""}, {"a", "a"}, {"b", "b"}, {"da", ""}, {"c", "c"}} {
		if got := keys(x[0]); got != x[1] {
			t.Errorf("%s: %q went through, want %q", x[0], got, x[1])
		}
	}
	if r := h.Send(message{Payload: "{}"}); len(r.Emits) != 1 {
		t.Errorf("without a key: %v", r)
	}
}

// Promise: with wait every message goes through, at the rate, and in order.
func TestThrottleWaits(t *testing.T) {
	host := &failing{}
	m := lent(t, host, 1, "x")
	synctest.Test(t, func(t *testing.T) {
		h := started(t, build(t, builtin.Throttle(), throttle("10/s", func(s *builtin.ThrottleSettings) { s.Burst = 2 }), "o"), clock.System{})
		begin := time.Now()
		for i := range 22 {
			if err := h.Handle(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if want := 100 * time.Millisecond * time.Duration(max(i-1, 0)); time.Since(begin) != want || host.n != i+1 {
				t.Fatalf("message %d after %v, want %v", i, time.Since(begin), want)
			}
		}
	})
}

// Promise: who waits is woken by the end of the call, gives its place back, and fails; who would have to wait too long comes again.
func TestThrottleStopsWaiting(t *testing.T) {
	m := lent(t, &failing{}, 1, "x")
	synctest.Test(t, func(t *testing.T) {
		settings := throttle("1/s", func(s *builtin.ThrottleSettings) { s.MaxWait = time.Second })
		h := started(t, build(t, builtin.Throttle(), settings, "o"), clock.System{})
		if err := h.Handle(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error)
		go func() { failed <- h.Handle(ctx, m) }()
		synctest.Wait()
		err := h.Handle(t.Context(), lent(t, &failing{}, 1, "x"))
		if k, after := plugin.Classify(err); k != plugin.KindRetry || after != 2*time.Second || !errors.Is(err, builtin.ErrThrottled) {
			t.Errorf("beyond the longest wait: %v", err)
		}
		cancel(plugin.ErrOverdue)
		if err := <-failed; !errors.Is(err, plugin.ErrOverdue) {
			t.Errorf("cancelled: %v", err)
		}
		if err := h.Handle(t.Context(), m); err != nil || time.Since(begin) != time.Second {
			t.Errorf("the next goes after %v: %v", time.Since(begin), err)
		}
	})
}

// Promise: the plugins allocate nothing for a message on their fast path.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops what is pooled")
	}
	const payload = `{"id":"a1","origin":"SEA","delay":75}`
	for _, x := range []struct {
		kind     kind.Kind
		settings any
	}{
		{builtin.Filter(), filter(`msg.delay >= 60 && msg.origin == "SEA" && has(msg.id) && msg.id.startsWith("a")`, "")},
		{builtin.Map(), with(builtin.Map(), func(s *builtin.MapSettings) {
			s.Set, s.Remove, s.Key = map[string]string{"from": "msg.origin"}, []string{"id"}, "msg.id"
		})},
		{builtin.Dedupe(), dedupe("msg.id", nil)},
		{builtin.Route(), with(builtin.Route(), func(s *builtin.RouteSettings) {
			s.Routes = []builtin.RouteTo{{Where: `msg.origin in ["PDX", "SEA"]`, To: "o"}}
		})},
		{builtin.Throttle(), throttle("1000000/s", func(s *builtin.ThrottleSettings) { s.Key = "msg.origin" })},
	} {
		h := started(t, build(t, x.kind, x.settings, "o"), clock.System{})
		m := lent(t, &failing{}, 1, payload)
		if n := testing.AllocsPerRun(1000, func() {
			if err := h.Handle(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", x.kind.Name, n)
		}
	}
}

// BenchmarkFilter compares the filter with the same check written by hand with the JSON library. Half of the messages pass.
func BenchmarkFilter(b *testing.B) {
	record := func(delay int) string {
		return fmt.Sprintf(`{"id":"a81c","carrier":"AS","flight":1204,"origin":"SEA","dest":"PDX","gates":[1,2,3],"crew":{"n":6},`+
			`"delay":%d,"note":"%s"}`, delay, strings.Repeat("n", 800))
	}
	host := &failing{}
	ms := []*plugin.Message{lent(b, host, 1, record(75)), lent(b, host, 1, record(15))}
	byHand := plugin.HandlerFunc(func(_ context.Context, m *plugin.Message) error {
		delay, err := jsonparser.GetInt(m.Payload(), "delay")
		if err != nil {
			return plugin.Reject(err)
		}
		if delay < 60 {
			return nil
		}
		origin, _, _, err := jsonparser.Get(m.Payload(), "origin")
		if err != nil {
			return plugin.Reject(err)
		}
		if string(origin) == "SEA" {
			return m.Forward("o")
		}
		return nil
	})
	for _, x := range []struct {
		name string
		h    plugin.Handler
	}{
		{"hand", byHand},
		{"fast", started(b, build(b, builtin.Filter(), filter(`msg.delay >= 60 && msg.origin == "SEA"`, ""), "o"), clock.System{})},
		{"cel", started(b, build(b, builtin.Filter(), filter(`msg.delay + 0 >= 60 && msg.origin == "SEA"`, ""), "o"), clock.System{})},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				if err := x.h.Handle(b.Context(), ms[i&1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
