package actor_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// batcher sees what has gathered.
type batcher struct {
	plugin.HandlerFunc
	batch func(ctx context.Context, ms *plugin.Messages) error
}

func (b *batcher) HandleBatch(ctx context.Context, ms *plugin.Messages) error {
	return b.batch(ctx, ms)
}

// Promise: in a batch, messages that are marked have their own verdict, emits included, and others that of the whole.
func TestBatchHandlerFailsMessagesOneByOne(t *testing.T) {
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var single, out seen
			p := part{name: "p", from: []string{"in"}, emits: []string{"out"}, new: func() (plugin.Handler, error) {
				return &batcher{single.handle, func(_ context.Context, ms *plugin.Messages) error {
					for i := range ms.Len() {
						m := ms.At(i)
						if err := m.Emit("out", m.Payload()); err != nil {
							return err
						}
						switch string(m.Payload()) {
						case "fail":
							ms.Fail(i, errNo)
						case "reject":
							ms.Fail(i, plugin.Reject(errNo))
						}
						if _, err := m.Hold(time.Second); err == nil {
							t.Error("a message of a batch can be held")
						}
					}
					return nil
				}}, nil
			}}
			p.cfg.Strict = strict
			r := newRig(t, p, downstream(&out))
			r.send("a", "fail", "b", "reject", "c")
			r.finish()
			single.want(t, "fail")
			out.want(t, "a", "b", "c")
			if len(r.letters()) != 1 {
				t.Errorf("letters %v", r.letters())
			}
		})
	}
}

// Promise: a panic, or an error, fails the messages of the batch; each is then tried by itself.
func TestBatchThatFailsIsTriedOneByOne(t *testing.T) {
	for _, boom := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var single, out seen
			calls := 0
			p := part{name: "p", from: []string{"in"}, emits: []string{"out"}, timeout: 50 * time.Millisecond, new: func() (plugin.Handler, error) {
				return &batcher{single.handle, func(_ context.Context, ms *plugin.Messages) error {
					calls++
					_ = ms.At(0).Emit("out", nil)
					if boom {
						panic("boom")
					}
					return errNo
				}}, nil
			}}
			r := newRig(t, p, downstream(&out))
			r.send("a", "b", "c")
			r.finish()
			single.sorted(t, "a", "b", "c")
			out.want(t)
			if st := r.actors["p"].Stats(); calls != 1 || st.Overdue != 0 || boom != (st.Panics == 1) {
				t.Errorf("%d calls, stats %+v", calls, st)
			}
		})
	}
}

// Promise: the workers of a pool work at the same time.
func TestPoolWorksInParallel(t *testing.T) {
	for _, order := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var now, most atomic.Int64
			p := part{name: "p", from: []string{"in"}, handle: func(context.Context, *plugin.Message) error {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Second)
				now.Add(-1)
				return nil
			}}
			p.cfg.Workers, p.cfg.Order = 8, order
			r := newRig(t, p)
			began := time.Now()
			r.send(numbered(0, 64, 64)...)
			r.finish()
			if took := time.Since(began); most.Load() != 8 || !order && took != 8*time.Second {
				t.Errorf("order %v: at most %d at a time, took %v", order, most.Load(), took)
			}
		})
	}
}

