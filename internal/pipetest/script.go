package pipetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/yamltree"
)

// script is one test at work.
type script struct {
	*world
	rt       *penstock.Runtime
	quiet    *quiet
	limit    time.Time // real
	leave    context.CancelFunc
	done     chan struct{} // closed when Run has returned; then ran and err are set
	ran      penstock.Summary
	err      error
	summary  penstock.Summary     // that counts
	seen     map[uint64]time.Time // since when goroutines have been seen waiting for what may come in real time
	stopped  bool                 // the clock stopped last for what goes on in the background only
	failures []Failure
}

// patience is how long, in real time, plugin code that waits for something else than its clock is given before the clock goes on.
const patience = 250 * time.Millisecond

// errStuck says that a test has used up its real time.
var errStuck = errors.New("the real time of the test is over")

// run runs one test.
func (s *suite) run(ctx context.Context, t *test, o Options) []Failure {
	w := newWorld(s, t)
	w.logger = o.Logger
	x := &script{
		world: w, quiet: newQuiet(), limit: time.Now().Add(o.Limit), done: make(chan struct{}), seen: map[uint64]time.Time{},
	}
	p, err := w.build()
	if err == nil {
		x.rt, err = penstock.New(p)
	}
	if err != nil {
		x.failed(t.at, "the pipeline cannot be made: %v", err)
		return x.failures
	}
	ctx, x.leave = context.WithCancel(ctx)
	defer x.leave()
	go func() {
		defer close(x.done)
		x.ran, x.err = x.rt.Run(ctx)
	}()
	err = x.play(ctx)
	if err == nil {
		err = x.finish(ctx)
	}
	if err != nil {
		x.summary = x.rt.Stats()
		x.failed(t.at, "%v", err)
		x.abandon()
	}
	x.verify()
	return x.failures
}

func (x *script) failed(at yamltree.Pos, format string, args ...any) {
	x.failures = append(x.failures, Failure{Line: at.Line, Text: fmt.Sprintf(format, args...)})
}

// ended says whether Run has returned.
func (x *script) ended() bool {
	select {
	case <-x.done:
		return true
	default:
		return false
	}
}

// play gives the input, and lets time go on until all of it is settled.
func (x *script) play(ctx context.Context) error {
	if err := x.settleIn(ctx); err != nil {
		return err
	}
	for _, s := range x.test.steps {
		if s.wait > 0 {
			if err := x.pass(ctx, x.clock.Now().Add(s.wait), nil); err != nil {
				return err
			}
			continue
		}
		x.feeds[s.source].push(s)
		if err := x.rest(ctx); err != nil {
			return err
		}
	}
	last := x.clock.Now()
	if err := x.pass(ctx, last.Add(x.test.within), x.allSettled); err != nil {
		return err
	}
	if !x.ended() && !x.allSettled() {
		x.unsettled(x.clock.Now().Sub(last))
	}
	return nil
}

// settleIn waits until the pipeline has started. What waits for the world outside by then does so all the time, and is not waited for.
func (x *script) settleIn(ctx context.Context) error {
	for !x.started() && !x.ended() {
		l := x.look()
		at, ok := x.clock.next(func(r routine) bool { return r == wanting })
		if ok && l.busy() == "" && !x.started() { // a plugin that waits as it starts; that it has not started meanwhile is asked last
			x.clock.moveTo(at)
			continue
		}
		if time.Until(x.limit) < 0 {
			return fmt.Errorf("the pipeline does not start: %w: %s", errStuck, cmp.Or(l.busy(), "a plugin waits for what does not come"))
		}
		if err := pause(ctx, time.Millisecond/4); err != nil {
			return err
		}
	}
	return x.comeToRest(ctx, patience)
}

// started says whether all sources run, and so all else.
func (x *script) started() bool {
	for _, f := range x.feeds {
		if !f.runs.Load() {
			return false
		}
	}
	return true
}

// rest waits until nothing can go on before the clock moves.
func (x *script) rest(ctx context.Context) error { return x.comeToRest(ctx, forbearance) }

// forbearance is for how long, in real time, what waits for the world outside is waited for: a request over a network, say.
const forbearance = 2 * time.Second

