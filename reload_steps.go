package penstock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/source"
)

// prepare makes and starts all that is new, beside what serves. What it has done, undo takes back.
func (r *reload) prepare(ctx context.Context) error {
	if err := r.makeIntakes(); err != nil {
		return err
	}
	if err := r.reshape(append(slices.Clone(r.keep), r.drop...), r.before(), loop.Window{}, 0); err != nil {
		return err
	}
	for c, g := range r.plugins {
		c.actor.Tune(actor.Tuning{Timeout: max(c.plugin.Timeout, 0), Emits: union(c.emits, g.Emits), MaxEmit: r.maxEmit(c, &r.old.pipeline)})
	}
	var err error
	if r.started, err = start(ctx, r.fresh); err != nil {
		return err
	}
	for _, n := range r.fresh {
		if c := r.find(n.kind(), n.name); c != nil && n.waits {
			if err := n.actor.CanTakeOver(c.actor); err != nil {
				return err
			}
		}
	}
	for i := range r.swaps {
		if err := r.begin(ctx, &r.swaps[i]); err != nil {
			return err
		}
	}
	for _, c := range r.sinkSwaps {
		if err := c.to.Prepare(ctx, r.sinks[c].To); err != nil {
			return err
		}
		r.opened = append(r.opened, c)
	}
	for _, in := range r.add {
		p, ok := in.spec.From.(source.Preparer)
		if !ok {
			continue
		}
		if err := p.Prepare(ctx, in.env); err != nil {
			return fmt.Errorf("source %q: %w", in.spec.Name, err)
		}
		r.prepared = append(r.prepared, in)
	}
	return nil
}

// makeIntakes makes the intakes of sources that are not there yet.
func (r *reload) makeIntakes() error {
	guaranteed, limit, stay := r.next.shares()
	for _, in := range r.keep {
		if err := errors.Join(in.account.Resize(guaranteed, limit), in.stay.Resize(stay, r.next.Memory)); err != nil {
			return err
		}
	}
	for _, c := range r.order {
		c.loops = max(r.loops[c.name], c.loops)
	}
	for _, s := range r.next.Sources {
		if slices.ContainsFunc(r.keep, func(in *intake) bool { return in.spec.Name == s.Name }) {
			continue
		}
		in, err := r.rt.newIntake(s, &r.next, r.after())
		if err != nil {
			return err
		}
		r.add = append(r.add, in)
	}
	return nil
}

// reshape gives the loops of some sources the graph of w.
func (r *reload) reshape(intakes []*intake, w *wiring, window loop.Window, patience time.Duration) error {
	graphs := make([]*graph, len(intakes))
	for i, in := range intakes {
		g, err := w.reach(in.spec.Name, in.graph.Load())
		if err != nil {
			for j, other := range intakes[:i] {
				graphs[j].revoke(len(other.graph.Load().consumers), len(graphs[j].consumers))
			}
			return err
		}
		graphs[i] = g
	}
	for i, in := range intakes {
		own := window
		if own != (loop.Window{}) {
			own.Messages = in.spec.Limit
		}
		in.reshape(graphs[i], own, patience)
	}
	return nil
}

func (r *reload) maxEmit(c *consumer, p *Pipeline) int {
	_, most := p.emitShare(c.plugin)
	return most
}

// begin starts the next version of a plugin.
func (r *reload) begin(ctx context.Context, x *pluginSwap) (err error) {
	g := r.plugins[x.c]
	settings, err := g.settings()
	if err != nil {
		return err
	}
	if settings == nil {
		settings = []byte("null")
	}
	x.back = x.c.actor.Serving()
	x.handover, err = x.c.actor.Begin(ctx, Version{Name: g.Version, New: g.New, Drain: r.next.Drain, Config: settings})
	return err
}

