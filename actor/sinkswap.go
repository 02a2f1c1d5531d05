package actor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/sink"
)

// sinkSwap is the exchange of a sink that is under way.
type sinkSwap struct {
	pause uint64
	quiet chan struct{} // one token from each lane that is quiet
}

// errReplaced is why what a replaced sink had in hand comes again, to the one that took its place.
var errReplaced = errors.New("the sink was replaced")

// Attach tells the sink of a lane by which it is fed. It does not overlap with a swap.
func (s *Sink) Attach(l *loop.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes = append(s.lanes, l)
}

// Detach tells the sink that nothing comes by a lane any more. It does not overlap with a swap.
func (s *Sink) Detach(l *loop.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes = slices.DeleteFunc(s.lanes, func(m *loop.Lane) bool { return m == l })
}

// Quiet hears that, on one lane, nothing of the sink is out in the pause of that number.
func (s *Sink) Quiet(pause uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.swap; x != nil && x.pause == pause {
		select {
		case x.quiet <- struct{}{}:
		default:
		}
	}
}

// Serving is the sink that is written to.
func (s *Sink) Serving() sink.Sink {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serves
}

// Prepare opens a sink that is to take the place of the one that serves; see Swap.
func (s *Sink) Prepare(ctx context.Context, next sink.Sink) error {
	env := s.cfg.Env
	env.Takeover = true
	return s.opened(ctx, next, env)
}

// Swap puts next, which has been prepared, in the place of the sink that serves. Delivery pauses; the old one finishes what it has in
// hand, for as long as drain, is flushed and closed; what it did not finish goes to next. If ctx ends before the old one is closed, that
// one goes on. An error of the old one's Close is returned, but next serves.
func (s *Sink) Swap(ctx context.Context, next sink.Sink, drain time.Duration) error {
	s.mu.Lock()
	if s.swap != nil {
		s.mu.Unlock()
		return fmt.Errorf("sink %q: %w", s.cfg.Name, ErrSwapping)
	}
	s.pauses++
	x := &sinkSwap{pause: s.pauses, quiet: make(chan struct{}, len(s.lanes))}
	s.swap = x
	lanes, interrupt := slices.Clone(s.lanes), s.cancelCalls // of calls of the one that serves, however late the interruption comes
	s.mu.Unlock()
	defer func() {
		for _, l := range lanes {
			l.Post(loop.Unpause, &loop.Detail{On: s.Serving() == next})
		}
		s.mu.Lock()
		s.swap = nil
		s.mu.Unlock()
	}()
	for _, l := range lanes {
		l.Post(loop.Pause, &loop.Detail{Pause: x.pause})
	}
	patience, cancel := context.WithTimeoutCause(ctx, drain, errReplaced)
	defer cancel()
	interrupted := context.AfterFunc(patience, func() { interrupt(errReplaced) })
	x.wait(patience, len(lanes))
	if ctx.Err() != nil {
		if !interrupted() {
			s.renewCalls()
		}
		return fmt.Errorf("sink %q: waiting for what it has in hand: %w", s.cfg.Name, context.Cause(ctx))
	}
	closed := make(chan error, 1)
	exchange := func() {
		interrupted()
		s.flush(patience)
		old := s.serves
		err := guard(func() error { return old.Close(ctx) })
		s.failOpen(errReplaced)
		s.mu.Lock()
		s.serves = next
		s.mu.Unlock()
		s.renewCalls()
		closed <- err
	}
	select {
	case s.control <- exchange:
	case <-s.ctx.Done():
		return fmt.Errorf("sink %q: %w", s.cfg.Name, ErrStopped)
	case <-ctx.Done():
		s.renewCalls()
		return fmt.Errorf("sink %q: Write or Flush has not returned: %w", s.cfg.Name, context.Cause(ctx))
	}
	interrupted()
	if err := <-closed; err != nil {
		return fmt.Errorf("sink %q: close of the one that was replaced: %w", s.cfg.Name, err)
	}
	return nil
}

// wait takes a token of each lane, as long as ctx lasts.
func (x *sinkSwap) wait(ctx context.Context, lanes int) {
	for range lanes {
		select {
		case <-x.quiet:
		case <-ctx.Done():
			return
		}
	}
}

// callContext is the context of calls of the sink.
func (s *Sink) callContext() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// renewCalls gives the calls to come a context of their own.
func (s *Sink) renewCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancelCalls != nil {
		s.cancelCalls(errReplaced)
	}
	s.calls, s.cancelCalls = context.WithCancelCause(s.ctx)
}