// comeToRest waits until nothing can go on but what waits for the world outside, and that has done so for long; it is waited for no more.
func (x *script) comeToRest(ctx context.Context, long time.Duration) error {
	for try := 0; ; try++ {
		for range 4 {
			runtime.Gosched()
		}
		l := x.look()
		busy := l.busy()
		switch {
		case busy == "" && !x.impatient(&l):
			return nil
		case l.running == "" && len(l.outside) > 0 && x.waited(&l, long):
			for id := range l.outside {
				x.quiet.idlers[id] = true
			}
			continue
		case time.Until(x.limit) < 0:
			return fmt.Errorf("%w: %s still goes on%s", errStuck, cmp.Or(busy, "a plugin"), x.owed())
		case try < 16 && l.running != "":
			continue
		}
		if err := pause(ctx, min(time.Duration(try)*10*time.Microsecond, time.Millisecond)); err != nil {
			return err
		}
	}
}

// look looks at all goroutines, and remembers since when some have been waiting.
func (x *script) look() look {
	l := x.quiet.look()
	now := time.Now()
	maps.DeleteFunc(x.seen, func(id uint64, _ time.Time) bool { return l.outside[id] == "" && !l.spawned[id] && !l.active[id] })
	for id := range l.outside {
		x.note(id, now)
	}
	for id := range l.spawned {
		x.note(id, now)
	}
	return l
}

func (x *script) note(id uint64, now time.Time) {
	if _, there := x.seen[id]; !there {
		x.seen[id] = now
	}
}

// waited says whether all that waits for the world outside has done so for that long.
func (x *script) waited(l *look, long time.Duration) bool {
	for id := range l.outside {
		if time.Since(x.seen[id]) < long {
			return false
		}
	}
	return true
}

// impatient says whether plugin code waits for something that may come in real time: it has not waited for long, and not for the clock.
func (x *script) impatient(l *look) bool {
	if x.pending.Load() > 0 {
		return false
	}
	for _, c := range x.inCall() {
		if time.Since(c.began) < patience {
			return true
		}
	}
	for id := range l.spawned {
		if time.Since(x.seen[id]) < patience {
			return true
		}
	}
	return false
}

// pause waits in real time.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// pass lets time go on to end, or until enough says so (nil: to end), stopping wherever something is due.
func (x *script) pass(ctx context.Context, end time.Time, enough func() bool) error {
	for {
		if err := x.rest(ctx); err != nil {
			return err
		}
		if x.ended() || enough != nil && enough() {
			return nil
		}
		at, ok := x.next()
		if !ok || at.After(end) {
			if enough != nil && !ok { // nobody waits for anything: time would change nothing
				return nil
			}
			break
		}
		x.clock.moveTo(at)
	}
	x.clock.moveTo(end)
	return x.rest(ctx)
}

// next is when something is due. What goes on in the background is stopped for once between two things that somebody waits for, so that
// loops know how old their messages are.
func (x *script) next() (at time.Time, ok bool) {
	handling := len(x.inCall()) > 0
	at, ok = x.clock.next(func(r routine) bool { return r == wanting || r == watching && handling })
	if x.stopped {
		x.stopped = false
		return at, ok
	}
	if beat, beats := x.clock.next(func(r routine) bool { return r == beating }); beats && (!ok || beat.Before(at)) {
		x.stopped = true
		return beat, true
	}
	return at, ok
}

// allSettled says whether nothing is owed to anybody. The pipeline is at rest.
func (x *script) allSettled() bool {
	for _, f := range x.feeds {
		if len(f.unsettled()) > 0 {
			return false
		}
	}
	s := x.rt.Stats()
	return s.Accepted == s.Settled && !slices.ContainsFunc(s.Rows, owes)
}

func owes(r penstock.Row) bool {
	return r.Kind != "source" && (r.Waiting > 0 || r.Mailbox > 0 || r.Oldest > 0)
}

// finish ends the sources and waits for the end of Run.
func (x *script) finish(ctx context.Context) error {
	if len(x.failures) > 0 { // something is not settled, and will not be
		x.summary = x.rt.Stats()
		x.abandon()
		return nil
	}
	for _, f := range x.feeds {
		f.end()
	}
	if err := x.await(ctx); err != nil {
		return err
	}
	x.summary = x.ran
	err := x.err
	if slices.ContainsFunc(x.summary.Rows, func(r penstock.Row) bool { return r.Lapsed > 0 }) {
		err = withoutLeaks(err) // a hold that has lapsed keeps its bytes until its plugin tries a verdict, or forgets it
	}
	if err != nil {
		x.failed(x.test.at, "the pipeline failed: %v", err)
	}
	return nil
}

