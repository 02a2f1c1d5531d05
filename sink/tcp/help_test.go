package tcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/sink/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cut takes the first message off data; ok is false if it is not whole.
func cut(cfg *Config, data []byte) (msg, rest []byte, ok bool) {
	switch cfg.Frame {
	case Lines:
		return bytes.Cut(data, []byte(cfg.Delimiter))
	case U32:
		if len(data) < 4 || len(data)-4 < int(binary.BigEndian.Uint32(data)) {
			return nil, data, false
		}
		end := 4 + int(binary.BigEndian.Uint32(data))
		return data[4:end], data[end:], true
	default:
		n, size := binary.Uvarint(data)
		if size <= 0 || len(data)-size < int(n) {
			return nil, data, false
		}
		return data[size : size+int(n)], data[size+int(n):], true
	}
}

// framed is a message with what stands before or behind it.
func framed(cfg *Config, p string) []byte {
	s := &Sink{cfg: *cfg, delim: []byte(cfg.Delimiter)}
	return append(append(s.head(nil, len(p)), p...), s.tail()...)
}

// store is a peer that keeps what arrives, and acknowledges it where the sink wants that.
type store struct {
	cfg  Config
	ln   net.Listener
	done sync.WaitGroup

	mu    sync.Mutex
	more  sync.Cond
	conns map[net.Conn]bool
	msgs  []sinktest.Message
	raw   int // bytes that have arrived
	sent  int // bytes that were sent, as the sink's side knows
	room  int // of the peer, or of the way to it; negative: no end
}

func newStore(t *testing.T, cfg Config) *store {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	st := &store{cfg: cfg, ln: ln, room: -1, conns: map[net.Conn]bool{}}
	st.more.L = &st.mu
	st.cfg.Address = ln.Addr().String()
	st.done.Go(st.serve)
	t.Cleanup(func() {
		ln.Close()
		st.mu.Lock()
		for c := range st.conns {
			c.Close()
		}
		st.mu.Unlock()
		st.done.Wait()
	})
	return st
}

func (st *store) serve() {
	for {
		conn, err := st.ln.Accept()
		if err != nil {
			return
		}
		st.mu.Lock()
		st.conns[conn] = true
		st.mu.Unlock()
		st.done.Go(func() {
			defer conn.Close()
			st.take(conn)
		})
	}
}

func (st *store) take(conn net.Conn) {
	var data []byte
	tmp := make([]byte, 32<<10)
	for n := 0; ; {
		k, err := conn.Read(tmp)
		data = append(data, tmp[:k]...)
		before := n
		st.mu.Lock()
		st.raw += k
		full := false
		for !full {
			msg, rest, ok := cut(&st.cfg, data)
			if !ok {
				break
			}
			if st.cfg.Acks && st.room >= 0 {
				if full = len(msg) > st.room || st.room == 0; full {
					break
				}
				st.room -= len(msg)
			}
			st.msgs = append(st.msgs, sinktest.Message{Payload: bytes.Clone(msg)})
			data, n = bytes.Clone(rest), n+1
		}
		st.more.Broadcast()
		st.mu.Unlock()
		if st.cfg.Acks && n > before {
			if _, err := conn.Write(framed(&st.cfg, fmt.Sprint(n))); err != nil {
				return
			}
		}
		if err != nil || full {
			return
		}
	}
}

// read is what has arrived, once all that was sent has.
func (st *store) read() ([]sinktest.Message, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for !st.cfg.Acks && st.raw < st.sent {
		st.more.Wait()
	}
	return bytesClone(st.msgs), nil
}

func bytesClone(in []sinktest.Message) []sinktest.Message {
	return append([]sinktest.Message(nil), in...)
}

func (st *store) set(room int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.room = room
}

// dial counts what is sent, and fails when there is no room.
func (st *store) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil || st.cfg.Acks {
		return conn, err
	}
	return &counted{conn, st}, nil
}

// counted hides that its connection can write several pieces at once, so that all go through Write.
type counted struct {
	net.Conn
	st *store
}

// void is a connection to nowhere, which allocates nothing.
type void struct {
	net.Conn
	over chan struct{}
}

func (*void) Write(p []byte) (int, error)      { return len(p), nil }
func (*void) SetWriteDeadline(time.Time) error { return nil }

func (v *void) Read([]byte) (int, error) {
	<-v.over
	return 0, io.EOF
}

// CloseWrite is answered like by a peer that closes then.
func (v *void) CloseWrite() error {
	close(v.over)
	return nil
}