// undo takes back what prepare has done. What serves has noticed nothing.
func (r *reload) undo(ctx context.Context) error {
	ctx, cancel := within(ctx, stopGrace)
	defer cancel()
	errs := []error{closeSources(ctx, r.prepared)}
	for _, c := range r.opened {
		if c.to.Serving() != r.sinks[c].To {
			errs = append(errs, r.sinks[c].To.Close(ctx))
		}
	}
	for i := range r.swaps {
		if x := &r.swaps[i]; x.handover != nil && !x.done {
			errs = append(errs, x.handover.Abort(ctx))
		}
	}
	for c := range r.plugins {
		c.actor.Tune(actor.Tuning{Timeout: max(c.plugin.Timeout, 0), Emits: c.emits, MaxEmit: r.maxEmit(c, &r.old.pipeline)})
	}
	for _, c := range r.fresh {
		c.gone = true
	}
	errs = append(errs, r.reshape(append(slices.Clone(r.keep), r.drop...), r.before(), loop.Window{}, r.next.Drain))
	for _, c := range r.fresh {
		if slices.Contains(r.started, c) {
			errs = append(errs, r.end(ctx, c))
		} else {
			errs = append(errs, c.closeAccount())
		}
	}
	for _, in := range r.add {
		in.graph.Load().revoke(0, len(in.graph.Load().consumers))
		errs = append(errs, in.account.Close(), in.stay.Close())
	}
	guaranteed, limit, stay := r.old.pipeline.shares()
	for _, in := range r.keep {
		errs = append(errs, in.account.Resize(guaranteed, limit), in.stay.Resize(stay, r.next.Memory))
	}
	return errors.Join(errs...)
}

// closeAccount closes the account for what a plugin emits. What it has emitted may still be with its readers: then the account stays open,
// which keeps nothing from others, since it is guaranteed nothing.
func (c *consumer) closeAccount() error {
	if c.emit == nil {
		return nil
	}
	err := c.emit.Close()
	if leak := (*arena.LeakError)(nil); errors.As(err, &leak) {
		return nil
	}
	return err
}

// exchange puts the next versions of plugins, and then of sinks, in the place of those that serve. If a plugin's fails, those before it
// are swapped back.
func (r *reload) exchange(ctx context.Context) error {
	for i := range r.swaps {
		x := &r.swaps[i]
		how, err := x.handover.Commit(ctx)
		x.done = true
		if err != nil {
			for _, y := range r.swaps[:i] {
				y.back.Drain = r.next.Drain
				if _, backErr := y.c.actor.Swap(context.WithoutCancel(ctx), y.back); backErr != nil {
					err = errors.Join(err, fmt.Errorf("and the way back failed: %w", backErr))
				}
			}
			return err
		}
		r.record.Swaps[x.c.name] = how
	}
	for _, c := range r.sinkSwaps {
		err := c.to.Swap(ctx, r.sinks[c].To, r.next.Drain)
		if err != nil && c.to.Serving() != r.sinks[c].To {
			r.stale = append(r.stale, c)
			err = fmt.Errorf("it goes on as it was: %w", errors.Join(err, r.sinks[c].To.Close(context.WithoutCancel(ctx))))
		}
		if err != nil {
			r.fail("%v", err)
		}
	}
	return nil
}

func (r *reload) fail(format string, args ...any) {
	r.record.Failed = append(r.record.Failed, fmt.Sprintf(format, args...))
}

// commit goes over to the next pipeline.
func (r *reload) commit(ctx context.Context) {
	rt := r.rt
	r.linger()
	for c, g := range r.plugins {
		r.apply(c, g)
	}
	for c, s := range r.sinks {
		c.sink, c.from, c.retry, c.loops = *s, s.From, s.Retry, r.loops[c.name]
		c.to.FlushEvery(s.Flush)
		if slices.Contains(r.stale, c) {
			c.sink.Identity = "" // the next reload tries again
		}
	}
	for _, s := range r.retuned {
		i := slices.IndexFunc(r.keep, func(in *intake) bool { return in.spec.Name == s.Name })
		r.keep[i].spec.Key, r.keep[i].spec.KeyName, r.keep[i].spec.Limit = s.Key, s.KeyName, s.Limit
		r.keep[i].key.Store(&s.Key)
	}
	for _, n := range r.fresh {
		if c := r.find(n.kind(), n.name); c != nil {
			rt.mu.Lock()
			c.heir, n.past = n, c.past
			rt.mu.Unlock()
		}
	}
	rt.top.Store(&topology{
		pipeline: r.next, consumers: r.order, leaving: slices.Concat(r.old.leaving, r.leaving), intakes: slices.Concat(r.keep, r.drop, r.add),
	})
	for _, in := range r.add {
		in.attach(0)
	}
	_, limit, _ := r.next.shares()
	if err := r.reshape(slices.Concat(r.keep, r.drop, r.add), r.after(), loop.Window{Bytes: limit}, 0); err != nil {
		r.fail("%v", err)
	}
	r.changeSources(ctx)
	r.retire(ctx)
}

