package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/penstock-dev/penstock/sink"
)

// connect makes a connection where there is none, after the pause that is due.
func (s *Sink) connect(ctx context.Context) error {
	s.mu.Lock()
	if s.link != nil && s.link.broken != nil {
		_ = s.drop(s.link.broken) // its messages hear of it
	}
	connected, wait := s.link != nil, s.notBefore.Sub(s.clock.Now())
	s.mu.Unlock()
	if connected {
		return nil
	}
	if wait > 0 {
		if err := s.pause(ctx, wait); err != nil {
			return err
		}
	}
	conn, err := s.open(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		e := s.explain("connect", err)
		s.failed(e)
		return e
	}
	l := &link{conn: conn, born: s.clock.Now()}
	s.link = l
	s.begun, s.committed, s.acked, s.room = 0, 0, 0, s.cfg.MaxUnacked
	if t := s.cfg.Token.Reveal(); t != "" {
		s.buf = append(append(s.head(s.buf[:0], len(t)), t...), s.tail()...)
	}
	s.readers.Go(func() { s.read(l) })
	return nil
}

func (s *Sink) pause(ctx context.Context, d time.Duration) error {
	over := make(chan struct{})
	timer := s.clock.AfterFunc(d, func() { close(over) })
	defer timer.Stop()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open dials, and shakes hands where there is TLS.
func (s *Sink) open(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.ConnectTimeout, os.ErrDeadlineExceeded)
	defer cancel()
	conn, err := s.dial(ctx, "tcp", s.cfg.Address)
	if err != nil || s.tls == nil {
		return conn, err
	}
	c := tls.Client(conn, s.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, ignoreClosed(conn.Close()))
	}
	return c, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// read takes what the peer sends, up to the end of the connection.
func (s *Sink) read(l *link) {
	r := newReplies(l.conn, s.cfg.Frame, s.delim)
	for {
		p, err := r.next()
		var n uint64
		if err == nil {
			n, err = parseReply(p)
		}
		if !s.cfg.Acks && (err == nil || errors.Is(err, ErrProtocol)) {
			_, err = io.Copy(io.Discard, r.r) // the peer says something that is of no interest
			if err == nil {
				err = io.EOF
			}
		}
		if err == nil {
			err = s.ack(l, n)
		}
		if err != nil {
			s.lost(l, err)
			return
		}
	}
}

// ack takes the peer's word that n messages of the connection are settled.
func (s *Sink) ack(l *link, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != l {
		return nil
	}
	if n > s.begun {
		return errTooMany(n, s.begun)
	}
	if n > s.acked {
		s.acked = n
		s.settle()
	}
	return nil
}

// lost hears from the reader that the connection is of no more use.
func (s *Sink) lost(l *link, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.signal()
	if s.link != l {
		return
	}
	err := s.explain("read", cause)
	if !s.busy {
		_ = s.drop(err) // nobody is there to be told; the messages are
		return
	}
	if l.broken == nil {
		l.broken = err
	}
	l.close() // ends a write that is under way
}

// close ends the connection at once. With TLS there is no farewell, which could wait for a peer that does not read.
func (l *link) close() {
	c := l.conn
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.Close() // it is broken, or nothing is owed by it
}

// drop ends the connection, fails what is not done, and returns cause. s.mu is held, and nobody reads lent bytes.
func (s *Sink) drop(cause error) error {
	l := s.link
	l.close()
	s.link, s.buf = nil, s.buf[:0]
	if s.acked > 0 || s.clock.Now().Sub(l.born) >= s.cfg.Backoff.Max {
		s.tries = 0
	}
	owed := s.queue.n + s.gathered.n
	if owed > 0 || !s.closing {
		s.failed(cause)
	}
	if owed > 0 {
		s.failures = cause
		s.queue.done(s.queue.n, cause)
		s.gathered.done(s.gathered.n, cause)
	}
	s.signal()
	return cause
}

// tellEvery is how often failures are logged.
const tellEvery = 10 * time.Second

// failed puts off the next attempt to connect, and says why. s.mu is held.
func (s *Sink) failed(cause error) {
	now, b := s.clock.Now(), s.cfg.Backoff
	d := b.Initial
	for i := 0; i < s.tries && d < b.Max; i++ {
		d *= 2
	}
	d = min(d, b.Max)
	d -= time.Duration(s.jitter() * float64(d) / 2)
	s.tries++
	s.notBefore = now.Add(d)
	s.setStatus("retrying", cause.Error())
	if s.told.IsZero() || now.Sub(s.told) >= tellEvery {
		s.told = now
		s.slog.Warn("tcp sink: no connection; messages that are not settled come again", "error", cause,
			"messages", s.queue.n+s.gathered.n, "pause", d)
	}
}

// setStatus is called with s.mu held.
func (s *Sink) setStatus(state, detail string) {
	if s.status.State == state && s.status.Detail == detail {
		return
	}
	if s.status.State != state {
		s.status.Since = s.clock.Now()
		if state == "ok" {
			s.told = time.Time{}
			s.slog.Info("tcp sink: sending again", "address", s.cfg.Address)
		}
	}
	s.status.State, s.status.Detail = state, detail
}

func (s *Sink) explain(op string, cause error) *Error {
	e := &Error{Op: op, Address: s.cfg.Address, Err: cause}
	switch {
	case errors.Is(cause, ErrRefused):
		e.Hint = "see what the peer says; a token or a larger bound there may be missing"
	case errors.Is(cause, ErrProtocol):
		e.Hint = "acks needs a peer that answers with the number of settled messages, in the same framing; otherwise set acks: false"
	case errors.Is(cause, io.EOF):
		e.Err, e.Hint = errClosed, "see its log"
	case errors.Is(cause, os.ErrDeadlineExceeded) && op == "write":
		e.Hint = "the peer does not read; it may be overloaded, or write_timeout is too short for it"
	case op == "connect":
		e.Hint = "is it running, and the address right?"
	}
	return e
}

var errClosed = errors.New("the peer has closed the connection")

// queue is messages in order.
type queue struct {
	spans []span
	first int // of spans
	n     int // messages
}

// span is the messages lo to hi-1 of a batch.
type span struct {
	batch  *sink.Batch
	lo, hi int
}

// push appends the messages lo to hi-1 of b.
func (q *queue) push(b *sink.Batch, lo, hi int) {
	q.n += hi - lo
	if k := len(q.spans) - 1; k >= q.first && q.spans[k].batch == b && q.spans[k].hi == lo {
		q.spans[k].hi = hi
		return
	}
	if q.first > len(q.spans)/2 && len(q.spans) == cap(q.spans) { // make room rather than grow
		kept := copy(q.spans, q.spans[q.first:])
		clear(q.spans[kept:])
		q.spans, q.first = q.spans[:kept], 0
	}
	q.spans = append(q.spans, span{b, lo, hi})
}

// moveTo appends all messages to another queue.
func (q *queue) moveTo(to *queue) {
	for _, s := range q.spans[q.first:] {
		to.push(s.batch, s.lo, s.hi)
	}
	clear(q.spans)
	q.spans, q.first, q.n = q.spans[:0], 0, 0
}

// done makes the first n messages done.
func (q *queue) done(n int, err error) {
	for n > 0 {
		s := &q.spans[q.first]
		k := min(n, s.hi-s.lo)
		lo := s.lo
		s.lo, n, q.n = s.lo+k, n-k, q.n-k
		b := s.batch
		if s.lo == s.hi {
			*s = span{}
			q.first++
		}
		b.Done(lo, lo+k, err)
	}
	if q.n == 0 {
		q.spans, q.first = q.spans[:0], 0
	}
}
