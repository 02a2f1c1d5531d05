package socket

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv("SOCKET_BENCH_ADDR"); addr != "" { // this process is the producer of a benchmark
		frames, _ := strconv.Atoi(os.Getenv("SOCKET_BENCH_FRAMES"))
		sendFrames(addr, frames)
		return
	}
	if addr := os.Getenv("SOCKET_IDLE_ADDR"); addr != "" { // this process has the idle connections of a test
		n, _ := strconv.Atoi(os.Getenv("SOCKET_IDLE_COUNT"))
		size, _ := strconv.Atoi(os.Getenv("SOCKET_IDLE_SIZE"))
		beIdle(addr, n, size, os.Getenv("SOCKET_IDLE_TLS") == "true")
		return
	}
	goleak.VerifyTestMain(m)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

const patient = 10 * time.Second

// rig is a source at work, on an address of its own.
type rig struct {
	*testing.T
	src   *Source
	in    *sourcetest.Intake
	addr  string
	slab  int64 // bytes of one: a source keeps so much
	stop  context.CancelFunc
	ended chan error
}

// listening is a Listen that says where it listens.
func listening(addr chan<- string) func(ctx context.Context, network, address string) (net.Listener, error) {
	return func(ctx context.Context, network, address string) (net.Listener, error) {
		ln, err := new(net.ListenConfig).Listen(ctx, network, address)
		if err == nil {
			addr <- ln.Addr().String()
		}
		return ln, err
	}
}

// start runs a source with cfg, at an address that is free where cfg has none.
func start(t *testing.T, cfg Config, icfg sourcetest.IntakeConfig, tune ...func(s *Source)) *rig {
	t.Helper()
	if cfg.Network == "" {
		cfg.Network = "tcp"
	}
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
		if cfg.Network == "unix" {
			cfg.Address = filepath.Join(t.TempDir(), "in.sock")
		}
	}
	addr := make(chan string, 1)
	cfg.Listen = listening(addr)
	src, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(src)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{T: t, src: src, in: sourcetest.NewIntake(t, icfg), slab: 16 << 10, stop: cancel, ended: make(chan error, 1)}
	if icfg.SlabSize > 0 {
		r.slab = int64(icfg.SlabSize)
	}
	go func() {
		err := src.Run(ctx, r.in)
		r.in.Ended()
		r.ended <- err
	}()
	select {
	case r.addr = <-addr:
	case err := <-r.ended:
		t.Fatalf("Run: %v", err)
	}
	t.Cleanup(r.finish)
	return r
}

// finish stops the source as the runtime does. It may be called twice.
func (r *rig) finish() {
	if r.stop == nil {
		return
	}
	r.drain()
	r.in.Settle(r.src, source.Returned, func(sourcetest.Message) bool { return true })
	r.close()
}

// drain ends Run.
func (r *rig) drain() {
	r.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.Errorf("Run: %v", err)
		}
	case <-time.After(patient):
		r.Fatal("Run did not return")
	}
}

func (r *rig) close() {
	r.Helper()
	if err := r.src.Close(context.Background()); err != nil {
		r.Errorf("Close: %v", err)
	}
	if err := r.in.Close(); err != nil {
		r.Error(err)
	}
	if n := r.src.Connections(); n != 0 {
		r.Errorf("%d connections after Close", n)
	}
	r.stop = nil
}

// until waits for cond, which is looked at whenever the intake has heard of something, and now and then.
func (r *rig) until(what string, cond func() bool) {
	r.Helper()
	deadline := time.After(patient)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		changed := r.in.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-look.C:
		case <-deadline:
			r.Fatalf("waited for %s; %d messages, reported %v", what, r.in.Len(), r.in.Reports())
		}
	}
}

// payloads is what has been accepted, in order.
func (r *rig) payloads() (out []string) {
	for _, m := range r.in.Messages() {
		out = append(out, string(m.Payload))
	}
	return out
}

// expect waits for exactly these messages.
func (r *rig) expect(want ...string) {
	r.Helper()
	r.until(fmt.Sprintf("%d messages", len(want)), func() bool { return r.in.Len() >= len(want) })
	if got := r.payloads(); strings.Join(got, "|") != strings.Join(want, "|") {
		r.Errorf("got %.300q, want %.300q", got, want)
	}
}

// refused waits for a report that reason is behind, and returns what it says.
func (r *rig) refused(reason error) (text string) {
	r.Helper()
	var found *RefusedError
	r.until(fmt.Sprintf("a report of %q", reason), func() bool {
		for _, err := range r.in.Reports() {
			if errors.Is(err, reason) {
				errors.As(err, &found)
				return true
			}
		}
		return false
	})
	if found == nil {
		r.Fatalf("%v is reported, but as no RefusedError", reason)
	}
	return found.Error()
}

// settle settles the messages with these places in the order of arrival.
func (r *rig) settle(from, to int) {
	r.in.Settle(r.src, source.Settled, func(m sourcetest.Message) bool { return from <= m.Index && m.Index < to })
}

// client is the producer's end.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (r *rig) dial() *client {
	r.Helper()
	nc, err := net.Dial(r.src.cfg.Network, r.addr)
	if err != nil {
		r.Fatal(err)
	}
	return r.client(nc)
}

func (r *rig) client(nc net.Conn) *client {
	r.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patient))
	return &client{r.T, nc, bufio.NewReader(nc)}
}