// linger has those who stay go on reading what they have read, as long as somebody who leaves emits to it.
func (r *reload) linger() {
	leaving := slices.Concat(r.old.leaving, r.leaving)
	for _, c := range r.order {
		if slices.Contains(r.fresh, c) {
			continue
		}
		c.lingers = slices.DeleteFunc(union(c.lingers, c.from), func(stream string) bool {
			return r.next.makes(stream) ||
				!slices.ContainsFunc(leaving, func(other *consumer) bool { return slices.Contains(other.emits, stream) })
		})
	}
}

// apply makes g what the plugin c is.
func (r *reload) apply(c *consumer, g *Plugin) {
	c.plugin, c.from, c.emits, c.retry, c.mailbox, c.loops = *g, g.From, g.Emits, g.Retry, g.Mailbox, r.loops[c.name]
	limit, perCall := r.next.emitShare(*g)
	c.actor.Tune(actor.Tuning{Timeout: max(g.Timeout, 0), Emits: g.Emits, MaxEmit: perCall})
	if err := c.emit.Resize(0, limit); err != nil {
		r.fail("plugin %q: memory for what it emits: %v", c.name, err)
	}
}

// changeSources ends the sources that are not wanted any more, and runs those that are. One that takes the place of a source with a cursor
// waits for its end, so that the cursor has one owner at a time.
func (r *reload) changeSources(ctx context.Context) {
	rt := r.rt
	var ending sync.WaitGroup
	var mu sync.Mutex
	for _, in := range r.drop {
		in.cancel()
		ending.Go(func() {
			<-in.ended // it has Drain for that
			if n := in.driver.Counts().Returned; n > 0 {
				mu.Lock()
				r.fail("source %q: %d messages were not settled within %v and were given back", in.spec.Name, n, r.old.pipeline.Drain)
				mu.Unlock()
			}
			if err := in.spec.From.Close(context.WithoutCancel(ctx)); err != nil {
				mu.Lock()
				r.fail("source %q: close: %v", in.spec.Name, err)
				mu.Unlock()
			}
		})
	}
	waits := func(in *intake) bool {
		return slices.ContainsFunc(r.drop, func(old *intake) bool {
			_, cursor := old.spec.From.(source.Checkpointer)
			return cursor && old.spec.Name == in.spec.Name
		})
	}
	r.launch(func(in *intake) bool { return !waits(in) })
	ending.Wait()
	for _, in := range r.drop {
		rt.forget(in)
	}
	r.launch(waits)
}

func (r *reload) launch(which func(in *intake) bool) {
	r.rt.mu.Lock()
	defer r.rt.mu.Unlock()
	for _, in := range r.add {
		if which(in) {
			r.rt.launch(in)
		}
	}
}

