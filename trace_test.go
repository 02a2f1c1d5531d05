package penstock_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// tracer follows every batch, and writes down what it sees.
type tracer struct {
	mu   sync.Mutex
	list []string
}

func (x *tracer) note(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = append(x.list, fmt.Sprintf(format, args...))
}

func (x *tracer) Begin(source string, n int, parent []byte) arena.Trail {
	x.note("%s begins with %d of %q", source, n, parent)
	return &trail{x, source}
}

type trail struct {
	x    *tracer
	name string
}

func (y *trail) Enter(consumer string, _ arena.Role, n int) arena.Step {
	y.x.note("%s in %s: %d", y.name, consumer, n)
	return &step{y.x, y.name + "-" + consumer}
}

func (y *trail) Leave() { y.x.note("%s done", y.name) }

type step struct {
	x    *tracer
	name string
}

func (s *step) Traceparent() []byte              { return []byte(s.name) }
func (s *step) Follow(stream string) arena.Trail { return &trail{s.x, s.name + "-" + stream} }
func (s *step) Leave(exceptions int)             { s.x.note("%s left with %d", s.name, exceptions) }

// Promise: a batch that is followed is followed through plugins, to what they emit and to sinks, and carries its trace in a header.
func TestTrace(t *testing.T) {
	x := &tracer{}
	rt, _ := prepare(t, penstock.Pipeline{
		Tracer: x,
		Sources: []penstock.Source{{Name: "in", From: &list{
			batches: [][]string{{"1", "2"}}, headers: arena.AppendHeader(arena.AppendHeader(nil, "traceparent", []byte("up")), "other", []byte("o")),
		}}},
		Plugins: []penstock.Plugin{
			{Name: "p", From: []string{"in"}, Emits: []string{"out"}, New: function(func(_ context.Context, m *penstock.Message) error {
				if string(m.Payload()) == "1" {
					return penstock.Reject(errNo)
				}
				return m.Forward("out")
			})},
			{Name: "q", From: []string{"out"}, New: function(func(_ context.Context, m *penstock.Message) error {
				if parent, other := m.Header("traceparent"), m.Header("other"); string(parent) != "in-p" || string(other) != "o" {
					t.Errorf("headers %q and %q", parent, other)
				}
				return nil
			})},
		},
		Sinks: []penstock.Sink{{Name: "s", From: []string{"out"}, To: &keep{}}},
	})
	if _, err := rt.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`in begins with 2 of "up"`, "in in p: 2", "in-p left with 1", "in-p-out in q: 1", "in-p-out-q left with 0", "in-p-out in s: 1",
		"in-p-out-s left with 0", "in-p-out done", "in done",
	}
	got := slices.Clone(x.list)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}
