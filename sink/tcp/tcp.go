// Package tcp is the sink that sends messages over a TCP connection.
//
//	messages ──> buffer ───────write(2)──> peer     small ones are gathered
//	         └─────────large──writev(2)──>          large ones go from where they lie
//	settle  <──────────────── "17" "42" ───         with acks: how many of this connection are settled
//
// Without acks a message is done when the operating system has taken it. With acks it is done when the peer has said so. When the
// connection breaks, all messages that are not done fail and come again; the next Write connects again, after a pause.
//
// Locks: Sink.mu guards what the connection's reader and the sink's caller share. It is held while messages are made done, never during
// input or output. While a call of Write or Flush is under way (busy) the reader settles nothing that is being written, and leaves it to
// the call to fail what a broken connection owes: the call may be reading lent bytes.
package tcp

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
)

const bufferSize = 64 << 10

// dialer makes connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Sink sends to one address. Its methods are called one at a time, as [sink.Sink] says; Status may be called at any time.
type Sink struct {
	cfg    Config
	tls    *tls.Config
	delim  []byte
	dial   dialer
	clock  clock.Clock
	slog   *slog.Logger
	jitter func() float64

	buf      []byte // frames that are not written; its capacity is fixed
	gathered queue  // the messages in buf
	room     int    // how many more messages may be sent, as seen last
	vec      [3][]byte
	out      net.Buffers // vec, as far as it is not written
	readers  sync.WaitGroup
	moved    chan struct{} // something was settled, or the connection is gone

	mu        sync.Mutex
	link      *link  // nil: not connected
	busy      bool   // a call of Write or Flush is under way: buf, gathered and lent bytes are its own
	call      uint64 // its number
	closing   bool
	queue     queue  // the messages of the connection whose write has begun and that are not done, in order
	begun     uint64 // messages of the connection: whose write has begun,
	committed uint64 // whose write has ended,
	acked     uint64 // that the peer has settled
	tries     int    // connections in a row that were good for nothing
	notBefore time.Time
	told      time.Time // when a failure was logged last
	status    sink.Status
	failures  error // the last one that messages failed with
}

// link is one connection.
type link struct {
	conn   net.Conn
	born   time.Time
	broken error // why it is of no more use, while somebody is busy with it
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Reporter = (*Sink)(nil)
)

// New makes a sink; it connects with the first message. It fails if cfg makes no sense.
func New(cfg Config) (*Sink, error) {
	var d net.Dialer
	return newSink(cfg, d.DialContext)
}

func newSink(cfg Config, dial dialer) (*Sink, error) {
	if err := kindError(cfg.Check()); err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, delim: []byte(cfg.Delimiter), dial: dial, jitter: rand.Float64, moved: make(chan struct{}, 1)}, nil
}

// kindError makes one error of problems.
func kindError(problems []kind.Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = errors.New(p.Message)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tcp sink: config: %w", err)
	}
	return nil
}

// Open loads the certificates. It does not connect: a pipeline starts while the peer is down.
func (s *Sink) Open(_ context.Context, env sink.Env) error {
	s.clock, s.slog = env.Clock, env.Logger
	if s.clock == nil {
		s.clock = clock.System{}
	}
	if s.slog == nil {
		s.slog = slog.New(slog.DiscardHandler)
	}
	s.slog = s.slog.With("sink", env.Name)
	var err error
	if s.tls, err = s.cfg.TLS.Config(); err != nil {
		return fmt.Errorf("tcp sink: %w", err)
	}
	if s.tls != nil && s.tls.ServerName == "" {
		s.tls.ServerName, _, _ = net.SplitHostPort(s.cfg.Address)
	}
	s.buf = make([]byte, 0, bufferSize)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = sink.Status{State: "ok", Since: s.clock.Now()}
	return nil
}

// Status is "ok", or "retrying" from a failure up to the next sign of life.
func (s *Sink) Status() sink.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Write sends the messages of b, or gathers them for Flush. It waits while the peer does not read, while too many messages are not
// acknowledged, and before it connects again. It fails with an [Error], and has then settled all messages that were given before.
func (s *Sink) Write(ctx context.Context, b *sink.Batch) error {
	defer s.enter(ctx)()
	if err := s.connect(ctx); err != nil {
		return err
	}
	for i := range b.Len() {
		p := b.Payload(i)
		if s.cfg.contains(p, s.delim) {
			b.Done(i, i+1, plugin.Reject(ErrDelimiter))
			continue
		}
		if m := int(s.cfg.MaxMessage); m > 0 && len(p) > m {
			b.Done(i, i+1, plugin.Reject(fmt.Errorf("%w: %d bytes, of at most %d", ErrTooLarge, len(p), m)))
			continue
		}
		if s.cfg.Acks && s.room == 0 {
			if err := s.drain(ctx); err != nil {
				return err
			}
			if err := s.await(ctx); err != nil {
				b.Done(i, b.Len(), err) // those before it are on their way
				return nil
			}
			if err := s.connect(ctx); err != nil { // it may have broken
				return err
			}
		}
		s.room--
		if err := s.put(ctx, b, i, p); err != nil {
			return err
		}
	}
	return nil
}

// Flush sends what was gathered. With acks, messages may be done later.
func (s *Sink) Flush(ctx context.Context) error {
	defer s.enter(ctx)()
	return s.drain(ctx)
}