func (*void) Close() error { return nil }

func (c *counted) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c *counted) Write(p []byte) (int, error) {
	c.st.mu.Lock()
	n := len(p)
	if c.st.room >= 0 {
		n = min(n, c.st.room)
		c.st.room -= n
	}
	c.st.sent += n
	c.st.mu.Unlock()
	k, err := c.Conn.Write(p[:n])
	if err == nil && k < len(p) {
		err = syscall.ECONNRESET
	}
	return k, err
}

// lender lends batches, and says what became of their messages.
type lender struct {
	t       testing.TB
	arena   *arena.Arena
	account *arena.Account
	fates   chan fate
}

type fate struct {
	payload string
	err     error
}

func newLender(t testing.TB) *lender {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: 128 << 20, SlabSize: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	acc, err := a.Account(arena.Sources, "test", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &lender{t: t, arena: a, account: acc, fates: make(chan fate, 100_000)}
}

func (l *lender) memory(payloads ...string) *arena.Batch {
	l.t.Helper()
	slab, err := l.account.Lease()
	if err != nil {
		l.t.Fatal(err)
	}
	b := l.arena.NewBatch()
	b.Slab = slab
	off := 0
	for _, p := range payloads {
		b.Frames = append(b.Frames, arena.Frame{Off: uint32(off), Len: uint32(len(p))})
		off += copy(slab.Bytes()[off:], p)
	}
	return b
}

func (l *lender) lend(payloads ...string) *sink.Batch {
	l.t.Helper()
	b := l.memory(payloads...)
	left := len(payloads)
	return sink.NewBatch(b, nil, "s", func(_ *sink.Batch, i int, err error) {
		p := payloads[i]
		for j := range int(b.Frames[i].Len) { // from now on the bytes are somebody else's
			b.Payload(i)[j] = 0xDB
		}
		if left--; left == 0 {
			b.Free()
		}
		l.fates <- fate{p, err}
	})
}

// write is Write as the runtime does it.
func (l *lender) write(ctx context.Context, s sink.Sink, payloads ...string) error {
	b := l.lend(payloads...)
	err := s.Write(ctx, b)
	if err != nil {
		b.Fail(err)
	}
	return err
}

// next waits for the fates of n messages.
func (l *lender) next(n int) map[string]error {
	out := map[string]error{}
	for range n {
		f := <-l.fates
		out[f.payload] = f.err
	}
	return out
}

// none fails if a message's fate is known.
func (l *lender) none() {
	l.t.Helper()
	select {
	case f := <-l.fates:
		l.t.Errorf("%.40q is done already: %v", f.payload, f.err)
	default:
	}
}

func (l *lender) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// hand is a peer that is driven by the test.
type hand struct {
	t    testing.TB
	cfg  *Config
	ln   net.Listener
	conn net.Conn
	data []byte
}

func newHand(t testing.TB, cfg *Config) *hand {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Address = ln.Addr().String()
	h := &hand{t: t, cfg: cfg, ln: ln}
	t.Cleanup(func() {
		ln.Close()
		if h.conn != nil {
			h.conn.Close()
		}
	})
	return h
}

func (h *hand) accept() {
	h.t.Helper()
	if h.conn != nil {
		h.conn.Close()
	}
	var err error
	if h.conn, err = h.ln.Accept(); err != nil {
		h.t.Fatal(err)
	}
	h.data = nil
}

// wants reads messages.
func (h *hand) wants(want ...string) {
	h.t.Helper()
	for _, w := range want {
		for {
			msg, rest, ok := cut(h.cfg, h.data)
			if ok {
				h.data = rest
				if string(msg) != w {
					h.t.Errorf("the peer reads %.40q, want %.40q", msg, w)
				}
				break
			}
			tmp := make([]byte, 64<<10)
			n, err := h.conn.Read(tmp)
			if err != nil {
				h.t.Fatalf("the peer waits for %.40q: %v", w, err)
			}
			h.data = append(h.data, tmp[:n]...)
		}
	}
}

func (h *hand) says(p string) {
	h.t.Helper()
	if _, err := h.conn.Write(framed(h.cfg, p)); err != nil {
		h.t.Fatal(err)
	}
}

func opened(t testing.TB, cfg Config, env sink.Env) *Sink {
	t.Helper()
	s, err := New(cfg)
	if err == nil {
		err = s.Open(t.Context(), env)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = errors.Join(s.Close(ctx))
	})
	return s
}
