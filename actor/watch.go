package actor

import (
	"fmt"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/plugin"
)

// The watch looks at every worker a few times within the timeout. No call pays for it with a clock read: workers only say how far they
// are. A worker that is still in the delivery of the look before is asked to say so exactly, message by message; one that is in the same
// message for the whole timeout is overdue.

// looks is how often the watch looks within a timeout.
const looks = 4

func (a *Actor) watchLater() {
	a.mu.Lock()
	defer a.mu.Unlock()
	timeout := a.tune.Load().Timeout
	if a.watch = nil; timeout <= 0 || a.ctx.Err() != nil {
		return
	}
	a.watch = a.cfg.Clock.AfterFunc(max(timeout/looks, time.Millisecond), func() {
		a.look(a.cfg.Clock.Now())
		a.watchLater()
	})
}

func (a *Actor) look(now time.Time) {
	for _, w := range a.workers {
		w.seen.look(now)
	}
}

// look compares where the worker is with where it was.
func (s *watched) look(now time.Time) {
	w := s.w
	p := w.progress.Load()
	busy := p&1 != 0
	if !busy || w.waits.Load() {
		s.progress, s.named = p, false
		s.since = now
		return
	}
	if p>>20 == s.progress>>20 {
		w.attention.Or(attendWatch)
	}
	if p != s.progress {
		s.progress, s.since, s.named = p, now, false
		return
	}
	call := w.callNow.Load()
	if w.progress.Load() != p { // it went on meanwhile: the context could be that of another call
		return
	}
	timeout := w.a.tune.Load().Timeout
	if took := now.Sub(s.since); timeout > 0 && took >= timeout && !s.named {
		s.named = true
		w.a.overdue.Add(1)
		call.cancel(fmt.Errorf("plugin %q: %w (%v)", w.a.cfg.Name, plugin.ErrOverdue, timeout))
		w.attention.Or(attendUsed)
		w.a.cfg.Logger.Warn("handler overdue: its context was cancelled; the message stays owed to it until it returns",
			"plugin", w.a.cfg.Name, "message", p&(1<<20-1)>>1, "of delivery", p>>20, "for at least", took)
	}
}

// page is a private copy of the message in hand: strict mode.
type page struct {
	copy  *arena.StrictPage
	frame [1]arena.Frame
	buf   []byte
}

// seal shows the handler a copy of message i that ends where memory ends, and that is gone when Handle returns.
func (w *worker) seal(i int) {
	if w.strict == nil {
		w.strict = &page{}
	}
	b, p := w.d.Batch, w.strict
	j := w.index(i)
	k, h, payload := b.Key(j), b.Headers(j), b.Payload(j)
	p.buf = append(append(append(p.buf[:0], k...), h...), payload...)
	p.frame[0] = arena.Frame{
		KeyLen: uint32(len(k)), HdrOff: uint32(len(k)), HdrLen: uint32(len(h)), Off: uint32(len(k) + len(h)), Len: uint32(len(payload)),
	}
	copied, err := w.a.cfg.Arena.StrictCopy(p.buf)
	if err != nil {
		panic(fmt.Errorf("strict mode: %w", err))
	}
	p.copy = copied
	w.msg.Show(key, copied.Bytes(), p.frame[:])
}

func (w *worker) unseal() {
	if w.strict != nil && w.strict.copy != nil {
		w.strict.copy.Revoke()
		w.strict.copy = nil
		w.msg.Open(key, w.d.Batch, w.index(w.pos))
	}
}
