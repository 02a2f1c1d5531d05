package penstocktest

import (
	"runtime/debug"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
)

// pendingEmit is an emit whose parent has not settled yet.
type pendingEmit struct {
	Emit
	parent uint32 // its place in the batch that was handled
}

// pump lets plugin and loop do what there is to do now.
func (h *Harness) pump() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a use after release becomes a panic of the handler
	for again := true; again; again = h.work() {
		for h.work() {
		}
		for _, f := range h.feeds { // a goroutine of Held.Go may be running the loop: wait until it has done what was posted before
			f.driver.Counts()
			f.driver.Counts()
		}
	}
}

// work does one thing, and reports false if there was none.
func (h *Harness) work() bool {
	if !h.stopped && h.actor.Step() {
		return true
	}
	select {
	case d := <-h.outlet:
		h.collect(&d)
		return true
	default:
		return false
	}
}

// collect takes what was emitted, as a consumer does that acknowledges everything.
func (h *Harness) collect(d *loop.Delivery) {
	b := d.Batch
	h.mu.Lock()
	for i := range b.Len() {
		e := Emit{Stream: d.Lane.Stream(d.Stream), Payload: string(b.Payload(i)), Key: string(b.Key(i))}
		for n, v, rest, ok := arena.NextHeader(b.Headers(i)); ok; n, v, rest, ok = arena.NextHeader(rest) {
			e.Headers = append(e.Headers, Header{Name: string(n), Value: string(v)})
		}
		if len(b.Parents) == 0 {
			h.loose = append(h.loose, e)
		} else {
			h.pending = append(h.pending, pendingEmit{e, b.Parents[i]})
		}
	}
	h.mu.Unlock()
	if b.Return() {
		d.Lane.Report(d.Unit, true, nil)
	}
	d.Lane.Done(d)
}

// Settle implements loop.World: messages are done with, and with them all that was emitted from them.
func (f *feed) Settle(s loop.Settlement) {
	if s.Returned {
		return
	}
	h := f.h
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range s.Receipts {
		l := h.lives[id-1]
		l.settled = true
		if r := l.last(); r.Verdict == Held { // its holder has acknowledged it
			h.addLocked(l, &Result{Verdict: Acked, Attempt: r.Attempt})
		}
		kept := h.pending[:0]
		for _, e := range h.pending {
			if len(s.Receipts) == 1 || int(e.parent) == l.pos {
				l.last().Emits = append(l.last().Emits, e.Emit)
			} else {
				kept = append(kept, e)
			}
		}
		h.pending = kept
	}
}

// Bury implements loop.World.
func (f *feed) Bury(u loop.UnitID, _ loop.ConsumerID, _ *arena.Batch, letter loop.Letter) {
	h := f.h
	h.mu.Lock()
	h.lives[letter.Receipt-1].last().Dead = true
	h.mu.Unlock()
	f.driver.Post(loop.Event{Kind: loop.Buried, Unit: u, Detail: &loop.Detail{}})
}

// Lapse implements loop.World.
func (f *feed) Lapse(x loop.Handle) bool {
	if !actor.Lapse(x) {
		return false
	}
	h := f.h
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lives {
		if l.handle == x {
			h.addLocked(l, &Result{Verdict: Lapsed, Attempt: l.last().Attempt, Err: loop.ErrLapsed})
			break
		}
	}
	return true
}

// LinkSettled implements loop.World.
func (f *feed) LinkSettled(link uint64) {
	for _, other := range f.h.feeds {
		other.driver.Post(loop.Event{Kind: loop.LinkSettled, Detail: &loop.Detail{Link: link}})
	}
}

// Quiet implements loop.World.
func (f *feed) Quiet(_ loop.ConsumerID, pause uint64, count int) { f.h.actor.Quiet(pause, count) }

// Retired implements loop.World.
func (f *feed) Retired(loop.ConsumerID) {}

// Drained implements loop.World.
func (f *feed) Drained(int) {}

// observe hears of verdicts that come through a Held. That it was acknowledged shows when it settles.
func (h *Harness) observe(ev *loop.Event, _ []loop.Effect) {
	if ev.Kind != loop.HeldVerdict || len(ev.Detail.Exceptions) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lives {
		if l.handle == nil || loop.Token(l.handle.Token(key)) != ev.Detail.Token {
			continue
		}
		x := ev.Detail.Exceptions[0]
		r := &Result{Verdict: Failed, Attempt: l.last().Attempt, Err: x.Cause}
		switch x.What {
		case loop.Rejected:
			r.Verdict = Rejected
		case loop.Retried:
			r.Verdict, r.After = Retried, time.Duration(x.After)*time.Millisecond
		default:
		}
		h.addLocked(l, r)
		return
	}
}

// result is the verdict number n on a message, which must be there.
func (h *Harness) result(l *life, n int) Result {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n >= len(l.history) {
		h.t.Fatalf("penstocktest: %v has had no verdict: this is a fault of penstocktest", l)
	}
	return *l.history[n]
}

// Next is the verdict on the same message that follows r. It waits for goroutines of Held.Go, up to ten seconds of real time. If there
// are none, or they give no verdict, it lets time go on: to the next delivery of a message that waits for its backoff, to the end of the
// lease of one that is held. It fails the test if there is nothing more to come: a message that was acknowledged, or is dead.
//
// It does not know of other goroutines that the plugin has started: wait for those before calling it.
func (r Result) Next() Result {
	l := r.of
	h := l.h
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		running := h.actor.Stats().Spawned
		h.pump()
		h.mu.Lock()
		there, settled, changed := len(l.history) > r.n+1, l.settled, h.changed
		h.mu.Unlock()
		switch {
		case there:
			return h.result(l, r.n+1)
		case settled:
			h.t.Fatalf("penstocktest: no verdict follows on %v: it is %v, and done with%s", l, r.Verdict, dead(r))
		case running > 0:
			h.await(l, changed, deadline)
		case !h.tick():
			h.t.Fatalf("penstocktest: no verdict follows on %v: it is %v, and nothing is due", l, r.Verdict)
		}
	}
}

func dead(r Result) string {
	if r.Dead {
		return ": it went to the dead letters"
	}
	return ""
}

// await waits until something has changed, or it is time to look again.
func (h *Harness) await(l *life, changed <-chan struct{}, deadline time.Time) {
	h.t.Helper()
	look := time.NewTimer(time.Millisecond) // the end of a goroutine is not announced
	defer look.Stop()
	select {
	case <-changed:
	case <-look.C:
	}
	if time.Now().After(deadline) {
		h.t.Fatalf("penstocktest: no verdict on %v: what was given to Held.Go has not returned within %v; "+
			"if it waits for Env.Clock, call Advance first", l, patience)
	}
}

// tick moves time to the next thing that is due; it reports false if there is none.
func (h *Harness) tick() bool {
	at, ok := h.clock.Next()
	if ok {
		h.clock.Advance(max(at.Sub(h.clock.Now()), 0))
	}
	return ok
}

// String shows the result as failures do.
func (r Result) String() string {
	var b strings.Builder
	b.WriteString(r.Verdict.String())
	if r.Err != nil {
		b.WriteString(": " + r.Err.Error())
	}
	for _, e := range r.Emits {
		b.WriteString("; emits " + e.String())
	}
	return b.String()
}
