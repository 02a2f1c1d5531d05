package actor_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
)

// memory is a sink that writes when it is flushed.
type memory struct {
	seen
	write, flush func() error // what they answer, and a chance to fail, block or panic
	now          bool         // writes are done at once
	async        bool         // each message is done by a goroutine, a second later

	mu      sync.Mutex
	pending []*sink.Batch
	flushes int
	closed  int
}

func (m *memory) Open(context.Context, sink.Env) error { return nil }

func (m *memory) Write(_ context.Context, b *sink.Batch) error {
	if m.write != nil {
		if err := m.write(); err != nil {
			return err
		}
	}
	switch {
	case m.now:
		m.put(b)
	case m.async:
		for i := range b.Len() {
			time.AfterFunc(time.Second, func() {
				m.add(string(b.Payload(i)))
				b.Done(i, i+1, nil)
			})
		}
	default:
		m.pending = append(m.pending, b)
	}
	return nil
}

func (m *memory) put(b *sink.Batch) {
	for i := range b.Len() {
		m.add(string(b.Payload(i)))
	}
	b.Done(0, b.Len(), nil)
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	m.flushes++
	m.mu.Unlock()
	pending := m.pending
	m.pending = nil
	if m.flush != nil {
		if err := m.flush(); err != nil {
			return err
		}
	}
	for _, b := range pending {
		m.put(b)
	}
	return nil
}

func (m *memory) Close(context.Context) error { m.closed++; return nil }

func (m *memory) count() int {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushes
}

// Promise: a sink is flushed when nothing more waits for it, so that none waits for a count that cannot come.
func TestSinkIsFlushedWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: m, flush: actor.FlushPolicy{Messages: 1000, Bytes: 1 << 20, Every: time.Hour}})
		r.send("a", "b")
		if r.done() != 2 {
			t.Errorf("%d settled", r.done())
		}
		r.send("c")
		r.finish()
		m.want(t, "a", "b", "c")
		if m.closed != 1 {
			t.Errorf("closed %d times", m.closed)
		}
	})
}

// Promise: while more keep coming a sink is flushed by count, by bytes, and by time.
func TestSinkIsFlushedWhileBusy(t *testing.T) {
	for name, p := range map[string]actor.FlushPolicy{
		"count": {Messages: 4}, "bytes": {Bytes: 40}, "time": {Every: 4 * time.Second}, "never": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				m.write = func() error { time.Sleep(time.Second); return nil }
				r := newRig(t, part{name: "s", from: []string{"in"}, sink: m, flush: p, items: 100})
				for range 21 {
					r.send("0123456789")
				}
				time.Sleep(20*time.Second + time.Millisecond)
				got := m.count()
				if want := 5; name != "never" && (got < want-1 || got > want) || name == "never" && got != 0 {
					t.Errorf("%d flushes in 20 of 21 s", got)
				}
				r.finish()
			})
		})
	}
}

// Promise: what a sink fails to write is tried again until it works, and nothing is lost; a panic is an error like others.
func TestSinkThatFailsIsTriedAgain(t *testing.T) {
	for _, where := range []string{"write", "flush"} {
		for _, how := range []string{"error", "panic"} {
			t.Run(where+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fails := 5
					f := func() error {
						if fails--; fails < 0 {
							return nil
						}
						if how == "panic" {
							panic("boom")
						}
						return errNo
					}
					m := &memory{}
					if where == "write" {
						m.write = f
					} else {
						m.flush = f
					}
					r := newRig(t, part{name: "s", from: []string{"in"}, sink: m})
					for i := range 10 {
						r.send(fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
					}
					r.finish()
					var want []string
					for i := range 10 {
						want = append(want, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
					}
					m.sorted(t, want...)
					if n := r.sinks["s"].Failures(); n != 5 || !r.log.has("sink failed") {
						t.Errorf("%d failures", n)
					}
				})
			})
		}
	}
}

// Promise: messages may be done later, from any goroutine, in any part; verdicts of a sink are those of a handler.
func TestSinkIsDoneLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{async: true}
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: m})
		r.send("a", "b", "c")
		if r.done() != 0 {
			t.Errorf("%d settled too early", r.done())
		}
		r.finish()
		m.sorted(t, "a", "b", "c")
	})
	synctest.Test(t, func(t *testing.T) {
		m := &memory{write: func() error { return plugin.Reject(errNo) }}
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: m})
		r.send("a")
		r.finish()
		if got := r.letters(); len(got) != 1 || got[0].plugin != "s" {
			t.Errorf("letters %v", got)
		}
	})
}

// Promise: Stop returns what was not written, and names a sink that hangs.
func TestSinkStopReturnsWhatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		m := &memory{write: func() error { <-goOn; return errNo }}
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: m, items: 2})
		for range 5 {
			r.send("a", "b")
		}
		synctest.Wait()
		r.driver.Post(drain(1))
		<-r.drained
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.sinks["s"].Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop while Write hangs: %v", err)
		}
		close(goOn)
		r.stop()
		if len(r.settled) != 0 || r.returned != 10 {
			t.Errorf("%d settled, %d returned", len(r.settled), r.returned)
		}
	})
}
