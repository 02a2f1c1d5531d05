package sim

import (
	"sync"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
)

// simClock is a clock that the schedule moves. It can be late: then its timers fire after their time, as on a machine that was paused.
type simClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*simTimer
}

var _ clock.Clock = (*simClock)(nil)

type simTimer struct {
	c    *simClock
	at   time.Time
	call func()
}

func newClock() *simClock { return &simClock{now: time.Unix(1_000_000_000, 0)} }

// Now is where the clock stands.
func (c *simClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc asks for f to be called by the advance that passes d from now.
func (c *simClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &simTimer{c: c, at: c.now.Add(d), call: f}
	c.timers = append(c.timers, t)
	return t
}

// Stop takes the timer off the clock.
func (t *simTimer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	for i, other := range t.c.timers {
		if other == t {
			t.c.timers = append(t.c.timers[:i], t.c.timers[i+1:]...)
			return true
		}
	}
	return false
}

// next is the time until the earliest timer.
func (c *simClock) next() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.earliest(); i >= 0 {
		return max(c.timers[i].at.Sub(c.now), 0), true
	}
	return 0, false
}

func (c *simClock) earliest() int {
	first := -1
	for i, t := range c.timers {
		if first < 0 || t.at.Before(c.timers[first].at) {
			first = i
		}
	}
	return first
}

// advance moves the clock by d and fires what is due: at its time, or, if the clock is late, all of it at the end.
func (c *simClock) advance(d time.Duration, late bool) {
	c.mu.Lock()
	end := c.now.Add(d)
	if late {
		c.now = end
	}
	for {
		i := c.earliest()
		if i < 0 || c.timers[i].at.After(end) {
			break
		}
		t := c.timers[i]
		c.timers = append(c.timers[:i], c.timers[i+1:]...)
		if t.at.After(c.now) {
			c.now = t.at
		}
		c.mu.Unlock()
		t.call()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}
