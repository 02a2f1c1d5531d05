// Package clock is the time that the runtime is given instead of reading it. Production uses [System]; tests use testing/synctest,
// which makes System's time virtual, or [Manual].
package clock

import (
	"context"
	"sync"
	"time"
)

// Clock tells the time and wakes. All methods may be called concurrently.
type Clock interface {
	// Now is the current time, with a monotonic reading where the clock has one.
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own after d, unless it is stopped before.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a call that has been asked for.
type Timer interface {
	// Stop prevents the call; it reports false if the call has been made or stopped already.
	Stop() bool
}

// Sleep waits for d on c. If ctx ends first it returns the cause at once.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	over := make(chan struct{})
	t := c.AfterFunc(d, func() { close(over) })
	defer t.Stop()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// System is the machine's clock.
type System struct{}

var _ Clock = System{}

// Now is time.Now.
func (System) Now() time.Time { return time.Now() }

// AfterFunc is time.AfterFunc.
func (System) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// Manual is a clock that stands still until it is advanced. The zero value stands at the zero time.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	timers []*manualTimer
}

var _ Clock = (*Manual)(nil)

// NewManual makes a clock that stands at now.
func NewManual(now time.Time) *Manual { return &Manual{now: now} }

// Now is where the clock stands.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// AfterFunc asks for f to be called by the Advance that passes d from now.
func (m *Manual) AfterFunc(d time.Duration, f func()) Timer {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &manualTimer{clock: m, at: m.now.Add(d), call: f}
	m.timers = append(m.timers, t)
	return t
}

// Next is the time of the earliest call asked for; ok is false if there is none.
func (m *Manual) Next() (at time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.earliest(); i >= 0 {
		return m.timers[i].at, true
	}
	return time.Time{}, false
}

// Advance moves the clock by d and makes, in order of time and in the caller's goroutine, the calls that have become due.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	end := m.now.Add(d)
	for {
		i := m.earliest()
		if i < 0 || m.timers[i].at.After(end) {
			break
		}
		t := m.timers[i]
		m.timers = append(m.timers[:i], m.timers[i+1:]...)
		if t.at.After(m.now) {
			m.now = t.at
		}
		m.mu.Unlock()
		t.call()
		m.mu.Lock()
	}
	m.now = end
	m.mu.Unlock()
}

func (m *Manual) earliest() int {
	first := -1
	for i, t := range m.timers {
		if first < 0 || t.at.Before(m.timers[first].at) {
			first = i
		}
	}
	return first
}

type manualTimer struct {
	clock *Manual
	at    time.Time
	call  func()
}

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	for i, other := range t.clock.timers {
		if other == t {
			t.clock.timers = append(t.clock.timers[:i], t.clock.timers[i+1:]...)
			return true
		}
	}
	return false
}
