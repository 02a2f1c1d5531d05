// Package listen lets the listener of one source go on to the source that takes its place. While a pipeline is loaded anew both are there
// for a moment; the port stays bound throughout, so no connection is refused.
package listen

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
)

// Pool keeps the listeners that are open. Its methods may be called concurrently.
type Pool struct {
	mu   sync.Mutex
	open map[string]*shared
}

// NewPool makes an empty Pool.
func NewPool() *Pool { return &Pool{open: map[string]*shared{}} }

// shared is a listener that several handles may have. It is closed with the last of them.
type shared struct {
	net.Listener
	pool    *Pool
	key     string
	handles int // guarded by pool.mu
	accepts chan accepted
	closed  chan struct{}
	done    sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listen opens a listener, or another handle of the one that is open at this address. A connection goes to one of the handles that accept
// at that time; while none does, it waits. Closing a handle ends its Accept, and nobody else's. A port of 0 is never shared.
func (p *Pool) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := network + " " + address
	if s := p.open[key]; s != nil {
		return s.handle(), nil
	}
	var cfg net.ListenConfig
	l, err := cfg.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := &shared{Listener: l, pool: p, key: key, accepts: make(chan accepted), closed: make(chan struct{})}
	if !strings.HasSuffix(address, ":0") {
		p.open[key] = s
	}
	s.done.Go(s.serve)
	return s.handle(), nil
}

// handle makes a handle. The pool's lock is held.
func (s *shared) handle() *handle {
	s.handles++
	return &handle{shared: s, over: make(chan struct{})}
}

// serve hands connections to whoever accepts.
func (s *shared) serve() {
	for {
		conn, err := s.Listener.Accept()
		select {
		case s.accepts <- accepted{conn, err}:
		case <-s.closed:
			if conn != nil {
				_ = conn.Close() // nobody is left to take it
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// handle is one user's end of a shared listener.
type handle struct {
	*shared
	once sync.Once
	over chan struct{}
}

var _ net.Listener = (*handle)(nil)

// Accept waits for a connection, or for Close.
func (h *handle) Accept() (net.Conn, error) {
	select {
	case <-h.over:
		return nil, &net.OpError{Op: "accept", Net: h.Addr().Network(), Addr: h.Addr(), Err: net.ErrClosed}
	default:
	}
	select {
	case a := <-h.accepts:
		return a.conn, a.err
	case <-h.over:
		return nil, &net.OpError{Op: "accept", Net: h.Addr().Network(), Addr: h.Addr(), Err: net.ErrClosed}
	}
}

// Close ends the handle; with the last one, the listener.
func (h *handle) Close() (err error) {
	h.once.Do(func() {
		close(h.over)
		p := h.pool
		p.mu.Lock()
		h.handles--
		last := h.handles == 0
		if last && p.open[h.key] == h.shared {
			delete(p.open, h.key)
		}
		if last {
			close(h.closed)
			err = h.Listener.Close() // within the lock: whoever opens the address next finds it free
		}
		p.mu.Unlock()
		if last {
			h.done.Wait()
		}
	})
	return err
}
