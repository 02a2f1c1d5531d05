package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

var errSlow = errors.New("the checks of the plugins have not returned")

// prober asks whether the pipeline is ready. However many ask, one check is under way: plugins that do not return from theirs cost one
// goroutine, and others hear of it in time.
type prober struct {
	control Control
	base    context.Context

	mu    sync.Mutex
	probe *probe // under way; nil for none
}

// probe is one check.
type probe struct {
	done    chan struct{}
	reasons []string // what is not as it should be; to be read when done is closed
}

// reasons is why the pipeline is not ready; empty if it is. It takes at most checkTimeout, or until ctx ends.
func (p *prober) reasons(ctx context.Context) []string {
	if p.control.Draining() {
		return []string{"the pipeline is ending: it takes no more messages"}
	}
	p.mu.Lock()
	run := p.probe
	if run == nil {
		run = &probe{done: make(chan struct{})}
		p.probe = run
		go p.check(run)
	}
	p.mu.Unlock()
	late := time.NewTimer(checkTimeout)
	defer late.Stop()
	select {
	case <-run.done:
		return run.reasons
	case <-late.C:
	case <-ctx.Done():
	}
	return []string{tooSlow()}
}

func tooSlow() string { return fmt.Sprintf("%v within %v", errSlow, checkTimeout) }

func (p *prober) check(run *probe) {
	ctx, cancel := context.WithTimeoutCause(p.base, checkTimeout, errSlow)
	defer cancel()
	if err := p.control.Check(ctx); err != nil {
		run.reasons = lines(err)
	}
	if ctx.Err() != nil {
		run.reasons = append(run.reasons, tooSlow())
	}
	said := strings.Join(run.reasons, "\n")
	for _, r := range p.control.Stats().Rows {
		name := fmt.Sprintf("%s %q", r.Kind, r.Name)
		switch {
		case r.Kind == "source" && r.State == "failed":
			run.reasons = append(run.reasons, fmt.Sprintf("%s has failed: %s", name, r.Error))
		case r.Kind == "plugin" && r.State == "quarantined" && !strings.Contains(said, name):
			run.reasons = append(run.reasons, name+" is quarantined: it has panicked too often")
		}
	}
	p.mu.Lock()
	p.probe = nil
	p.mu.Unlock()
	close(run.done)
}

// lines is the lines of an error: joined errors have one each.
func lines(err error) (out []string) {
	for l := range strings.Lines(err.Error()) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}
