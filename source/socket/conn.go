package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
)

// readSize is the most that is read at once: a slab.
const readSize = 256 << 10

// phase is what a connection's reader is doing.
type phase = uint32

const (
	shaking phase = iota // TLS, token
	waiting              // for the peer
	gated                // for the window
	filling              // reads; if for long, it waits for memory
)

// conn is one connection. Its goroutine reads; what it is told it is told by whoever has something to tell.
type conn struct {
	s      *Source
	in     source.Intake
	slot   uint32
	base   uint64   // number of its first message in the slot
	socket net.Conn // what was accepted
	peer   net.Conn // what is written to: socket, or TLS over it
	ctx    context.Context
	cancel context.CancelCauseFunc

	// the goroutine's
	feed     feed
	secure   *tls.Conn // nil without TLS
	under    *underTLS
	rest     []byte // came with the token, not read yet
	r        *decode.Reader
	park     func()
	turn     bool   // it has one of Source.turns
	batches  int    // in this turn
	accepted uint64 // messages; constant once the goroutine has ended
	heardEnd bool   // the peer will send no more
	broken   error  // what reading failed with, an end too; nil if it is the pipeline that failed
	refused  error  // why the connection is refused, if it is

	// for the sweep
	phase atomic.Uint32
	moved atomic.Bool  // something was read or accepted since the last sweep
	held  atomic.Int64 // bytes of an unfinished message, while it waits
	quiet int          // sweeps in which nothing moved; the sweep's own

	counted atomic.Uint64 // accepted, while it waits

	acks acks
}

