package sim

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/plugin"
)

// swapRun is a swap that is under way.
type swapRun struct {
	version  int
	broken   string // what the new version cannot do; empty if it works
	cancel   context.CancelFunc
	canceled bool
	done     bool
	how      actor.Swapped
	err      error
}

var errBroken = errors.New("scripted: this version does not work")

// beginSwap starts a swap, in a goroutine of its own that runs while the schedule waits.
func (p *plug) beginSwap() {
	s := p.s
	p.latest++
	r := &swapRun{version: p.latest}
	if s.rnd.IntN(4) == 0 {
		r.broken = pick(s.rnd, "new", "start", "export", "import")
	}
	if !p.set.stateful && (r.broken == "export" || r.broken == "import") {
		r.broken = ""
	}
	p.swap = r
	v := actor.Version{
		Name: fmt.Sprint(r.version), New: p.factory(r.version), Drain: time.Duration(pick(s.rnd, 0, 5, 300)) * time.Millisecond,
	}
	if r.broken == "new" {
		v.New = func() (plugin.Handler, error) { return nil, errBroken }
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	s.tracef("%s: swap to version %d, broken: %q", p.set.name, r.version, r.broken)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				s.fail(Misuse, "swap of %q: %v\n%s", p.set.name, v, debug.Stack())
			}
			r.done = true
		}()
		r.how, r.err = p.actor.Swap(ctx, v)
	}()
	s.opt.Wait()
}

// stepSwap looks how a swap is going, and does what gets in its way.
func (p *plug) stepSwap() {
	s, r := p.s, p.swap
	if r.done {
		p.endSwap()
		return
	}
	much := 20
	if len(s.words) > 0 { // word that comes after the pause it is about is what a swap must not take for its own
		much = 4
	}
	switch s.rnd.IntN(much) {
	case 0:
		if _, err := p.actor.Swap(context.Background(), actor.Version{Name: "second", New: p.factory(0)}); !errors.Is(err, actor.ErrSwapping) {
			s.fail(Versions, "a second swap of %q: %v", p.set.name, err)
		}
	case 1:
		if !s.ending {
			s.tracef("%s: swap is canceled", p.set.name)
			r.canceled = true
			r.cancel()
			s.opt.Wait()
		}
	}
}

// stepChange has the worker change its instance, if that is what it is to do.
func (p *plug) stepChange() bool {
	s, before, out := p.s, p.actor.Stats().Version, 0
	for _, ln := range p.lanes {
		out += ln.out
	}
	if !p.actor.Step() {
		return false
	}
	s.opt.Wait() // the swap goes on in a goroutine of its own
	s.tracef("%s: a change between deliveries", p.set.name)
	if out > 0 && p.actor.Stats().Version != before && (p.set.stateful || p.set.order) {
		s.fail(Versions, "%q is changed while %d deliveries are out", p.set.name, out)
	}
	return true
}

func (p *plug) endSwap() {
	s, r := p.s, p.swap
	r.cancel()
	p.swap = nil
	s.tracef("%s: swap to version %d: %+v, %v", p.set.name, r.version, r.how, r.err)
	switch {
	case r.err == nil && r.broken != "":
		s.fail(Versions, "%q now serves version %d, which is broken: %s", p.set.name, r.version, r.broken)
	case r.err == nil:
		s.report.Swaps++
		p.seen = r.version
		if r.how.Lost != 0 || r.how.Stateful != (p.set.stateful || p.set.order) {
			s.fail(Versions, "the swap of %q went %+v", p.set.name, r.how)
		}
	case !errors.Is(r.err, errBroken) && !(r.canceled && errors.Is(r.err, context.Canceled)):
		s.fail(Versions, "swap of %q: %v", p.set.name, r.err)
	}
	if r.canceled && !s.ending && s.failure == nil && p.going == stays && s.rnd.IntN(4) > 0 {
		p.beginSwap() // at once, while word of the pause before may be on its way
		return
	}
	if got := p.actor.Stats(); r.err == nil && got.Version != fmt.Sprint(r.version) {
		s.fail(Versions, "after the swap of %q to version %d it serves %q", p.set.name, r.version, got.Version)
	}
}
