// Package socket is the source that producers connect to: over TCP, with TLS on request, or over a socket file.
//
//	connection 1 ─┐  wait until there is something ─> lease a slab, read ─> Accept     receipt = slot of the connection | its n-th message
//	connection 2 ─┼─ ...
//	connection 3 ─┘  <── "error: ..." or, with acks, the count of settled messages <── Settle
//
// All connections are one source, partition 0. A connection that has nothing to say holds no slab: its goroutine waits for the socket
// before it leases one, and gives it back when a read has found nothing more. Few connections read at one time, in turns: were there as
// many as there are slabs, each could hold one and wait for another. The cursor means nothing here; a receipt leads back to its
// connection.
package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// Defaults of a [Config].
const (
	DefaultMaxConnections = 16384
	DefaultMode           = 0o600
)

const (
	handshakeTimeout = 10 * time.Second // for TLS and the token
	patience         = 10 * time.Second // how long nothing may move for want of memory before an unfinished message is given up
	mostConnections  = 1 << slotBits
	mostTurnedAway   = 64 // connections beyond the limit that are told so at one time
	turnBatches      = 16 // batches of a connection before it makes way for others that wait
)

// A receipt is the slot of the connection, and the number of the message among all that the slot has had.
const (
	slotBits   = 20
	numberBits = 64 - slotBits
	numberMask = 1<<numberBits - 1
)

