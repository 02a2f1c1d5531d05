package httpin

import (
	"context"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
)

// phase is what a request that is being read waits for.
type phase uint32

const (
	working phase = iota // nothing
	waiting              // the window, or memory
	reading              // its client
)

// leanBytes is what a body must bring, within the time that a request waits for room, while memory is short.
const leanBytes = 4 << 10

// watch ends the waiting of a request. Nothing on the way of a message reads a clock: a timer looks, now and then, whether there was a step.
type watch struct {
	clock   clock.Clock
	every   time.Duration // between two looks
	room    int           // looks without a step after which a request that waits for room is refused
	silence int           // looks without a byte after which a body is too slow
	account *arena.Account
	control *http.ResponseController
	cancel  context.CancelCauseFunc // ends waiting

	phase atomic.Uint32
	steps atomic.Uint64 // changes of phase
	bytes atomic.Uint64 // of the body

	mu     sync.Mutex
	over   bool
	reason error // why the body is no longer read
	timer  clock.Timer
	waited int // looks in a row that found it waiting at the same step
	silent int // looks in a row that found it reading without a byte more
	lean   int // looks since mark was taken
	step   uint64
	byte   uint64
	mark   uint64
}

// configure says how long a request may wait for room, and how long a body may bring nothing.
func (w *watch) configure(c clock.Clock, room, body time.Duration) {
	w.clock = c
	w.every = max(min(room, body)/4, 1)
	times := func(d time.Duration) int { return int(min((d+w.every-1)/w.every, math.MaxInt32)) }
	w.room, w.silence = times(room), times(body)
}

// start begins to look.
func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over && w.reason == nil {
		w.timer = w.clock.AfterFunc(w.every, w.look)
	}
}

// enter says what the request waits for from now on.
func (w *watch) enter(p phase) {
	w.phase.Store(uint32(p))
	w.steps.Add(1)
}

// end stops looking. The response is the handler's alone from now on.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// stop ends the reading of the body and all waiting, for reason, if the request is still being read.
func (w *watch) stop(reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halt(reason)
}

// halt is stop. The caller holds w.mu.
func (w *watch) halt(reason error) {
	if w.over || w.reason != nil {
		return
	}
	w.reason = reason
	w.cancel(reason)
	_ = w.control.SetReadDeadline(time.Unix(1, 0)) // where it cannot be set, the read ends with the body
}

// why is the reason why the body is no longer read, or nil.
func (w *watch) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.reason != nil {
		return
	}
	p, step, bytes := phase(w.phase.Load()), w.steps.Load(), w.bytes.Load()
	if p == waiting && step == w.step {
		w.waited++
	} else {
		w.waited = 0
	}
	if p == reading && bytes == w.byte {
		w.silent++
	} else {
		w.silent = 0
	}
	w.step, w.byte = step, bytes
	w.lean++
	if p != reading {
		w.lean, w.mark = 0, bytes
	}
	switch {
	case w.waited >= w.room:
		w.halt(errFull)
		return
	case w.silent >= w.silence:
		w.halt(errSlow)
		return
	case w.lean >= w.room:
		if bytes-w.mark < leanBytes && !w.account.Room() { // its slab is wanted by others
			w.halt(errSlow)
			return
		}
		w.lean, w.mark = 0, bytes
	}
	w.timer = w.clock.AfterFunc(w.every, w.look)
}
