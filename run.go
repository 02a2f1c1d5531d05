package penstock

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/source"
)

// Run runs the pipeline until every source has ended and all is settled (unless Pipeline.Linger), or until ctx ends. Then sources stop,
// what is under way goes on for as long as Pipeline.Drain, and what is left is given back to its source, to come again. Run reports what
// has become of all messages, and what failed: an error of a source, a plugin that does not start, a handler that does not return, memory
// that is still on loan (an *arena.LeakError: most often a Held that was never given a verdict). A context that ends is no error.
func (rt *Runtime) Run(ctx context.Context) (Summary, error) {
	rt.mu.Lock()
	ran := rt.started
	rt.started = true
	rt.mu.Unlock()
	if ran {
		return Summary{}, ErrRan
	}
	err := rt.run(ctx)
	rt.mu.Lock()
	s := rt.summary()
	rt.final = &s
	rt.mu.Unlock()
	if closeErr := rt.arena.Close(); closeErr != nil && !errors.Is(err, errNotStopped) { // else that is the reason
		err = errors.Join(err, fmt.Errorf("memory is still on loan, most often to a Held that was never given a verdict: %w", closeErr))
	}
	return s, err
}

// Started is closed when plugins and sinks have started, the ports of sources are open, and sources run. If one of them fails before
// that, Run returns and it stays open.
func (rt *Runtime) Started() <-chan struct{} { return rt.serving }

func (rt *Runtime) run(ctx context.Context) error {
	rt.letters.start(ctx)
	t := rt.top.Load()
	if err := prepareSources(ctx, t.intakes); err != nil {
		return errors.Join(err, rt.letters.stop())
	}
	started, err := start(ctx, t.consumers)
	if err != nil {
		rt.settleEarly()
		return errors.Join(err, rt.stopConsumers(ctx, started), closeSources(ctx, prepared(t.intakes)), rt.letters.stop())
	}
	rt.mu.Lock()
	rt.ctx = ctx
	for _, in := range t.intakes {
		rt.launch(in)
	}
	rt.mu.Unlock()
	close(rt.serving)
	rt.wait()
	rt.changing.Lock() // for good: no reload, no swap
	t = rt.top.Load()
	failed := errors.Join(errors.Join(rt.errs...), rt.trouble())
	stopped := rt.stopConsumers(ctx, slices.Concat(t.leaving, t.consumers))
	return errors.Join(failed, stopped, rt.letters.stop(), closeSources(ctx, t.intakes))
}

// prepareSources prepares those that want it. If one fails, those before it are closed.
func prepareSources(ctx context.Context, intakes []*intake) error {
	for i, in := range intakes {
		p, ok := in.spec.From.(source.Preparer)
		if !ok {
			continue
		}
		if err := p.Prepare(ctx, in.env); err != nil {
			return errors.Join(fmt.Errorf("source %q: %w", in.spec.Name, err), closeSources(ctx, prepared(intakes[:i])))
		}
	}
	return nil
}

// prepared are those that have to be closed though they have not run.
func prepared(intakes []*intake) (out []*intake) {
	for _, in := range intakes {
		if _, ok := in.spec.From.(source.Preparer); ok {
			out = append(out, in)
		}
	}
	return out
}

