package actor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/plugin"
)

// downstream reads the stream "out".
func downstream(s *seen) part { return part{name: "down", from: []string{"out"}, handle: s.handle} }

// Promise: what an attempt emits comes out once, when it acknowledges: by nil or by the Ack of its hold.
func TestEmitsComeOutOnceOnSuccess(t *testing.T) {
	tests := map[string]struct {
		verdict func(m *plugin.Message) error
		want    []string
	}{
		"nil":    {func(*plugin.Message) error { return nil }, []string{"1"}},
		"retry":  {func(*plugin.Message) error { return plugin.Retry(errNo, time.Second) }, []string{"2"}},
		"panic":  {func(*plugin.Message) error { panic("boom") }, []string{"2"}},
		"reject": {func(*plugin.Message) error { return plugin.Reject(errNo) }, nil},
		"ack": {func(m *plugin.Message) error {
			h, err := m.Hold(time.Hour)
			time.AfterFunc(time.Second, func() { _ = h.Ack() })
			return err
		}, []string{"1"}},
		"ack within": {func(m *plugin.Message) error {
			h, err := m.Hold(time.Hour)
			_ = h.Ack()
			return err
		}, []string{"1"}},
		"ack, emit by the hold": {func(m *plugin.Message) error {
			h, err := m.Hold(time.Hour)
			time.AfterFunc(time.Second, func() {
				if err := h.Emit("out", []byte("held"), plugin.WithKey([]byte("k"))); err != nil {
					panic(err)
				}
				if err := h.Emit("nowhere", nil); !errors.Is(err, plugin.ErrUndeclared) {
					panic(err)
				}
				_ = h.Ack()
			})
			return err
		}, []string{"1", "held"}},
		"held, then retried": {func(m *plugin.Message) error {
			h, err := m.Hold(time.Hour)
			time.AfterFunc(time.Second, func() { _ = h.Emit("out", []byte("held")); _ = h.Retry(errNo, 0) })
			return err
		}, []string{"2"}},
		"held, and lapsed": {func(m *plugin.Message) error {
			h, err := m.Hold(time.Second)
			time.AfterFunc(2*time.Second, func() { _ = h.Ack() }) // too late
			return err
		}, []string{"2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s seen
				r := newRig(t, part{name: "up", from: []string{"in"}, emits: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
					err := m.Emit("out", fmt.Append(nil, m.Attempt()), plugin.WithKey([]byte("k")), plugin.WithHeader("h", []byte("v")))
					if err != nil {
						return err
					}
					if m.Attempt() > 1 {
						return nil
					}
					return tt.verdict(m)
				}}, part{name: "down", from: []string{"out"}, handle: func(ctx context.Context, m *plugin.Message) error {
					if string(m.Key()) != "k" && string(m.Payload()) != "held" || len(m.Payload()) == 1 && string(m.Header("h")) != "v" {
						t.Errorf("%s has key %q, header %q", m.Payload(), m.Key(), m.Header("h"))
					}
					return s.handle(ctx, m)
				}})
				r.send("a")
				time.Sleep(time.Minute)
				r.finish()
				s.sorted(t, tt.want...)
			})
		})
	}
}

// Promise: a message settles after what was emitted from it, dead letters of children included.
func TestParentsSettleAfterTheirChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held *plugin.Held
		r := newRig(t, part{name: "up", from: []string{"in"}, emits: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
			return m.Emit("out", m.Payload())
		}}, part{name: "down", from: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) (err error) {
			switch string(m.Payload()) {
			case "hold":
				held, err = m.Hold(time.Hour)
			case "reject":
				err = plugin.Reject(errNo)
			}
			return err
		}})
		r.send("a", "hold", "reject")
		if n := r.done(); n != 2 {
			t.Errorf("%d settled", n)
		}
		_ = held.Ack()
		r.finish()
	})
}

