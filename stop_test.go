package penstock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/plugin"
)

// early emits as it starts, and then does not.
type early struct{ stopper }

func (e *early) Start(ctx context.Context, env plugin.Env) error {
	for _, m := range []string{"1", "2", "3"} {
		if err := env.Emit(ctx, "out", []byte(m)); err != nil {
			return err
		}
	}
	return errNo
}

// Promise: a start that fails ends Run, also when what the plugin has emitted by then is with others.
func TestStartThatFailsAfterEmitting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handled := 0
		rt, _ := prepare(t, penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"a"}}}}},
			Plugins: []penstock.Plugin{
				{Name: "p", From: []string{"in"}, Emits: []string{"out"}, New: func() (penstock.Handler, error) { return &early{}, nil }},
				{Name: "q", From: []string{"out"}, New: function(func(context.Context, *penstock.Message) error {
					time.Sleep(time.Second)
					if handled++; handled == 3 {
						return penstock.Reject(errNo)
					}
					return nil
				})},
			},
		})
		if s, err := rt.Run(t.Context()); !errors.Is(err, errNo) || handled != 3 || s.Dead != 1 {
			t.Errorf("%v, %d handled, %+v", err, handled, s)
		}
	})
}

// closing is a sink that says whether it was closed.
type closing struct {
	keep
	closed bool
}

func (c *closing) Close(context.Context) error { c.closed = true; return nil }

// Promise: a handler that does not return keeps nobody else from being stopped, and only its plugin is named.
func TestHandlerThatHangsKeepsNoSinkOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		var outs [8]closing
		p := penstock.Pipeline{
			Drain:   time.Second,
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"a"}}}}},
			Plugins: []penstock.Plugin{{Name: "stuck", From: []string{"in"}, New: function(
				func(context.Context, *penstock.Message) error { <-goOn; return nil })}},
		}
		for i := range outs {
			p.Sinks = append(p.Sinks, penstock.Sink{Name: "out" + string(rune('0'+i)), From: []string{"in"}, To: &outs[i]})
		}
		rt, _ := prepare(t, p)
		stop := start(t, rt)
		time.Sleep(time.Second)
		_, err := stop()
		if err == nil || !strings.Contains(err.Error(), `"stuck"`) || strings.Contains(err.Error(), `sink "out`) {
			t.Errorf("error is %v", err)
		}
		for i := range outs {
			if !outs[i].closed {
				t.Errorf("sink %d is not closed", i)
			}
		}
		close(goOn)
	})
}

// Promise: a call cannot wait for ever for memory that its own emits have: it is told that they are too large.
func TestCallThatEmitsMoreThanItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var emitErr error
		large := make([]byte, 129<<10) // more than half a slab: nothing like it fits beside it
		s := whole(t, penstock.Pipeline{
			Memory:  64 << 20,
			Sources: []penstock.Source{{Name: "in", From: &list{batches: [][]string{{"a"}}}}},
			Plugins: []penstock.Plugin{{
				Name: "p", From: []string{"in"}, Emits: []string{"out"}, Retry: penstock.RetryPolicy{Attempts: 1},
				New: function(func(_ context.Context, m *penstock.Message) error {
					for range 80 {
						emitErr = m.Emit("out", large)
						if emitErr != nil {
							return emitErr
						}
					}
					return nil
				}),
			}},
			Sinks: []penstock.Sink{{Name: "s", From: []string{"out"}, To: &keep{}}},
		})
		if !errors.Is(emitErr, plugin.ErrEmitTooLarge) || s.Dead != 1 || s.Settled != 1 {
			t.Errorf("%v, %+v", emitErr, s)
		}
	})
}