// forget takes out a source that has ended, and keeps its counts.
func (rt *Runtime) forget(in *intake) {
	counts, g := in.driver.Counts(), in.graph.Load()
	rt.mu.Lock()
	rt.past.add(&counts, in.bad.Load())
	for id, c := range g.consumers {
		if id < len(counts.Consumers) {
			n := counts.Consumers[id]
			n.Waiting, n.Out, n.Oldest = 0, 0, 0
			c.last().past.add(&n)
		}
	}
	t := *rt.top.Load()
	t.intakes = slices.DeleteFunc(slices.Clone(t.intakes), func(other *intake) bool { return other == in })
	for _, other := range t.intakes {
		if other.spec.Name == in.spec.Name {
			other.past.accumulate(in.row(&counts))
		}
	}
	rt.top.Store(&t)
	rt.mu.Unlock()
	for id, c := range g.consumers {
		c.detach(in.driver.Lane(loop.ConsumerID(id)))
	}
	g.revoke(0, len(g.consumers))
	for _, account := range []*arena.Account{in.account, in.stay} {
		if account.Close() == nil {
			continue
		}
		if err := account.Resize(0, 0); err != nil { // others may have what it was guaranteed
			in.env.Logger.Error("memory of a source that was taken out stays reserved", "source", in.spec.Name, "error", err)
		}
		in.env.Logger.Warn("a handler still has messages of a source that was taken out: their memory is free when it returns", "source",
			in.spec.Name, "bytes", account.Used())
	}
}

// retire stops the plugins and sinks that are not wanted any more, once they have got what they are owed: whoever feeds goes first.
func (r *reload) retire(ctx context.Context) {
	left := slices.Concat(r.old.leaving, r.leaving)
	limit, cancel := context.WithTimeoutCause(ctx, r.next.Drain+stopGrace, errNotStopped)
	defer cancel()
	for len(left) > 0 {
		var going []*consumer
		for _, c := range left {
			fed := slices.ContainsFunc(left, func(other *consumer) bool {
				return other != c && slices.ContainsFunc(other.emits, func(s string) bool { return slices.Contains(c.from, s) && !r.next.makes(s) })
			})
			if !fed || c.gone {
				c.gone = true
				going = append(going, c)
			}
		}
		left = slices.DeleteFunc(left, func(c *consumer) bool { return slices.Contains(going, c) })
		if err := r.reshape(r.rt.top.Load().intakes, r.after(), loop.Window{}, r.next.Drain); err != nil {
			r.fail("%v", err)
		}
		for _, c := range going {
			if err := r.end(limit, c); err != nil {
				r.fail("%v", err)
			}
			if n := c.heir; n != nil && n.waits {
				r.unpause(n)
			}
		}
	}
}

// end waits until a consumer that is gone is owed nothing, hands its state on, and stops it. One that takes longer than it may goes on,
// and is looked at again by the next reload.
func (r *reload) end(ctx context.Context, c *consumer) error {
	for _, in := range r.rt.top.Load().intakes {
		for slices.Contains(in.graph.Load().consumers, c) {
			if _, ok := c.quits.Load(in); ok {
				break
			}
			select {
			case <-c.retired:
			case <-ctx.Done():
				return fmt.Errorf("%s %q is not done with what it is owed: %w", c.kind(), c.name, context.Cause(ctx))
			}
		}
	}
	var errs []error
	if n := c.heir; n != nil && n.waits {
		if err := n.actor.TakeOver(ctx, c.actor); err != nil {
			errs = append(errs, fmt.Errorf("plugin %q: its state was not carried over: %w", n.name, err))
		}
	}
	errs = append(errs, c.stop(ctx), c.closeAccount())
	rt := r.rt
	rt.mu.Lock()
	defer rt.mu.Unlock()
	t := *rt.top.Load()
	t.leaving = slices.DeleteFunc(slices.Clone(t.leaving), func(other *consumer) bool { return other == c })
	rt.top.Store(&t)
	for _, in := range t.intakes {
		g := *in.graph.Load()
		if id := slices.Index(g.consumers, c); id >= 0 {
			g.consumers = slices.Clone(g.consumers)
			g.consumers[id] = c.tombstone()
			in.graph.Store(&g)
			in.driver.Forget(loop.ConsumerID(id))
		}
	}
	return errors.Join(errs...)
}

// unpause lets a consumer go on that has waited for the one before it.
func (r *reload) unpause(n *consumer) {
	n.waits = false
	for _, in := range r.rt.top.Load().intakes {
		if id := slices.Index(in.graph.Load().consumers, n); id >= 0 {
			in.driver.Lane(loop.ConsumerID(id)).Post(loop.Unpause, &loop.Detail{})
		}
	}
}