// Config says where to listen, and how to treat who connects.
type Config struct {
	Network        string          // tcp or unix
	Address        string          // host:port, or the path of a socket file
	Mode           fs.FileMode     // of the socket file; 0 means 0600
	Framing        string          // lines, u32, varint or whole; empty means lines
	Delimiter      string          // of lines; empty means a newline
	TLS            *kind.ServerTLS // nil means none; its files are read by Run
	Token          kind.Secret     // what the first message of a connection must be; empty means none
	Acks           bool            // tell each connection how many of its messages are settled
	IdleTimeout    time.Duration   // how long a connection may be silent; 0 means for ever
	MaxConnections int             // 0 means 16384
	MaxMessage     int             // the largest message, in bytes; 0 means what the pipeline says

	// Listen opens the listener; nil means net.ListenConfig. Closing the listener need not close the address.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Source listens, and reads all connections.
type Source struct {
	cfg     Config
	dialect dialect

	handshake time.Duration // handshakeTimeout, but in tests

	slots     []slot // by number, made by Prepare; their connections change under mu
	unsettled atomic.Int64
	open      sync.WaitGroup // connections that are not closed

	turns  chan struct{} // one for each connection that may hold a slab
	queued atomic.Int32  // connections that wait for a turn

	bound net.Listener // by Prepare, for Run, which closes it
	ran   bool

	// set by Run, before the first connection
	env    source.Env
	tls    *tls.Config
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	free    []uint32 // slots without a connection, the last one first
	live    int
	away    int  // connections that are being turned away
	full    bool // no connection is let in any more
	readers sync.WaitGroup
}

// slot is a place for a connection.
type slot struct {
	conn atomic.Pointer[conn]
	next uint64 // number of the first message of its next connection; guarded by Source.mu
}

var (
	_ source.Source   = (*Source)(nil)
	_ source.Preparer = (*Source)(nil)
)

// New checks cfg and makes a Source. It opens nothing.
func New(cfg Config) (*Source, error) {
	where := fmt.Sprintf("socket source %s", cfg.Address)
	if cfg.Network != "tcp" && cfg.Network != "unix" {
		return nil, fmt.Errorf("%s: there is no network %q here: give tcp or unix", where, cfg.Network)
	}
	if cfg.Address == "" {
		return nil, errors.New("socket source: address is empty: say where to listen")
	}
	if cfg.Mode == 0 {
		cfg.Mode = DefaultMode
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	if p := checkLimits(cfg.IdleTimeout, cfg.MaxConnections, cfg.Token); len(p) > 0 {
		return nil, fmt.Errorf("%s: %s: %s", where, p[0].Field, p[0].Message)
	}
	d, err := newDialect(cfg.Framing, cfg.Delimiter)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if d.name == "whole" && (cfg.Acks || cfg.Token != "") {
		return nil, fmt.Errorf("%s: with framing whole a connection is one message, so there is no room for a token or for acks: "+
			"give lines, u32 or varint", where)
	}
	if cfg.Token != "" {
		framed := d.appendFrame(nil, []byte(cfg.Token))
		if got, _, ok := d.first(framed); !ok || string(got) != cfg.Token.Reveal() {
			return nil, fmt.Errorf("%s: the token cannot be a message of framing %s: choose one without the delimiter", where, d.name)
		}
	}
	return &Source{cfg: cfg, dialect: d, handshake: handshakeTimeout}, nil
}

// Connections is how many connections there are, those too that wait for their last acknowledgements. It may be called at any time.
func (s *Source) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// Prepare listens, and reads the certificate: connections wait until Run. The error says which of them could not be had.
func (s *Source) Prepare(ctx context.Context, _ source.Env) (err error) {
	if s.tls, err = s.cfg.TLS.Config(); err != nil {
		return s.wrap(err)
	}
	s.mu.Lock()
	s.slots, s.free = make([]slot, s.cfg.MaxConnections), s.free[:0]
	for i := range s.cfg.MaxConnections {
		s.free = append(s.free, uint32(s.cfg.MaxConnections-1-i))
	}
	s.mu.Unlock()
	if s.bound, err = s.listen(ctx); err != nil {
		return s.wrap(err)
	}
	return nil
}

// Run listens until ctx ends or the runtime takes no more. What cannot be listened at is an error; what a connection does never is.
func (s *Source) Run(ctx context.Context, in source.Intake) error {
	s.env = in.Env()
	if s.bound == nil {
		if err := s.Prepare(ctx, s.env); err != nil {
			return err
		}
	}
	ln := s.bound
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.cancel = cancel
	s.turns = make(chan struct{}, 2*runtime.GOMAXPROCS(0)+2)
	// So that a connection can let go of its slab when memory is short, there is always one carved for the beginnings of messages.
	if spare, err := in.Account().LeaseSized(1); err == nil {
		defer spare.Release()
	}
	defer ln.Close()
	s.ran = true
	s.env.Logger.Info("listening", "source", s.env.Name, "network", s.cfg.Network, "address", ln.Addr().String())
	interrupted := make(chan struct{})
	context.AfterFunc(inner, func() {
		defer close(interrupted)
		_ = ln.Close()
		s.interrupt()
	})
	sweeping := s.sweepEvery(s.sweepPeriod())
	err := s.accept(inner, in, ln)
	cancel(err)
	<-interrupted
	sweeping.stop()
	s.readers.Wait()
	if cause := context.Cause(inner); err == nil && ctx.Err() == nil && !errors.Is(cause, source.ErrStopped) {
		err = cause
	}
	if err != nil {
		return s.wrap(err)
	}
	return nil
}

func (s *Source) wrap(err error) error { return fmt.Errorf("socket source %s: %w", s.cfg.Address, err) }

// accept lets connections in. It returns nil when ctx has ended.
func (s *Source) accept(ctx context.Context, in source.Intake, ln net.Listener) error {
	for pause := time.Duration(0); ; {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.admit(ctx, in, nc)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("the listener was closed by somebody else: %w", err)
		}
		in.Report(s.wrap(fmt.Errorf("accepting a connection: %w", err))) // too many open files, say: it may pass
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		woken := make(chan struct{})
		t := s.env.Clock.AfterFunc(pause, func() { close(woken) })
		select {
		case <-woken:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// admit gives a connection a slot and a goroutine, or turns it away.
func (s *Source) admit(ctx context.Context, in source.Intake, nc net.Conn) {
	s.mu.Lock()
	if s.full {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	if len(s.free) == 0 {
		tell := s.away < mostTurnedAway
		if tell {
			s.away++
			s.readers.Add(1)
		}
		s.mu.Unlock()
		in.Report(&RefusedError{Source: s.cfg.Address, Remote: nc.RemoteAddr().String(), Err: ErrConnections})
		if !tell {
			_ = nc.Close()
			return
		}
		go s.turnAway(nc)
		return
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	c := newConn(ctx, s, in, i, nc)
	s.slots[i].conn.Store(c)
	s.live++
	s.open.Add(1)
	s.readers.Add(1)
	s.mu.Unlock()
	go c.serve()
}

// turnAway tells a connection that there are too many. Over TLS that cannot be said before the handshake, which would cost too much.
func (s *Source) turnAway(nc net.Conn) {
	defer s.readers.Done()
	if s.tls == nil {
		_ = nc.SetWriteDeadline(time.Now().Add(lingerTime))
		_, _ = nc.Write(s.dialect.appendFrame(nil, []byte("error: "+ErrConnections.Error()+advice(ErrConnections))))
		linger(nc, nc)
	}
	_ = nc.Close()
	s.mu.Lock()
	s.away--
	s.mu.Unlock()
}

// release gives the slot of a connection back that is closed.
func (s *Source) release(c *conn) {
	s.mu.Lock()
	sl := &s.slots[c.slot]
	sl.conn.Store(nil)
	sl.next = (c.base + c.accepted) & numberMask
	s.free = append(s.free, c.slot)
	s.live--
	s.mu.Unlock()
	s.open.Done()
}

// each calls f with every connection.
func (s *Source) each(f func(c *conn)) {
	for i := range s.slots {
		if c := s.slots[i].conn.Load(); c != nil {
			f(c)
		}
	}
}

// interrupt ends all reading, and lets nobody in any more.
func (s *Source) interrupt() {
	s.mu.Lock()
	s.full = true
	s.mu.Unlock()
	s.each(func(c *conn) { c.interrupt() })
}

// stops says whether all reading has been interrupted.
func (s *Source) stops() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// Settle counts what is settled, and has connections told that want to know.
func (s *Source) Settle(st source.Settlement) {
	s.unsettled.Add(-int64(len(st.Receipts)))
	if !s.cfg.Acks || st.Outcome != source.Settled {
		return
	}
	for r := st.Receipts; len(r) > 0; {
		n := 1
		for n < len(r) && r[n] == r[0]+uint64(n) && r[n]&numberMask != 0 {
			n++
		}
		if c := s.slots[r[0]>>numberBits].conn.Load(); c != nil {
			c.settled(r[0]&numberMask, uint64(n))
		}
		r = r[n:]
	}
}

// Close sends the last acknowledgements and closes all connections. When ctx ends it does not wait for slow peers any more.
func (s *Source) Close(ctx context.Context) error {
	if s.bound != nil && !s.ran {
		return s.bound.Close()
	}
	s.interrupt()
	s.each(func(c *conn) { c.finish() })
	closed := make(chan struct{})
	go func() {
		s.open.Wait()
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
	}
	s.each(func(c *conn) { c.hangUp() })
	<-closed
	return s.wrap(fmt.Errorf("some connections were closed before they had read their last acknowledgements: %w", ctx.Err()))
}