// enter begins a call that writes; what it returns ends it. When ctx ends, so does a write that is under way.
func (s *Sink) enter(ctx context.Context) (leave func()) {
	s.mu.Lock()
	s.busy = true
	s.call++
	call := s.call
	s.room = s.cfg.MaxUnacked - s.queue.n - s.gathered.n
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { s.interrupt(call) })
	return func() {
		stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy = false
		if s.link != nil && s.link.broken != nil {
			_ = s.drop(s.link.broken) // its messages hear of it
		}
	}
}

func (s *Sink) interrupt(call uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil && s.busy && s.call == call {
		_ = s.link.conn.SetWriteDeadline(time.Unix(1, 0)) // a connection that refuses is broken, and the write ends
	}
}

// await waits until there is room for another message that is not acknowledged, or no connection. It fails when ctx ends.
func (s *Sink) await(ctx context.Context) error {
	for {
		s.mu.Lock()
		s.room = s.cfg.MaxUnacked - s.queue.n
		broken := s.link.broken != nil
		s.mu.Unlock()
		if s.room > 0 || broken {
			return nil
		}
		select {
		case <-s.moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put appends message i of b, by way of the buffer or around it.
func (s *Sink) put(ctx context.Context, b *sink.Batch, i int, p []byte) error {
	need := len(p) + max(len(s.delim), binary.MaxVarintLen64)
	large := need > cap(s.buf)/4
	if len(s.buf)+binary.MaxVarintLen64 > cap(s.buf) || !large && len(s.buf)+need > cap(s.buf) {
		if err := s.drain(ctx); err != nil {
			return err
		}
	}
	s.gathered.push(b, i, i+1)
	s.buf = s.head(s.buf, len(p))
	if large {
		return s.send(ctx, s.buf, p, s.tail())
	}
	s.buf = append(append(s.buf, p...), s.tail()...)
	return nil
}

// head appends what stands before a message of n bytes.
func (s *Sink) head(buf []byte, n int) []byte {
	switch s.cfg.Frame {
	case U32:
		return binary.BigEndian.AppendUint32(buf, uint32(n))
	case Varint:
		return binary.AppendUvarint(buf, uint64(n))
	default:
		return buf
	}
}

// tail is what stands behind a message.
func (s *Sink) tail() []byte {
	if s.cfg.Frame == Lines {
		return s.delim
	}
	return nil
}

// drain writes the buffer out.
func (s *Sink) drain(ctx context.Context) error {
	if len(s.buf) == 0 {
		return nil
	}
	return s.send(ctx, s.buf, nil, nil)
}

// send writes up to three pieces, and empties the buffer. When it fails, the connection has been dropped.
func (s *Sink) send(ctx context.Context, pieces ...[]byte) error {
	s.mu.Lock()
	l := s.link
	if l.broken != nil {
		defer s.mu.Unlock()
		return s.drop(l.broken)
	}
	s.begun += uint64(s.gathered.n)
	s.gathered.moveTo(&s.queue)
	s.mu.Unlock()
	err := l.conn.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)) // connections know the system's clock only
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
	case len(pieces[1]) == 0:
		_, err = l.conn.Write(pieces[0])
	default:
		s.out = append(s.vec[:0], pieces...)
		_, err = s.out.WriteTo(l.conn)
		clear(s.vec[:]) // let go of lent bytes
	}
	s.buf = s.buf[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.committed = s.begun
		s.settle()
		return nil
	}
	if l.broken != nil {
		return s.drop(l.broken)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return s.drop(s.explain("write", err))
}

// settle makes done what the peer has, as far as nobody reads its bytes any more. s.mu is held.
func (s *Sink) settle() {
	upTo := s.committed
	if s.cfg.Acks {
		upTo = min(upTo, s.acked)
	}
	settled := s.begun - uint64(s.queue.n)
	if upTo > settled {
		s.queue.done(int(upTo-settled), nil)
		s.setStatus("ok", "")
		s.signal()
	}
}

func (s *Sink) signal() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// Close sends what was gathered, waits within ctx for what is not acknowledged, and closes the connection. It fails with an [Error] if
// messages failed.
func (s *Sink) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing, s.failures = true, nil
	s.mu.Unlock()
	err := s.Flush(ctx)
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		s.farewell(ctx, l)
	}
	s.readers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = false
	if s.failures != nil {
		return s.failures
	}
	return err
}

// linger is how long a peer that acknowledges nothing may take to read the rest and close: closing before it has might throw away what
// is on the way.
const linger = time.Second

// farewell ends a connection in order.
func (s *Sink) farewell(ctx context.Context, l *link) {
	if half, ok := l.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // a connection that refuses is broken, and its reader says so
	}
	late := make(chan struct{})
	if !s.cfg.Acks {
		timer := s.clock.AfterFunc(linger, func() { close(late) })
		defer timer.Stop()
	}
	for {
		s.mu.Lock()
		over := s.link == nil || s.cfg.Acks && s.queue.n == 0
		s.mu.Unlock()
		if !over {
			select {
			case <-s.moved:
				continue
			case <-late:
			case <-ctx.Done():
			}
		}
		break
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		err := error(&Error{Op: "read", Address: s.cfg.Address, Err: errNoAck})
		_ = s.drop(err) // what it fails is in failures
	}
}

var errNoAck = errors.New("closed before the peer acknowledged everything")