func newConn(ctx context.Context, s *Source, in source.Intake, i uint32, nc net.Conn) *conn {
	c := &conn{s: s, in: in, slot: i, base: s.slots[i].next, socket: nc, peer: nc, feed: newFeed(nc)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.park = func() {
		c.r.Park()
		c.held.Store(int64(c.r.Buffered()))
		c.counted.Store(c.accepted)
		c.endTurn()
	}
	return c
}

// serve reads the connection to its end.
func (c *conn) serve() {
	defer c.s.readers.Done()
	err := c.shake()
	if err == nil {
		c.r = decode.NewReader(c, c.in, c.s.dialect.framing, c.options())
		err = c.pump()
		c.judge(err)
		c.r.Close()
		c.r = nil
		c.endTurn()
	} else if c.ctx.Err() == nil && errors.Is(err, io.EOF) {
		c.heardEnd = true // who only looks whether somebody listens
	}
	c.cancel(nil)
	why := ""
	if c.refused != nil {
		c.in.Report(c.refusal(c.refused))
		why = "error: " + c.refused.Error() + advice(c.refused)
	}
	c.end(why)
}

// judge says what it means that pump ended with err.
func (c *conn) judge(err error) {
	cause := context.Cause(c.ctx)
	var bad *decode.Error
	switch {
	case errors.As(err, &bad):
		c.refused = bad
	case errors.Is(cause, ErrIdle), errors.Is(cause, ErrMemory):
		c.refused = cause
	case c.ctx.Err() != nil, c.s.stops(): // the interrupt may come before word of it has reached this context
	case errors.Is(err, io.EOF):
		c.heardEnd = true
	case c.broken == nil: // of the pipeline, not of this connection; or the runtime takes no more
		c.s.cancel(err)
	case c.r.Buffered() > 0:
		c.refused = ErrReset
	}
}

func (c *conn) options() decode.Options {
	env := c.in.Env()
	o := decode.Options{
		MaxMessage: c.s.cfg.MaxMessage, MaxBatch: env.MaxBatch, ReadSize: readSize,
		// With acks a line that is left out would make the producer count otherwise than we do: there it ends the connection.
		SkipTooLarge: !c.s.cfg.Acks,
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = env.MaxBytes
	}
	o.OnError = func(err error) { c.in.Report(c.refusal(err)) }
	return o
}

// pump reads batch after batch. It returns io.EOF at the end.
func (c *conn) pump() error {
	ready := len(c.rest) > 0 || c.secure != nil // it may have come with the handshake
	for {
		if !ready {
			if err := c.wait(); err != nil {
				return err
			}
		}
		c.phase.Store(gated)
		if err := c.takeTurn(); err != nil {
			return err
		}
		if err := c.in.Ready(c.ctx); err != nil {
			c.broken = nil
			return err
		}
		c.phase.Store(filling)
		b, err := c.r.Next(c.ctx)
		if err != nil {
			if !errors.Is(err, notReady{}) {
				return err
			}
			ready = false
			continue
		}
		n := c.number(b)
		if err := c.in.Accept(b); err != nil {
			c.accepted -= n
			c.s.unsettled.Add(-int64(n))
			c.broken = nil
			return err
		}
		c.stir()
		if c.batches++; c.batches >= turnBatches && c.s.queued.Load() > 0 {
			c.r.Park()
			c.endTurn()
		}
		if !c.drained() {
			runtime.Gosched() // who handles the batch does so best here and now: this processor has it in its cache
		}
		// Where nothing is left of a read that took all there was, another would be in vain; otherwise Next knows best.
		ready = c.r.Buffered() > 0 || !c.drained()
	}
}

// takeTurn waits until few enough connections read.
func (c *conn) takeTurn() error {
	if c.turn {
		return nil
	}
	select {
	case c.s.turns <- struct{}{}:
	default:
		c.s.queued.Add(1)
		defer c.s.queued.Add(-1)
		select {
		case c.s.turns <- struct{}{}:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
	c.turn, c.batches = true, 0
	return nil
}

// endTurn lets another connection read.
func (c *conn) endTurn() {
	if c.turn {
		<-c.s.turns
		c.turn = false
	}
}

// number gives the messages of b their receipts, and says how many they are. It comes before Accept, within which they may be settled.
func (c *conn) number(b *arena.Batch) (n uint64) {
	first, of := c.base+c.accepted, uint64(c.slot)<<numberBits
	for i := range b.Receipts {
		b.Receipts[i] = of | (first+uint64(i))&numberMask
	}
	n = uint64(len(b.Receipts))
	c.accepted += n
	c.s.unsettled.Add(int64(n))
	return n
}

// wait returns when there is something to read. Before it waits it gives back the slab.
func (c *conn) wait() error {
	c.phase.Store(waiting)
	err := c.feed.wait(c.park)
	c.held.Store(0)
	if err != nil {
		c.broken = err
	}
	return err
}

func (c *conn) drained() bool { return c.secure == nil && len(c.rest) == 0 && c.feed.drained() }

// stir says that something moves here.
func (c *conn) stir() {
	if !c.moved.Load() {
		c.moved.Store(true)
	}
}

// Read reads what is there, for the decode.Reader; notReady if that is nothing.
func (c *conn) Read(p []byte) (n int, err error) {
	switch {
	case len(c.rest) > 0:
		n = copy(p, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
	case c.secure != nil:
		n, err = c.secure.Read(p)
		if errors.Is(err, io.EOF) && c.under.ended {
			err = io.ErrUnexpectedEOF // whoever is on the way may have cut it, so the end is no end of a message
		}
	default:
		n, err = c.feed.read(p)
	}
	if n > 0 {
		c.stir()
	}
	if err != nil && !errors.Is(err, notReady{}) {
		c.broken = err
	}
	return n, err
}

// underTLS is the socket as TLS sees it: during the handshake it waits, later it does not.
type underTLS struct {
	net.Conn
	feed      feed
	streaming bool
	ended     bool // without TLS having said so
}

// Read reads from the socket.
func (u *underTLS) Read(p []byte) (n int, err error) {
	if u.streaming {
		n, err = u.feed.read(p)
	} else {
		n, err = u.Conn.Read(p)
	}
	u.ended = errors.Is(err, io.EOF)
	return n, err
}

// shake does what comes before the first message.
func (c *conn) shake() error {
	if c.s.tls == nil && c.s.cfg.Token == "" {
		return nil
	}
	_ = c.socket.SetDeadline(time.Now().Add(c.s.handshake)) // what fails here fails at the next read too
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	err := c.startTLS()
	if errors.Is(err, os.ErrDeadlineExceeded) && c.ctx.Err() == nil {
		err = ErrLate
		c.refused = ErrLate
	}
	if err != nil {
		return err
	}
	_ = c.socket.SetDeadline(time.Time{})
	return context.Cause(c.ctx) // if it ended meanwhile, its interrupt was undone by the line before
}

// startTLS shakes hands, if there is TLS, and goes on with the token.
func (c *conn) startTLS() error {
	if c.s.tls == nil {
		return c.readToken(c.socket)
	}
	under := &underTLS{Conn: c.socket, feed: c.feed}
	secure := tls.Server(under, c.s.tls)
	if err := secure.HandshakeContext(c.ctx); err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && c.ctx.Err() == nil {
			c.refused = fmt.Errorf("TLS handshake: %w", err)
		}
		return err
	}
	c.acks.mu.Lock()
	c.peer = secure
	c.acks.mu.Unlock()
	if err := c.readToken(secure); err != nil {
		return err
	}
	under.streaming = true
	c.secure, c.under = secure, under
	return nil
}

// readToken reads the first message, and what came with it.
func (c *conn) readToken(r io.Reader) error {
	if c.s.cfg.Token == "" {
		return nil
	}
	buf := make([]byte, c.s.dialect.most())
	for have := 0; ; {
		message, used, ok := c.s.dialect.first(buf[:have])
		if !ok || used == 0 && have == len(buf) || used > 0 && !same(message, c.s.cfg.Token.Reveal()) {
			c.refused = ErrToken
			return ErrToken
		}
		if used > 0 {
			c.rest = buf[used:have]
			return nil
		}
		n, err := r.Read(buf[have:])
		have += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && have > 0 {
				c.refused = ErrToken
			}
			return err
		}
	}
}

func (c *conn) refusal(err error) error {
	return &RefusedError{Source: c.s.cfg.Address, Remote: c.socket.RemoteAddr().String(), Err: err}
}

// interrupt ends what the reader waits for. Who hears a peer out after an error is left to it.
func (c *conn) interrupt() {
	c.acks.mu.Lock()
	defer c.acks.mu.Unlock()
	if !c.acks.lingers {
		_ = c.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// expire gives the connection up, for reason.
func (c *conn) expire(reason error) {
	c.cancel(reason)
	c.interrupt()
}

// hangUp closes the socket at once.
func (c *conn) hangUp() { _ = c.socket.Close() }