func closeSources(ctx context.Context, intakes []*intake) error {
	var errs []error
	for _, in := range intakes {
		if err := in.spec.From.Close(context.WithoutCancel(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("source %q: close: %w", in.spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

// launch runs a source in a goroutine of its own. rt.mu is held.
func (rt *Runtime) launch(in *intake) {
	ctx, cancel := context.WithCancel(rt.ctx)
	in.cancel = cancel
	rt.running++
	go func() {
		defer cancel()
		var beating sync.WaitGroup
		beat, stop := context.WithCancel(ctx)
		beating.Go(func() { in.beat(beat) })
		err := in.run(ctx)
		stop()
		beating.Wait()
		rt.mu.Lock()
		defer rt.mu.Unlock()
		if err != nil {
			in.failure.Store(&err)
			rt.errs = append(rt.errs, err)
		}
		rt.running--
		close(in.ended)
		rt.tellChanged()
	}()
}

func (rt *Runtime) tellChanged() {
	select {
	case rt.changed <- struct{}{}:
	default:
	}
}

// wait returns when no source runs, and no reload that could bring one.
func (rt *Runtime) wait() {
	for {
		rt.mu.Lock()
		over := rt.running == 0 && !rt.reloading && (!rt.p.Linger || rt.ctx.Err() != nil)
		if over {
			rt.ctx = nil // no more reloads
		}
		ctx := rt.ctx
		rt.mu.Unlock()
		if over {
			return
		}
		var done <-chan struct{}
		if ctx.Err() == nil {
			done = ctx.Done()
		}
		select {
		case <-rt.changed:
		case <-done:
		}
	}
}

// settleEarly waits, no longer than Drain, for what plugins have emitted as they started: nobody is stopped with messages in hand, which
// would be delivered to it again and again.
func (rt *Runtime) settleEarly() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, in := range rt.top.Load().intakes {
		in.drain(ended, rt.p.Drain)
	}
}

// trouble is why messages may have been left unsettled.
func (rt *Runtime) trouble() error {
	var errs []error
	for _, c := range rt.top.Load().consumers {
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
// have started, in the order in which they stop.
func start(ctx context.Context, consumers []*consumer) (started []*consumer, err error) {
	for i := len(consumers) - 1; i >= 0; i-- {
		if c := consumers[i]; c.actor != nil {
			err = c.actor.Start(ctx)
		} else {
			err = c.to.Start(ctx)
		}
		if err != nil {
			return consumers[i+1:], err
		}
	}
	return consumers, nil
}

// stopConsumers stops them, whoever feeds first: what a plugin emits as it stops still arrives.
func (rt *Runtime) stopConsumers(ctx context.Context, consumers []*consumer) error {
	drain := rt.top.Load().pipeline.Drain
	grace := stopGrace
	if ctx.Err() == nil {
		grace += drain // else that time has been given
	}
	limit, cancel := within(ctx, grace)
	defer func() { cancel() }()
	var errs []error
	for _, c := range consumers {
		if limit.Err() != nil { // somebody has used up the time of all: the others are stopped and closed nevertheless
			cancel()
			limit, cancel = within(ctx, stopGrace)
		}
		errs = append(errs, c.stop(limit))
		if len(c.emits) > 0 {
			for _, in := range rt.top.Load().intakes {
				in.drain(limit, drain)
			}
		}
	}
	return errors.Join(errs...)
}

func (c *consumer) stop(ctx context.Context) error {
	if c.actor != nil {
		return c.actor.Stop(ctx)
	}
	return c.to.Stop(ctx)
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
	in.drain(ctx, in.rt.top.Load().pipeline.Drain)
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
		var with []string
		for id, c := range in.graph.Load().consumers {
			if id < len(n.Consumers) && n.Consumers[id].Waiting+n.Consumers[id].Out > 0 {
				with = append(with, c.name)
			}
		}
		in.env.Logger.Info("stopping: what is under way is finished", "source", in.spec.Name, "messages", n.Accepted-n.Settled,
			"with", with, "for at most", limit)
	}
	in.driver.Post(loop.Event{Kind: loop.Drain, Detail: &loop.Detail{After: max(loop.TicksOf(limit), 1)}})
	late := in.env.Clock.AfterFunc(limit-min(limit/4, yieldTime), in.rt.yield)
	defer late.Stop()
	<-in.drained
}

// yieldTime is how long before the end of draining plugins have to give back what they have not handled: a batch settles as far as it is
// handled only when it is back.
const yieldTime = time.Second

// yield has plugins give back what they have not handled, if it is the whole pipeline that ends.
func (rt *Runtime) yield() {
	rt.mu.Lock()
	ending := rt.ctx != nil && rt.ctx.Err() != nil
	rt.mu.Unlock()
	if !ending {
		return
	}
	t := rt.top.Load()
	for _, c := range slices.Concat(t.leaving, t.consumers) {
		if c.actor != nil {
			c.actor.Yield()
		}
	}
}

// beat, about once a second, remembers the time, and has the source write its cursor down if things have settled.
func (in *intake) beat(ctx context.Context) {
	c, _ := in.spec.From.(source.Checkpointer)
	due := make(chan struct{}, 1)
	for seen := uint64(0); ; {
		t := in.env.Clock.AfterFunc(time.Second, func() { due <- struct{}{} })
		select {
		case <-due:
		case <-ctx.Done():
			t.Stop()
			return
		}
		in.driver.Post(loop.Event{Kind: loop.Mark, Detail: &loop.Detail{}})
		now := in.settled.Load()
		if now == seen || c == nil {
			continue
		}
		seen = now
		if err := c.Checkpoint(ctx); err != nil {
			in.env.Logger.Error("cursor not written; more will come again after a crash", "source", in.spec.Name, "error", err)
		}
	}
}
