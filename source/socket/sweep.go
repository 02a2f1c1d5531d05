package socket

import (
	"sync"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
)

// sweeper looks at all connections from time to time, so that none of them needs a timer or reads the clock.
type sweeper struct {
	s      *Source
	period time.Duration

	mu      sync.Mutex
	timer   clock.Timer
	stopped bool
	stuck   []*conn // of one sweep
}

// sweepPeriod is how often: a quarter of what is to be measured.
func (s *Source) sweepPeriod() time.Duration {
	period := time.Second
	if t := s.cfg.IdleTimeout; t > 0 {
		period = min(period, max(t/4, time.Millisecond))
	}
	return period
}

// sweepEvery starts a sweeper.
func (s *Source) sweepEvery(period time.Duration) *sweeper {
	w := &sweeper{s: s, period: period}
	w.mu.Lock()
	w.timer = s.env.Clock.AfterFunc(period, w.sweep)
	w.mu.Unlock()
	return w
}

func (w *sweeper) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

// sweep ends connections that have been silent for too long. And where nothing moves any more because unfinished messages use up the
// memory, all that was accepted being settled, it gives up those of the connections that have long sent nothing, or else one.
func (w *sweeper) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.stuck = w.stuck[:0]
	w.s.each(w.look)
	if len(w.stuck) > 0 && w.s.unsettled.Load() <= 0 {
		given := false
		w.s.each(func(c *conn) {
			if c.phase.Load() == waiting && c.held.Load() > 0 && w.still(c, patience) {
				c.expire(ErrMemory)
				given = true
			}
		})
		if !given {
			w.stuck[0].expire(ErrMemory)
		}
	}
	clear(w.stuck)
	w.timer = w.s.env.Clock.AfterFunc(w.period, w.sweep)
}

// look counts how long nothing has moved on one connection.
func (w *sweeper) look(c *conn) {
	if c.moved.Swap(false) {
		c.quiet = 0
		return
	}
	c.quiet++
	switch c.phase.Load() {
	case waiting:
		if t := w.s.cfg.IdleTimeout; t > 0 && w.still(c, t) && c.allSettled() {
			c.expire(ErrIdle)
		}
	case filling:
		if w.still(c, patience) {
			w.stuck = append(w.stuck, c)
		}
	}
}

// still says whether nothing has moved for at least d.
func (w *sweeper) still(c *conn, d time.Duration) bool { return time.Duration(c.quiet)*w.period >= d }