func (c *client) send(data string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, data); err != nil {
		c.t.Errorf("sending: %v", err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Errorf("reading a line: %q, %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

// atEnd checks that nothing more comes.
func (c *client) atEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Errorf("at the end: %q, %v", rest, err)
	}
}

// halfClose says that nothing more is sent.
func (c *client) halfClose() {
	c.t.Helper()
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		c.t.Error(err)
	}
}

// count waits for an acknowledgement of n messages, and checks that counts rise.
func (c *client) count(n int) {
	c.t.Helper()
	for last := -1; last != n; {
		got, err := strconv.Atoi(c.line())
		if err != nil || got <= last || got > n {
			c.t.Fatalf("acknowledged %d after %d (%v), want %d in the end", got, last, err, n)
		}
		last = got
	}
}

// framed is messages in a framing.
func framed(framing string, messages ...string) string {
	d, err := newDialect(framing, "")
	if err != nil {
		panic(err)
	}
	var out []byte
	for _, m := range messages {
		out = d.appendFrame(out, []byte(m))
	}
	return string(out)
}

// producer is a Fixture: who connects to each source that is opened, and sends all that has been put. With acks it does not send again
// what has been acknowledged, as a producer would that keeps count.
type producer struct {
	cfg Config

	mu    sync.Mutex
	more  *sync.Cond
	put   [][]byte
	acked int
	left  chan struct{} // closed when the connection before has ended
}

func newProducer(t testing.TB, cfg Config) *producer {
	p := &producer{cfg: cfg, left: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	close(p.left)
	if cfg.Network == "unix" {
		p.cfg.Address = filepath.Join(t.TempDir(), "in.sock")
	} else {
		p.cfg.Address = "127.0.0.1:0"
	}
	return p
}

func (p *producer) Put(_ testing.TB, messages [][]byte) {
	p.mu.Lock()
	p.put = append(p.put, messages...)
	p.mu.Unlock()
	p.more.Broadcast()
}

func (p *producer) Open(t testing.TB) source.Source {
	<-p.left
	p.left = make(chan struct{})
	addr := make(chan string, 1)
	cfg := p.cfg
	cfg.Listen = listening(addr)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	go p.produce(t, addr, p.left)
	return s
}

func (p *producer) produce(t testing.TB, addr <-chan string, left chan<- struct{}) {
	defer close(left)
	nc, err := net.Dial(p.cfg.Network, <-addr)
	if err != nil { // an exam may end before it has begun
		return
	}
	gone := false
	go func() {
		defer nc.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for next := p.acked; !gone; next++ {
			for next == len(p.put) && !gone {
				p.more.Wait()
			}
			if gone {
				return
			}
			data := framed(p.cfg.Framing, string(p.put[next]))
			p.mu.Unlock()
			_, err := io.WriteString(nc, data)
			p.mu.Lock()
			if err != nil {
				return
			}
		}
	}()
	p.mu.Lock()
	from := p.acked
	p.mu.Unlock()
	r := bufio.NewReader(nc)
	for {
		text, err := readFrame(r, p.cfg.Framing)
		p.mu.Lock()
		if err != nil {
			gone = true
			p.mu.Unlock()
			p.more.Broadcast()
			return
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Errorf("an acknowledgement says %q", text)
		}
		p.acked = from + n
		p.mu.Unlock()
	}
}

func readFrame(r *bufio.Reader, framing string) (string, error) {
	n := uint64(0)
	var err error
	switch framing {
	case "u32":
		var prefix [4]byte
		_, err = io.ReadFull(r, prefix[:])
		n = uint64(binary.BigEndian.Uint32(prefix[:]))
	case "varint":
		n, err = binary.ReadUvarint(r)
	default:
		s, err := r.ReadString('\n')
		return strings.TrimSuffix(s, "\n"), err
	}
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return string(text), err
}

const frameSize = 1 << 10 // of a benchmark

// sendFrames is the producer: a process of its own, so that its time is not ours.
func sendFrames(addr string, frames int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		panic(err)
	}
	buf := make([]byte, 0, 64*(frameSize+4))
	for range 64 {
		buf = binary.BigEndian.AppendUint32(buf, frameSize)
		buf = append(buf, make([]byte, frameSize)...)
	}
	for frames > 0 {
		n := min(frames, 64)
		if _, err := c.Write(buf[:n*(frameSize+4)]); err != nil {
			panic(err)
		}
		frames -= n
	}
	_ = c.Close()
}

var errKey = errors.New("the key function misbehaves")

// failing is an Intake that takes no batch.
type failing struct{ *sourcetest.Intake }

func (f failing) Accept(b *arena.Batch) error {
	b.Free()
	return errKey
}

// hidingProducer is a producer whose connections the source cannot ask whether there is something.
type hidingProducer struct{ *producer }

func (p *hidingProducer) Open(t testing.TB) source.Source {
	s := p.producer.Open(t).(*Source)
	open := s.cfg.Listen
	s.cfg.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
		ln, err := open(ctx, network, address)
		return hiding{ln}, err
	}
	return s
}

// beIdle opens n connections, sends one message on each, and keeps them until the input ends.
func beIdle(addr string, n, size int, secure bool) {
	message := []byte(strings.Repeat("x", size-1) + "\n")
	conns := make([]net.Conn, n)
	for i := range conns {
		var err error
		if secure {
			conns[i], err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		} else {
			conns[i], err = net.Dial("tcp", addr)
		}
		if err != nil {
			panic(err)
		}
		if _, err := conns[i].Write(message); err != nil {
			panic(err)
		}
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until it ends
	runtime.KeepAlive(conns)
}
