//go:build penstock_trace

package arena

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
)

const tracing = true

const (
	traceDepth  = 16 // frames of a stack
	traceEvents = 64 // of a lease: its beginning and the last ones
)

// slabTrace remembers who did what to a slab since it was last leased.
type slabTrace struct {
	mu      sync.Mutex
	events  []traceEvent
	skipped int
}

type traceEvent struct {
	what string
	pcs  [traceDepth]uintptr
	n    int
}

// note remembers the stack of whoever called the exported method that called it. A new lease forgets what was before.
func (t *slabTrace) note(what string, lease bool) {
	e := traceEvent{what: what}
	e.n = runtime.Callers(3, e.pcs[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	if lease {
		t.events, t.skipped = t.events[:0], 0
	}
	if len(t.events) == traceEvents {
		copy(t.events[1:], t.events[2:])
		t.events = t.events[:traceEvents-1]
		t.skipped++
	}
	t.events = append(t.events, e)
}

// stacks shows what is remembered, oldest first.
func (t *slabTrace) stacks() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for i, e := range t.events {
		var b strings.Builder
		b.WriteString(e.what)
		if i == 1 && t.skipped > 0 {
			fmt.Fprintf(&b, " (%d before it are not kept)", t.skipped)
		}
		frames := runtime.CallersFrames(e.pcs[:e.n])
		for more := e.n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			fmt.Fprintf(&b, "\n\t%s %s:%d", f.Function, f.File, f.Line)
		}
		list = append(list, b.String())
	}
	return list
}

// history is stacks in one text, for a panic.
func (t *slabTrace) history() string { return "\n" + strings.Join(t.stacks(), "\n") }
