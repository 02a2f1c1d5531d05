package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/source"
)

// anyPort is where receivers listen.
const anyPort = "127.0.0.1:0"

// listenFunc opens a listener.
type listenFunc = func(ctx context.Context, network, address string) (net.Listener, error)

// told is a listenFunc that writes the address to out, and calls first when the first connection is accepted.
func told(open listenFunc, out io.Writer, first func()) listenFunc {
	return func(ctx context.Context, network, address string) (net.Listener, error) {
		ln, err := open(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintln(out, ln.Addr()); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		return &listener{Listener: ln, first: sync.OnceFunc(first)}, nil
	}
}

// listener calls first when a connection has been accepted.
type listener struct {
	net.Listener
	first func()
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.first()
	}
	return c, err
}

// counted is a source of which is known when so many messages are settled.
type counted struct {
	source.Source
	total   int
	settled int
	odd     error         // a settlement that should not be
	done    chan struct{} // closed when total are settled
}

func newCounted(s source.Source, total int) *counted {
	return &counted{Source: s, total: total, done: make(chan struct{})}
}

// Prepare implements source.Preparer.
func (c *counted) Prepare(ctx context.Context, env source.Env) error {
	if p, ok := c.Source.(source.Preparer); ok {
		return p.Prepare(ctx, env)
	}
	return nil
}

// Settle implements source.Source.
func (c *counted) Settle(s source.Settlement) {
	c.Source.Settle(s)
	if s.Outcome != source.Settled {
		c.odd = fmt.Errorf("%d messages were returned", len(s.Receipts))
	}
	before := c.settled
	c.settled += len(s.Receipts)
	if before < c.total && c.settled >= c.total {
		close(c.done)
	}
}

// serving is a pipeline that runs until all that is sent to it is settled.
type serving struct {
	from  *counted
	plan  penstock.Pipeline
	meter meter
	also  func(ctx context.Context, rt *penstock.Runtime) error // beside it, until ctx ends; may be nil
	after func() error                                          // called when all is settled, before the end; may be nil
	stay  bool                                                  // until in ends: answers are under way
}

// run runs it, and returns what was used from the first connection on to the last settlement.
func (s *serving) run(ctx context.Context, in io.Reader) (used, error) {
	rt, err := penstock.New(quiet(s.plan))
	if err != nil {
		return used{}, err
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var sum penstock.Summary
	var runErr error
	over := make(chan struct{})
	go func() {
		defer close(over)
		sum, runErr = rt.Run(running)
	}()
	beside, stop := context.WithCancel(running)
	defer stop()
	other := make(chan error, 1)
	go func() {
		if s.also == nil {
			other <- nil
			return
		}
		other <- s.also(beside, rt)
	}()
	through := ended(in)
	got := make(chan error, 1)
	go func() { got <- await(running, s.from.done, through) }()
	select {
	case err = <-got:
	case <-over:
		err = errors.New("the pipeline has ended before all was settled")
	}
	u := s.meter.used()
	stop()
	err = errors.Join(err, <-other)
	if err == nil && s.after != nil {
		err = s.after()
	}
	if err == nil && s.stay {
		<-through
	}
	cancel()
	<-over
	if err := errors.Join(err, runErr, s.from.odd); err != nil {
		return used{}, err
	}
	if n := uint64(s.from.total); sum.Accepted != n || sum.Settled != n || sum.Dead+sum.Dropped+sum.Returned+sum.Bad+sum.Retried > 0 {
		return used{}, fmt.Errorf("of %d messages, the summary says: %+v", n, sum)
	}
	return u, nil
}

// say writes what was measured.
func say(out io.Writer, v any) error { return json.NewEncoder(out).Encode(v) }

// numbered is an input without its bytes, for whoever gets them from elsewhere.
func numbered(bytes, size int) *input {
	in := &input{size: size, n: bytes / size}
	for i := range in.n {
		in.sum += tailOf(uint64(i))
	}
	return in
}
