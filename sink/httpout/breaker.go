package httpout

import (
	"sync"
	"time"
)

// breaker keeps requests from an endpoint that keeps failing.
//
//	closed ──failures in a row──> open ──open_for──> half-open ──success──> closed
//	                               ^──────────failure─────┘
type breaker struct {
	limit   int // failures in a row that open it; 0: never
	openFor time.Duration

	mu    sync.Mutex
	row   int
	open  bool
	until time.Time // while open: when a request may try
	trial bool      // one does
}

// trialWait is after how long a request looks again that comes while another one tries.
const trialWait = time.Second

// allow says whether a request may be sent; if not, how long to wait.
func (b *breaker) allow(now time.Time) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return 0, true
	}
	if wait := b.until.Sub(now); wait > 0 {
		return wait, false
	}
	if b.trial {
		return min(trialWait, b.openFor), false
	}
	b.trial = true
	return 0, true
}

// success hears that the endpoint has answered as one that works; it reports whether that closed the breaker.
func (b *breaker) success() (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed = b.open
	b.row, b.open, b.trial = 0, false, false
	return closed
}

// failure hears of a failed request, after which the endpoint wants to be left alone for atLeast; it reports whether the breaker was open
// before, and whether it is open now.
func (b *breaker) failure(now time.Time, atLeast time.Duration) (was, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was = b.open
	b.row++
	if b.limit > 0 && (b.trial || !b.open && b.row >= b.limit) {
		b.open, b.trial, b.until = true, false, now.Add(max(b.openFor, atLeast))
	}
	return was, b.open
}

// abandon hears that a request was given up for a reason that says nothing of the endpoint.
func (b *breaker) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trial = false
}

// state is "closed", "open" or "half-open".
func (b *breaker) state(now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return "closed"
	case b.trial || !now.Before(b.until):
		return "half-open"
	default:
		return "open"
	}
}