// Promise: emits beyond the bounds, or to streams that are not declared, fail, and say what to do.
func TestEmitsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		var s seen
		p := part{name: "up", from: []string{"in"}, emits: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
			errs = append(errs, m.Emit("elsewhere", nil), m.Emit("out", make([]byte, 1001)))
			for range 3 {
				errs = append(errs, m.Emit("out", make([]byte, 900)))
			}
			return nil
		}}
		p.cfg.MaxMessage, p.cfg.MaxEmit = 1000, 2000
		r := newRig(t, p, downstream(&s))
		r.send("a")
		r.send("b") // the bound is for one call
		r.finish()
		for i, want := range []error{plugin.ErrUndeclared, plugin.ErrEmitTooLarge, nil, nil, plugin.ErrEmitTooLarge} {
			for _, err := range []error{errs[i], errs[i+5]} {
				if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), `"up"`) {
					t.Errorf("emit %d: %v, want %v", i, err, want)
				}
			}
		}
		if len(s.all()) != 4 {
			t.Errorf("%d come out", len(s.all()))
		}
	})
}

// Promise: emits of any size come out whole and in order, also those that are larger than a slab.
func TestEmitsOfAllSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		all := []int{0, 1, 100, slabSize/4 + 1, 5, slabSize - 1, slabSize, slabSize + 1, 7, 3 * slabSize}
		all = append(all, slices.Repeat([]int{slabSize / 4}, 5)...)
		r := newRig(t, part{name: "up", from: []string{"in"}, emits: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
			for _, n := range all {
				if err := m.Emit("out", bytes.Repeat([]byte{byte(n)}, n), plugin.WithKey([]byte("key"))); err != nil {
					return err
				}
			}
			return nil
		}}, part{name: "down", from: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
			n := len(m.Payload())
			sizes = append(sizes, n)
			if string(m.Key()) != "key" || !bytes.Equal(m.Payload(), bytes.Repeat([]byte{byte(n)}, n)) {
				t.Errorf("the one of %d bytes is damaged", n)
			}
			return nil
		}})
		r.send("a")
		r.finish()
		if fmt.Sprint(sizes) != fmt.Sprint(all) {
			t.Errorf("sizes %v", sizes)
		}
	})
}

// Promise: when emit memory is used up the handler waits, loses nothing, stands in nobody's way, and is not called overdue.
func TestEmitsWaitForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		const n = 40
		p := part{
			name: "up", from: []string{"in"}, emits: []string{"out"}, emit: 4 * slabSize, timeout: time.Second,
			handle: func(_ context.Context, m *plugin.Message) error {
				return m.Emit("out", append(make([]byte, slabSize/2-4, slabSize/2), fmt.Sprintf("%04s", m.Payload())...))
			},
		}
		p.cfg.MaxEmit = slabSize
		r := newRig(t, p, part{name: "down", from: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
			time.Sleep(3 * time.Second)
			s.add(string(m.Payload()[slabSize/2-4:]))
			return nil
		}})
		var in, want []string
		for i := range n {
			in, want = append(in, fmt.Sprint(i)), append(want, fmt.Sprintf("%04d", i))
		}
		r.send(in...)
		r.finish()
		s.want(t, want...)
		if st := r.actors["up"].Stats(); st.Overdue != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// Promise: an aggregate has several parents: they settle after it; if its attempt fails they stay held.
func TestAggregatesSettleAllTheirParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held []*plugin.Held
		var child *plugin.Held
		fail := true
		r := newRig(t, part{name: "up", from: []string{"in"}, emits: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) error {
			if string(m.Payload()) != "sum" {
				h, err := m.Hold(time.Hour)
				held = append(held, h)
				return err
			}
			if err := m.Emit("out", []byte("sum"), plugin.EmitFrom(held...)); err != nil {
				return err
			}
			if err := m.Emit("out", nil, plugin.EmitFrom(held[0])); !errors.Is(err, plugin.ErrVerdictGiven) {
				t.Errorf("a parent of two aggregates: %v", err)
			}
			if _, err := m.Hold(time.Hour); err == nil {
				t.Error("what has emitted an aggregate can be held")
			}
			if fail {
				fail = false
				return plugin.Retry(errNo, time.Minute)
			}
			return nil
		}}, part{name: "down", from: []string{"out"}, handle: func(_ context.Context, m *plugin.Message) (err error) {
			child, err = m.Hold(time.Hour)
			return err
		}})
		r.send("a", "b", "c")
		synctest.Wait()
		r.send("sum")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if child != nil || held[0].Extend(time.Hour) != nil {
			t.Error("the aggregate of a failed attempt has come out, or its parents are not held")
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if child == nil || r.done() != 0 {
			t.Fatalf("%d settled before the aggregate", r.done())
		}
		if err := held[1].Ack(); !errors.Is(err, plugin.ErrVerdictGiven) {
			t.Errorf("a verdict on a parent: %v", err)
		}
		_ = child.Ack()
		if r.done() != 4 {
			t.Errorf("%d settled after the aggregate", r.done())
		}
		r.finish()
	})
}

