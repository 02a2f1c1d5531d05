package actor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/sink"
)

// Promise: a sink that is replaced finishes what it has in hand, is flushed and closed; the next one gets what comes after, and each message
// is written once.
func TestSinkSwapUnderLoad(t *testing.T) {
	for name, async := range map[string]bool{"at once": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sinks := []*memory{{async: async}, {async: async}, {async: async}}
				r := newRig(t, part{name: "s", from: []string{"in"}, sink: sinks[0]})
				n := 0
				for i, next := range sinks[1:] {
					for range 20 {
						r.send(fmt.Sprintf("m%d", n))
						n++
					}
					if err := r.sinks["s"].Prepare(t.Context(), next); err != nil {
						t.Fatal(err)
					}
					if err := r.sinks["s"].Swap(t.Context(), next, time.Minute); err != nil {
						t.Fatal(err)
					}
					if sinks[i].closed != 1 || r.sinks["s"].Serving() != sink.Sink(next) {
						t.Errorf("the one before was closed %d times", sinks[i].closed)
					}
				}
				r.send("last")
				r.finish()
				var all seen
				for _, m := range sinks {
					for _, x := range m.all() {
						all.add(x)
					}
				}
				want := []string{"last"}
				for i := range n {
					want = append(want, fmt.Sprintf("m%d", i))
				}
				all.sorted(t, want...)
				if got := sinks[2].all(); !slices.Contains(got, "last") || sinks[2].closed != 1 {
					t.Errorf("the last one has written %q, and was closed %d times", got, sinks[2].closed)
				}
			})
		})
	}
}

// stuck is a sink whose Write waits until its context ends, and that keeps what it was lent.
type stuck struct {
	memory
	calls int
	deaf  chan struct{} // Write waits for it instead, if there is one
}

func (s *stuck) Write(ctx context.Context, _ *sink.Batch) error {
	if s.calls++; s.deaf != nil {
		<-s.deaf
		return errNo
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// Promise: what a sink has not finished when its time is up goes to the one that takes its place, whose calls are not interrupted.
func TestSinkSwapOfOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, began := &stuck{}, time.Now()
		next := &memory{}
		var interrupted error
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: old, items: 2})
		for i := range 10 {
			r.send(fmt.Sprint(i))
		}
		synctest.Wait()
		if err := r.sinks["s"].Swap(t.Context(), &watcher{memory: next, err: &interrupted}, time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second || old.calls > 2 || old.closed != 1 {
			t.Errorf("it took %v, %d calls of the old one, closed %d times", took, old.calls, old.closed)
		}
		r.finish()
		next.sorted(t, "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
		if interrupted != nil {
			t.Errorf("a call of the next one began with a context that had ended: %v", interrupted)
		}
	})
}

// watcher notes a call whose context has ended.
type watcher struct {
	*memory
	err *error
}

func (w *watcher) Write(ctx context.Context, b *sink.Batch) error {
	if ctx.Err() != nil {
		*w.err = context.Cause(ctx)
	}
	return w.memory.Write(ctx, b)
}

// Promise: a sink that cannot be replaced in time goes on, and so does one whose exchange is given up; there is one exchange at a time.
func TestSinkSwapThatIsGivenUp(t *testing.T) {
	for name, old := range map[string]*stuck{"hears": {}, "hears nothing": {deaf: make(chan struct{})}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if old.deaf != nil {
					old.deaf = make(chan struct{}) // one of this bubble
				}
				next := &memory{}
				r := newRig(t, part{name: "s", from: []string{"in"}, sink: old})
				s := r.sinks["s"]
				r.send("a")
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				done := make(chan error)
				go func() { done <- s.Swap(ctx, next, time.Hour) }()
				synctest.Wait()
				if err := s.Swap(ctx, next, time.Hour); !errors.Is(err, actor.ErrSwapping) {
					t.Errorf("a second exchange: %v", err)
				}
				if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("an exchange that was given up: %v", err)
				}
				if s.Serving() != sink.Sink(old) || old.closed != 0 || next.closed != 0 {
					t.Errorf("closed %d and %d times", old.closed, next.closed)
				}
				if old.deaf != nil {
					close(old.deaf)
				}
				if err := s.Swap(t.Context(), next, time.Second); err != nil { // it can be tried again
					t.Fatal(err)
				}
				r.finish()
				next.want(t, "a")
			})
		})
	}
}

// closer is a sink that does not close well.
type closer struct{ memory }

func (*closer) Close(context.Context) error { return errNo }

// Promise: an error of the old one's Close is told, and the next one serves.
func TestSinkSwapTellsAnErrorOfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &memory{}
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: &closer{}})
		s := r.sinks["s"]
		if err := s.Swap(t.Context(), next, time.Second); !errors.Is(err, errNo) || s.Serving() != sink.Sink(next) {
			t.Errorf("error %v", err)
		}
		s.Quiet(1) // word of a pause that is over concerns nobody
		r.send("a")
		r.finish()
		next.want(t, "a")
		if err := s.Swap(t.Context(), &memory{}, time.Second); !errors.Is(err, actor.ErrStopped) {
			t.Errorf("a sink that is stopped was exchanged: %v", err)
		}
	})
}

// keeper is a sink that keeps what it is lent.
type keeper struct{ memory }

func (*keeper) Write(context.Context, *sink.Batch) error { return nil }

// Promise: word that an earlier pause was quiet is not taken for word of this one.
func TestSinkSwapKnowsItsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &memory{}
		r := newRig(t, part{name: "s", from: []string{"in"}, sink: &keeper{}})
		s := r.sinks["s"]
		r.send("a")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Swap(ctx, next, time.Hour); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		began := time.Now()
		done := make(chan error)
		go func() { done <- s.Swap(t.Context(), next, time.Minute) }()
		synctest.Wait()
		s.Quiet(1)
		if err := <-done; err != nil || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		r.finish()
		next.want(t, "a")
	})
}
