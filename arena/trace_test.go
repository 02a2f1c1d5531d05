//go:build penstock_trace

package arena

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

//go:noinline
func takeAndForget(s *Slab) { s.Retain() }

// Promise: the tracing build names who holds what.
func TestTraceNamesTheHolder(t *testing.T) {
	a, err := New(Config{Budget: 100 * testSlab, SlabSize: testSlab})
	if err != nil {
		t.Fatal(err)
	}
	ac := newAccount(t, a, Sources, "s", 0, 0)
	s := lease(t, ac)
	s.Release()
	s = lease(t, ac)
	for range 3 * traceEvents {
		s.Retain()
		s.Release()
	}
	v, _ := a.Resolve(s.Ref(0, 1))
	takeAndForget(s)
	v.Release()
	s.Release()
	err = a.Close()
	var leak *LeakError
	if !errors.As(err, &leak) || len(leak.Holders) != 1 || leak.Holders[0].Refs != 1 {
		t.Fatalf("close: %v", err)
	}
	text := err.Error()
	for _, want := range []string{
		"takeAndForget", "TestTraceNamesTheHolder", "trace_test.go:", "lease\n", "retain\n", "resolve\n", "before it are not kept",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if n := len(leak.Holders[0].Stacks); n != traceEvents {
		t.Errorf("%d stacks, want %d", n, traceEvents)
	}
	s.Release()
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "takeAndForget") || !strings.Contains(got, "release") {
			t.Errorf("the panic of a double release does not tell the history: %s", got)
		}
	}()
	s.Release()
}
