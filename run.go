package penstock

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/source"
)

// Run runs the pipeline until every source has ended and all is settled, or until ctx ends. Then sources stop, what is under way goes on
// for as long as Pipeline.Drain, and what is left is given back to its source, to come again. Run reports what has become of all messages,
// and what failed: an error of a source, a plugin that does not start, a handler that does not return, memory that is still on loan (an
// *arena.LeakError: most often a Held that was never given a verdict). A context that ends is no error.
func (rt *Runtime) Run(ctx context.Context) (Summary, error) {
	rt.mu.Lock()
	ran := rt.started
	rt.started = true
	rt.mu.Unlock()
	if ran {
		return Summary{}, ErrRan
	}
	err := rt.run(ctx)
	s := rt.summary()
	rt.mu.Lock()
	rt.final = &s
	rt.mu.Unlock()
	if closeErr := rt.arena.Close(); closeErr != nil && !errors.Is(err, errNotStopped) { // else that is the reason
		err = errors.Join(err, fmt.Errorf("memory is still on loan, most often to a Held that was never given a verdict: %w", closeErr))
	}
	return s, err
}

func (rt *Runtime) run(ctx context.Context) error {
	rt.letters.start(ctx)
	started, err := rt.start(ctx)
	if err != nil {
		rt.settleEarly()
		return errors.Join(err, rt.stopConsumers(ctx, started), rt.letters.stop())
	}
	checkpoints, stopCheckpoints := context.WithCancel(ctx)
	var running, checkpointing sync.WaitGroup
	errs := make([]error, len(rt.intakes))
	for i, in := range rt.intakes {
		running.Go(func() { errs[i] = in.run(ctx) })
		checkpointing.Go(func() { in.checkpoint(checkpoints) })
	}
	running.Wait()
	stopCheckpoints()
	checkpointing.Wait()
	errs = append(errs, rt.trouble())
	errs = append(errs, rt.stopConsumers(ctx, started), rt.letters.stop())
	for _, in := range rt.intakes {
		if err := in.spec.From.Close(context.WithoutCancel(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("source %q: close: %w", in.spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

// settleEarly waits, no longer than Drain, for what plugins have emitted as they started: nobody is stopped with messages in hand, which
// would be delivered to it again and again.
func (rt *Runtime) settleEarly() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, in := range rt.intakes {
		in.drain(ended, rt.p.Drain)
	}
}

// trouble is why messages may have been left unsettled.
func (rt *Runtime) trouble() error {
	var errs []error
	for _, c := range rt.consumers {
		if c.actor != nil && c.actor.Stats().State == actor.Quarantined {
			errs = append(errs, c.actor.Check(context.Background()))
		}
	}
	rt.letters.mu.Lock()
	defer rt.letters.mu.Unlock()
	if err := rt.letters.err; err != nil {
		errs = append(errs, fmt.Errorf("dead letters could not be written, and their messages were not settled: %w", err))
	}
	return errors.Join(errs...)
}

// start starts sinks and plugins, the last ones first, so that whoever is fed is there before whoever feeds it. It returns those that
// have started.
func (rt *Runtime) start(ctx context.Context) (started []*consumer, err error) {
	for i := len(rt.consumers) - 1; i >= 0; i-- {
		c := rt.consumers[i]
		if c.actor != nil {
			err = c.actor.Start(ctx)
		} else {
			err = c.sink.Start(ctx)
		}
		if err != nil {
			return started, err
		}
		started = append(started, c)
	}
	return started, nil
}

// stopConsumers stops those that have started, whoever feeds first: what a plugin emits as it stops still arrives.
func (rt *Runtime) stopConsumers(ctx context.Context, started []*consumer) error {
	grace := stopGrace
	if ctx.Err() == nil {
		grace += rt.p.Drain // else that time has been given
	}
	limit, cancel := within(ctx, grace)
	defer func() { cancel() }()
	var errs []error
	for i := len(started) - 1; i >= 0; i-- {
		c := started[i]
		if limit.Err() != nil { // somebody has used up the time of all: the others are stopped and closed nevertheless
			cancel()
			limit, cancel = within(ctx, stopGrace)
		}
		if c.actor == nil {
			errs = append(errs, c.sink.Stop(limit))
			continue
		}
		errs = append(errs, c.actor.Stop(limit))
		if len(c.emits) > 0 {
			for _, in := range rt.intakes {
				in.drain(limit, rt.p.Drain)
			}
		}
	}
	return errors.Join(errs...)
}

// within is a context for stopping, which goes on when ctx has ended.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), d, errNotStopped)
}

const stopGrace = 5 * time.Second

var errNotStopped = errors.New("not stopped in time")

// run reads the source to its end, and waits until all is settled.
func (in *intake) run(ctx context.Context) error {
	err := in.read(ctx)
	in.stop()
	if errors.Is(err, source.ErrStopped) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("source %q: %w", in.spec.Name, err)
		in.env.Logger.Error("source failed; what it has delivered is finished", "source", in.spec.Name, "error", err)
	}
	in.drain(ctx, in.rt.p.Drain)
	return err
}

// read runs the source. A panic of Run is its error; what it does in goroutines of its own cannot be caught.
func (in *intake) read(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("it panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return in.spec.From.Run(ctx, in)
}

// drain waits until all is settled; once ctx has ended, no longer than limit.
func (in *intake) drain(ctx context.Context, limit time.Duration) {
	select {
	case <-in.drained: // of an earlier time
	default:
	}
	in.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{}})
	select {
	case <-in.drained:
		return
	case <-ctx.Done():
	}
	if n := in.driver.Counts(); n.Accepted > n.Settled {
		in.env.Logger.Info("stopping: what is under way is finished", "source", in.spec.Name, "messages", n.Accepted-n.Settled,
			"for at most", limit)
	}
	in.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{After: max(loop.TicksOf(limit), 1)}})
	<-in.drained
}

// checkpoint has the source write its cursor down about once a second, while things settle.
func (in *intake) checkpoint(ctx context.Context) {
	c, ok := in.spec.From.(source.Checkpointer)
	if !ok {
		return
	}
	due := make(chan struct{}, 1)
	for seen := uint64(0); ; {
		t := in.env.Clock.AfterFunc(time.Second, func() { due <- struct{}{} })
		select {
		case <-due:
		case <-ctx.Done():
			t.Stop()
			return
		}
		now := in.settled.Load()
		if now == seen {
			continue
		}
		seen = now
		if err := c.Checkpoint(ctx); err != nil {
			in.env.Logger.Error("cursor not written; more will come again after a crash", "source", in.spec.Name, "error", err)
		}
	}
}