// Promise: a pool in order shows the messages of a key one after another, in the order of their arrival, whatever fails.
func TestPoolKeepsTheOrderOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		busy := make([]atomic.Bool, 10)
		p := part{name: "p", from: []string{"in"}, handle: func(ctx context.Context, m *plugin.Message) error {
			var k, n int
			if _, err := fmt.Sscanf(string(m.Payload()), "k%d:%d", &k, &n); err != nil {
				t.Error(err)
			}
			if !busy[k].CompareAndSwap(false, true) {
				t.Errorf("two of key %d at a time", k)
			}
			defer busy[k].Store(false)
			time.Sleep(time.Duration(n%3) * time.Millisecond)
			switch {
			case n%11 == 0 && m.Attempt() < 3:
				return plugin.Retry(errNo, time.Duration(n%7+1)*time.Millisecond)
			case n%31 == 0 && m.Attempt() == 1:
				panic("boom")
			case n%17 == 0 && m.Attempt() == 1:
				h, err := m.Hold(time.Minute)
				time.AfterFunc(time.Millisecond, func() { _ = h.Resolve(errNo) })
				return err
			}
			return s.handle(ctx, m)
		}}
		p.cfg.Workers, p.cfg.Order, p.cfg.Restart.Backoff = 4, true, time.Millisecond
		r := newRig(t, p)
		for i := range 30 {
			r.send(numbered(20*i, 20, 10)...)
			time.Sleep(time.Millisecond)
		}
		r.finish()
		at := map[string]int{}
		for _, x := range s.all() {
			var n int
			k, num, _ := strings.Cut(x, ":")
			_, _ = fmt.Sscan(num, &n)
			if last, ok := at[k]; ok && n != last+10 {
				t.Errorf("%s after %d", x, last)
			}
			at[k] = n
		}
		if len(s.all()) != 600 {
			t.Errorf("%d shown", len(s.all()))
		}
	})
}

// Promise: in strict mode handlers work as they do otherwise, and a slice that is read after Handle faults at that line.
func TestStrictModeFaultsLateReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s, out seen
		var kept []byte
		p := part{name: "p", from: []string{"in"}, emits: []string{"out"}, handle: func(ctx context.Context, m *plugin.Message) error {
			_ = s.handle(ctx, m)
			if string(m.Key()) != "key" {
				t.Errorf("%s has key %q", m.Payload(), m.Key())
			}
			kept = m.Payload()
			switch {
			case m.Attempt() > 1:
			case string(m.Payload()) == "key:panic":
				panic("boom")
			case string(m.Payload()) == "key:hold":
				h, err := m.Hold(time.Minute)
				time.AfterFunc(time.Second, func() {
					if string(h.Payload()) != "key:hold" {
						t.Errorf("held %q", h.Payload())
					}
					_ = h.Retry(errNo, 0)
				})
				return err
			case string(m.Payload()) == "key:retry":
				return plugin.Retry(errNo, 0)
			}
			return m.Emit("out", m.Payload())
		}}
		p.cfg.Strict = true
		r := newRig(t, p, downstream(&out))
		all := []string{"key:a much longer one that comes first", "key:b", "key:panic", "key:hold", "key:retry", "key:c"}
		r.send(all...)
		r.finish()
		s.sorted(t, append(slices.Clone(all), "key:panic", "key:hold", "key:retry")...)
		out.sorted(t, all...)
		if runtime.GOOS != "windows" && !faults(func() byte { return kept[0] }) {
			t.Error("a late reader does not fault")
		}
	})
}

func faults(read func() byte) (faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faulted = recover() != nil }()
	_ = read()
	return false
}

// Promise: Stop returns all that was not served, from mailbox and workers, and what hangs is named.
func TestStopReturnsEverything(t *testing.T) {
	for name, mode := range map[string]struct {
		workers int
		order   bool
	}{"actor": {}, "ordered": {order: true}, "pool": {workers: 3}, "ordered pool": {workers: 3, order: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn := make(chan struct{})
				p := part{name: "p", from: []string{"in"}, items: 4, handle: func(ctx context.Context, m *plugin.Message) error {
					<-goOn
					switch m.Payload()[1] {
					case '1':
						return errNo
					case '2':
						h, err := m.Hold(time.Hour)
						time.AfterFunc(time.Hour, func() { _ = h.Ack() })
						return err
					}
					return nil
				}}
				p.cfg.Workers, p.cfg.Order = mode.workers, mode.order
				r := newRig(t, p)
				for i := range 10 {
					r.send(numbered(5*i, 5, 5)...)
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				r.driver.Post(drain(1))
				<-r.drained
				if err := r.actors["p"].Stop(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"p"`) {
					t.Errorf("Stop with a handler that hangs: %v", err)
				}
				close(goOn)
				time.Sleep(2 * time.Hour)
				r.stop()
				if len(r.settled) != 0 || r.returned != 50 {
					t.Errorf("%d settled, %d returned", len(r.settled), r.returned)
				}
			})
		})
	}
}
