package pipetest

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
)

// virtual is a clock that stands still until it is moved. It tells what somebody waits for from what the runtime does for ever in the
// background, so that time can be moved over hours at once.
type virtual struct {
	mu     sync.Mutex
	now    time.Time
	timers []*timer // in the order in which they were asked for
}

var _ clock.Clock = (*virtual)(nil)

type timer struct {
	c       *virtual
	at      time.Time
	call    func()
	routine routine
}

// routine is what a timer is for.
type routine uint8

const (
	wanting  routine = iota // somebody waits for it
	beating                 // a source's beat, once a second: it only tells the loop how time passes
	watching                // a plugin's watch: it matters while the plugin has a message in hand
)

// routines are the functions whose timers come again for ever.
func routines() map[string]routine {
	return map[string]routine{"penstock.(*intake).beat": beating, "/actor.(*Actor).watchLater": watching}
}

// Now is where the clock stands.
func (c *virtual) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc asks for f to be called by the move that passes d from now.
func (c *virtual) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := &timer{c: c, call: f, routine: purpose()}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.at = c.now.Add(max(d, 0))
	c.timers = append(c.timers, t)
	return t
}

// purpose is what the timer is for that the caller's caller asks for.
func purpose() routine {
	var pc [1]uintptr
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc[:])])
	frame, _ := frames.Next()
	for name, r := range routines() {
		if strings.HasSuffix(frame.Function, name) {
			return r
		}
	}
	return wanting
}

// Stop takes the timer off the clock.
func (t *timer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	i := slices.Index(t.c.timers, t)
	if i >= 0 {
		t.c.timers = slices.Delete(t.c.timers, i, i+1)
	}
	return i >= 0
}

// next is the time of the earliest timer for something that counts; ok is false if there is none.
func (c *virtual) next(counts func(routine) bool) (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.timers {
		if counts(t.routine) && (!ok || t.at.Before(at)) {
			at, ok = t.at, true
		}
	}
	return at, ok
}

// moveTo moves the clock, and makes, in order of time and in the caller's goroutine, the calls that somebody waits for and that have become
// due. What goes on in the background is called once at the end, however often it has become due.
func (c *virtual) moveTo(end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		first := -1
		for i, t := range c.timers {
			if t.routine == wanting && !t.at.After(end) && (first < 0 || t.at.Before(c.timers[first].at)) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		c.now = later(c.now, c.timers[first].at)
		c.fire(first)
	}
	c.now = later(c.now, end)
	var due []*timer
	for _, t := range c.timers {
		if !t.at.After(c.now) {
			due = append(due, t)
		}
	}
	for _, t := range due {
		if i := slices.Index(c.timers, t); i >= 0 { // nobody has stopped it meanwhile
			c.fire(i)
		}
	}
}

// fire makes a call. c.mu is held, but not during the call.
func (c *virtual) fire(i int) {
	t := c.timers[i]
	c.timers = slices.Delete(c.timers, i, i+1)
	c.mu.Unlock()
	defer c.mu.Lock()
	t.call()
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// pluginClock is the clock as plugins get it. It counts what they wait for.
type pluginClock struct {
	*virtual
	pending *atomic.Int64
}

// AfterFunc asks for f to be called.
func (c pluginClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	c.pending.Add(1)
	return pluginTimer{c.virtual.AfterFunc(d, func() {
		c.pending.Add(-1)
		f()
	}), c.pending}
}

type pluginTimer struct {
	clock.Timer
	pending *atomic.Int64
}

// Stop takes the timer off the clock.
func (t pluginTimer) Stop() bool {
	stopped := t.Timer.Stop()
	if stopped {
		t.pending.Add(-1)
	}
	return stopped
}