// withoutLeaks is an error without what it says about memory that is still on loan.
func withoutLeaks(err error) error {
	var leak *arena.LeakError
	if !errors.As(err, &leak) {
		return err
	}
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var rest []error
	for _, e := range many.Unwrap() {
		rest = append(rest, withoutLeaks(e))
	}
	return errors.Join(rest...)
}

// await lets time go on until Run has returned.
func (x *script) await(ctx context.Context) error {
	for !x.ended() {
		if err := x.rest(ctx); err != nil {
			return err
		}
		if at, ok := x.next(); ok && !x.ended() {
			x.clock.moveTo(at)
			continue
		}
		if time.Until(x.limit) < 0 {
			return fmt.Errorf("the pipeline does not stop: %w%s", errStuck, x.owed())
		}
		select {
		case <-x.done:
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// abandon ends a pipeline that does not end by itself. It waits no longer than farewell: a handler that does not return cannot be helped.
// Then what is left of the pipeline has its clock moved until it ends, if it ever does.
func (x *script) abandon() {
	x.leave()
	until := time.Now().Add(farewell)
	move := func() {
		if at, ok := x.clock.next(func(routine) bool { return true }); ok {
			x.clock.moveTo(at)
		}
	}
	for time.Now().Before(until) {
		move()
		select {
		case <-x.done:
			return
		case <-time.After(time.Millisecond):
		}
	}
	go func() {
		for {
			move()
			select {
			case <-x.done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
}

const farewell = 500 * time.Millisecond

// unsettled reports messages that are not settled, at the first of them, with who has them.
func (x *script) unsettled(after time.Duration) {
	var open []*step
	for _, s := range x.test.steps {
		if s.wait == 0 && slices.Contains(x.feeds[s.source].unsettled(), s) {
			open = append(open, s)
		}
	}
	when := "nothing is left to wait for"
	if after >= x.test.within {
		when = fmt.Sprintf("%v of virtual time have passed since the last input", after)
	}
	at, what := x.test.at, "what plugins have emitted by themselves is not settled"
	if len(open) > 0 {
		at, what = open[0].at, "this message is not settled"
	}
	switch others := len(open) - 1; {
	case others == 1:
		what += fmt.Sprintf(", nor is that of line %d", open[1].at.Line)
	case others > 1:
		what += fmt.Sprintf(", nor are %d others up to that of line %d", others, open[others].at.Line)
	}
	x.failed(at, "%s, and %s%s", what, when, x.owed())
}

// owed names who has messages, a line each.
func (x *script) owed() string {
	var b strings.Builder
	since := map[string]time.Duration{}
	for _, c := range x.inCall() {
		since[c.plugin] = max(since[c.plugin], x.clock.Now().Sub(c.at))
	}
	for _, r := range x.rt.Stats().Rows {
		took, handling := since[r.Name]
		handling = handling && r.Kind == "plugin"
		if r.Kind != "source" && (owes(r) || handling) {
			b.WriteString("\n" + owner(r, took, handling))
		}
		if r.Kind == "source" && r.Error != "" {
			fmt.Fprintf(&b, "\nsource %q has failed: %s", r.Name, r.Error)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.feeds)) {
		f := x.feeds[name]
		f.mu.Lock()
		if n := len(f.queue); n > 0 {
			fmt.Fprintf(&b, "\nsource %q has %d more to give, and waits until others are settled", name, n)
		}
		f.mu.Unlock()
	}
	return b.String()
}

// owner says what a plugin or sink has.
func owner(r penstock.Row, took time.Duration, handling bool) string {
	var has []string
	if handling {
		has = append(has, fmt.Sprintf("its Handle has not returned for %v", took))
	}
	if r.Mailbox > 0 && !handling {
		has = append(has, fmt.Sprintf("%d in its mailbox or in hand", r.Mailbox))
	}
	if r.Waiting > 0 {
		has = append(has, fmt.Sprintf("%d waiting", r.Waiting))
	}
	if r.Oldest > 0 {
		has = append(has, fmt.Sprintf("the oldest for %v", r.Oldest))
	}
	if r.State != "" && r.State != "running" {
		has = append(has, "it is "+r.State)
	}
	if r.Held > 0 {
		has = append(has, fmt.Sprintf("%d held so far, of which %d leases ran out", r.Held, r.Lapsed))
	}
	if r.Retried > 0 {
		has = append(has, fmt.Sprintf("%d retries so far", r.Retried))
	}
	return fmt.Sprintf("%s %q has it: %s", r.Kind, r.Name, strings.Join(has, ", "))
}