// clocked emits by itself.
type clocked struct {
	emit func(ctx context.Context, stream string, payload []byte, opts ...plugin.EmitOption) error
}

func (c *clocked) Start(_ context.Context, e plugin.Env) error { c.emit = e.Emit; return nil }

func (c *clocked) Handle(context.Context, *plugin.Message) error { return nil }

// Promise: a message without a parent is settled by its consumers alone, and waits for memory within its context.
func TestEmitsWithoutParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		c := &clocked{}
		block := make(chan struct{})
		p := part{name: "up", from: []string{"in"}, emits: []string{"out"}, emit: slabSize}
		p.new = func() (plugin.Handler, error) { return c, nil }
		r := newRig(t, p, part{name: "down", from: []string{"out"}, handle: func(ctx context.Context, m *plugin.Message) error {
			<-block
			s.add(string(m.Payload()[:1]))
			return nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.emit(ctx, "elsewhere", nil); !errors.Is(err, plugin.ErrUndeclared) {
			t.Errorf("to elsewhere: %v", err)
		}
		if err := c.emit(ctx, "out", make([]byte, 2<<20)); !errors.Is(err, plugin.ErrEmitTooLarge) {
			t.Errorf("too large: %v", err)
		}
		if err := c.emit(ctx, "out", bytes.Repeat([]byte("a"), slabSize)); err != nil {
			t.Error(err)
		}
		if err := c.emit(ctx, "out", bytes.Repeat([]byte("b"), slabSize)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without memory: %v", err)
		}
		time.AfterFunc(time.Minute, func() { close(block) })
		if err := c.emit(t.Context(), "out", bytes.Repeat([]byte("c"), slabSize)); err != nil {
			t.Error(err)
		}
		r.finish()
		s.want(t, "a", "c")
	})
}

// Promise: a ref resolves while its message lives, in other calls too, and to nothing afterwards.
func TestRefsResolveWhileTheirMessageLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ref arena.Ref
		r := newRig(t, part{name: "p", from: []string{"in"}, handle: func(_ context.Context, m *plugin.Message) error {
			b, ok := m.Resolve(ref)
			switch string(m.Payload()) {
			case "first":
				ref = m.Ref()
			case "second":
				if !ok || string(b) != "first" {
					t.Errorf("within its batch: %q, %v", b, ok)
				}
			case "later":
				if ok {
					t.Errorf("after it has settled: %q", b)
				}
			}
			return nil
		}})
		r.send("first", "second")
		synctest.Wait()
		r.send("later")
		r.finish()
	})
}

// Promise: a mailbox that drops drops what is oldest, settles it and counts it.
func TestDropOldestCountsAndSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		goOn := make(chan struct{})
		r := newRig(t, part{name: "p", from: []string{"in"}, drop: 10, items: 1, handle: func(ctx context.Context, m *plugin.Message) error {
			<-goOn
			return s.handle(ctx, m)
		}})
		for i := range 10 {
			r.send(fmt.Sprintf("message%d", i))
		}
		dropped := r.done()
		if c := r.counts("p"); c.Dropped != uint64(dropped) || dropped == 0 {
			t.Errorf("%d settled, counts %+v", dropped, c)
		}
		close(goOn)
		r.finish()
		if all := s.all(); len(all) != 10-dropped || all[len(all)-1] != "message9" {
			t.Errorf("seen %q", all)
		}
	})
}
