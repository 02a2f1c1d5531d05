package tcp

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/sink/sinktest"
)

func quick(frame Framing, acks bool) Config {
	cfg := Defaults()
	cfg.Frame, cfg.Acks = frame, acks
	cfg.Backoff = Backoff{Initial: time.Millisecond, Max: 2 * time.Millisecond}
	return cfg
}

// The tcp sink sits the exam of all sinks, in each framing, with acknowledgements and without.
func TestConformance(t *testing.T) {
	for _, frame := range []Framing{Lines, U32, Varint} {
		for _, acks := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s acks %v", frame, acks), func(t *testing.T) {
				sinktest.Run(t, func(t *testing.T) sinktest.Fixture {
					st := newStore(t, quick(frame, acks))
					return sinktest.Fixture{
						New:      func() (sink.Sink, error) { return newSink(st.cfg, st.dial) },
						Read:     st.read,
						Break:    st.set,
						Mend:     func() { st.set(-1) },
						Promises: sinktest.Promises{Binary: frame != Lines, Keeps: true},
					}
				})
			})
		}
	}
}

// Promise: with acks a message is done when the peer's count covers it, whatever order the counts come in, and not before.
func TestAcks(t *testing.T) {
	for _, frame := range []Framing{Lines, U32, Varint} {
		t.Run(string(frame), func(t *testing.T) {
			cfg := quick(frame, true)
			h, l := newHand(t, &cfg), newLender(t)
			s := opened(t, cfg, sink.Env{})
			l.must(l.write(t.Context(), s, "a", "b", "c"))
			l.must(l.write(t.Context(), s, "d", strings.Repeat("e", 100_000)))
			l.must(s.Flush(t.Context()))
			h.accept()
			h.wants("a", "b", "c", "d", strings.Repeat("e", 100_000))
			l.none()
			h.says("2")
			if f := l.next(2); f["a"] != nil || f["b"] != nil || len(f) != 2 {
				t.Errorf("after 2: %v", f)
			}
			h.says("1")
			h.says("2")
			h.says("4")
			if f := l.next(2); f["c"] != nil || f["d"] != nil || len(f) != 2 {
				t.Errorf("after 4: %v", f)
			}
			l.none()
			h.says("5")
			l.next(1)
			l.must(s.Close(t.Context()))
		})
	}
}

// Promise: a peer that says something else than it should, or leaves, fails what is not acknowledged; the next Write connects again.
func TestPeersThatMisbehave(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(h *hand)
		is   error
		says string
	}{
		{"more than was sent", func(h *hand) { h.says("4") }, ErrProtocol, "4 messages settled, of 3"},
		{"no number", func(h *hand) { h.says("ok") }, ErrProtocol, `"ok" is no number`},
		{"negative", func(h *hand) { h.says("-1") }, ErrProtocol, "no number"},
		{"empty", func(h *hand) { h.says("") }, ErrProtocol, "no number"},
		{"endless", func(h *hand) { h.says(strings.Repeat("1", maxReply+1)) }, ErrProtocol, "a message of"},
		{"refuses", func(h *hand) { h.says("error: no such stream") }, ErrRefused, "no such stream"},
		{"closes", func(h *hand) { h.conn.Close() }, nil, "closed the connection"},
		{"resets", func(h *hand) {
			_ = h.conn.(*net.TCPConn).SetLinger(0)
			h.conn.Close()
		}, nil, "reset"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := quick(U32, true)
			h, l := newHand(t, &cfg), newLender(t)
			s := opened(t, cfg, sink.Env{})
			l.must(l.write(t.Context(), s, "a", "b", "c"))
			l.must(s.Flush(t.Context()))
			h.accept()
			h.wants("a", "b", "c")
			h.says("1")
			l.next(1)
			tc.do(h)
			for p, err := range l.next(2) {
				var e *Error
				if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.says) || tc.is != nil && !errors.Is(err, tc.is) {
					t.Errorf("%s: %v, want %v, %q", p, err, tc.is, tc.says)
				}
			}
			if st := s.Status(); st.State != "retrying" || !strings.Contains(st.Detail, tc.says) {
				t.Errorf("status %+v", st)
			}
			l.must(l.write(t.Context(), s, "b", "c"))
			l.must(s.Flush(t.Context()))
			h.accept()
			h.wants("b", "c")
			h.says("2")
			l.next(2)
			if st := s.Status(); st.State != "ok" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// Promise: no more than max_unacked messages wait for the peer; a Write that waits ends with its context, and fails only what was not sent.
func TestMaxUnacked(t *testing.T) {
	cfg := quick(Lines, true)
	cfg.MaxUnacked = 3
	h, l := newHand(t, &cfg), newLender(t)
	s := opened(t, cfg, sink.Env{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.write(ctx, s, "a", "b", "c", "d", "e") }()
	h.accept()
	h.wants("a", "b", "c")
	h.says("1")
	h.wants("d")
	l.next(1)
	cancel()
	l.must(<-ended)
	if f := l.next(1); !errors.Is(f["e"], context.Canceled) {
		t.Errorf("not sent: %v", f)
	}
	h.says("4")
	for p, err := range l.next(3) {
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Promise: Close waits for the peer, but not longer than its context.
func TestCloseWaitsForAcks(t *testing.T) {
	cfg := quick(Varint, true)
	h, l := newHand(t, &cfg), newLender(t)
	s := opened(t, cfg, sink.Env{})
	l.must(l.write(t.Context(), s, "a", "b"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Close(ctx) }()
	h.accept()
	h.wants("a", "b")
	h.says("1")
	l.next(1)
	cancel()
	if err := <-ended; !errors.Is(err, errNoAck) {
		t.Errorf("Close: %v", err)
	}
	if f := l.next(1); !errors.Is(f["b"], errNoAck) {
		t.Errorf("fate: %v", f)
	}
}

// Promise: the token goes first, counts for nothing, and is never shown.
func TestToken(t *testing.T) {
	cfg := quick(U32, true)
	cfg.Token = "open sesame"
	h, l := newHand(t, &cfg), newLender(t)
	s := opened(t, cfg, sink.Env{})
	l.must(l.write(t.Context(), s, "a"))
	l.must(s.Flush(t.Context()))
	h.accept()
	h.wants("open sesame", "a")
	h.says("1")
	l.next(1)
	l.must(l.write(t.Context(), s, "b"))
	l.must(s.Flush(t.Context()))
	h.wants("b")
	h.says("error: wrong token")
	if f := l.next(1); !errors.Is(f["b"], ErrRefused) || strings.Contains(f["b"].Error(), "sesame") {
		t.Errorf("fate: %v", f)
	}
}

// Promise: between attempts to connect there are growing pauses, on the clock that the sink is given, and a context ends them.
func TestBackoff(t *testing.T) {
	cfg := quick(Lines, false)
	cfg.Address, cfg.Backoff = "127.0.0.1:1", Backoff{Initial: time.Second, Max: 5 * time.Second}
	dials := make(chan struct{}, 1)
	s, err := newSink(cfg, func(context.Context, string, string) (net.Conn, error) {
		dials <- struct{}{}
		return nil, errors.New("nobody there")
	})
	l := newLender(t)
	l.must(err)
	s.jitter = func() float64 { return 0 }
	c := clock.NewManual(time.Unix(1e9, 0))
	l.must(s.Open(t.Context(), sink.Env{Clock: c}))
	for _, pause := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		ended := make(chan error)
		go func() { ended <- l.write(t.Context(), s, "a") }()
		if pause > 0 {
			for _, ok := c.Next(); !ok; _, ok = c.Next() {
			}
			c.Advance(pause - 1)
			select {
			case <-dials:
				t.Fatalf("dialled before %v were over", pause)
			default:
			}
			c.Advance(1)
		}
		<-dials
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "nobody there") || !strings.Contains(err.Error(), "is it running") {
			t.Fatalf("Write: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.write(ctx, s, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Write in a pause, its context over: %v", err)
	}
	l.must(s.Close(t.Context()))
}

// Promise: a peer that does not read holds a Write no longer than write_timeout, or than its context.
func TestPeerThatDoesNotRead(t *testing.T) {
	for _, by := range []string{"timeout", "context"} {
		t.Run(by, func(t *testing.T) {
			cfg := quick(U32, true)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if by == "timeout" {
				cfg.WriteTimeout = 20 * time.Millisecond
			}
			h, l := newHand(t, &cfg), newLender(t)
			s := opened(t, cfg, sink.Env{})
			large := strings.Repeat("x", 1<<20)
			sent := make(chan error)
			go func() {
				for {
					if err := l.write(ctx, s, large); err != nil {
						sent <- err
						return
					}
				}
			}()
			h.accept()
			want := os.ErrDeadlineExceeded
			if by == "context" {
				_, _ = h.conn.Read(make([]byte, 1)) // something is on its way
				cancel()
				want = context.Canceled
			}
			if err := <-sent; !errors.Is(err, want) {
				t.Errorf("Write: %v, want %v", err, want)
			}
		})
	}
}

// Promise: with frame lines a message that contains the delimiter is rejected, alone.
func TestDelimiterInAMessage(t *testing.T) {
	cfg := quick(Lines, false)
	h, l := newHand(t, &cfg), newLender(t)
	s := opened(t, cfg, sink.Env{})
	l.must(l.write(t.Context(), s, "a", "b\nc", "d"))
	l.must(s.Flush(t.Context()))
	h.accept()
	h.wants("a", "d")
	f := l.next(3)
	if k, _ := plugin.Classify(f["b\nc"]); k != plugin.KindReject || !errors.Is(f["b\nc"], ErrDelimiter) || f["a"] != nil || f["d"] != nil {
		t.Errorf("fates: %v", f)
	}
}

// Promise: a message that the peer does not take is rejected, alone.
func TestMaxMessage(t *testing.T) {
	cfg := quick(U32, false)
	cfg.MaxMessage = 5
	h, l := newHand(t, &cfg), newLender(t)
	s := opened(t, cfg, sink.Env{})
	l.must(l.write(t.Context(), s, "12345", "123456", "1"))
	l.must(s.Flush(t.Context()))
	h.accept()
	h.wants("12345", "1")
	f := l.next(3)
	if k, _ := plugin.Classify(f["123456"]); k != plugin.KindReject || !errors.Is(f["123456"], ErrTooLarge) || f["12345"] != nil || f["1"] != nil {
		t.Errorf("fates: %v", f)
	}
}

// Without acks what the peer says is of no interest, unless it refuses.
func TestChattyPeerWithoutAcks(t *testing.T) {
	cfg := quick(Lines, false)
	h, l := newHand(t, &cfg), newLender(t)
	s := opened(t, cfg, sink.Env{})
	l.must(l.write(t.Context(), s, "a"))
	l.must(s.Flush(t.Context()))
	h.accept()
	h.wants("a")
	h.says("hello")
	h.says(strings.Repeat("x", 100_000))
	l.must(l.write(t.Context(), s, "b"))
	l.must(s.Flush(t.Context()))
	h.wants("b")
	for p, err := range l.next(2) {
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	ended := make(chan error)
	go func() { ended <- s.Close(t.Context()) }()
	if n, err := h.conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after Close the peer reads %d bytes, %v", n, err)
	}
	h.conn.Close()
	l.must(<-ended)
}

// TLS: the peer's certificate is checked.
func TestTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // it brings a certificate for 127.0.0.1
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, trusted := range []bool{true, false} {
		cfg := quick(U32, true)
		h, l := newHand(t, &cfg), newLender(t)
		h.ln = tls.NewListener(h.ln, &tls.Config{Certificates: web.TLS.Certificates})
		cfg.TLS = &kind.ClientTLS{}
		if trusted {
			cfg.TLS.CA = ca
		}
		s := opened(t, cfg, sink.Env{})
		ended := make(chan error)
		go func() {
			ended <- errors.Join(l.write(t.Context(), s, "a", strings.Repeat("b", 1<<20)), s.Flush(t.Context()))
		}()
		h.accept()
		if !trusted {
			_, _ = h.conn.Read(make([]byte, 1)) // shakes hands
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("Write to a stranger: %v", err)
			}
			continue
		}
		h.wants("a", strings.Repeat("b", 1<<20))
		l.must(<-ended)
		l.none()
		h.says("2")
		l.next(2)
		l.must(s.Close(t.Context()))
	}
}

func TestSettingsAreChecked(t *testing.T) {
	good := Defaults()
	good.Address = "localhost:9000"
	if p := good.Check(); len(p) > 0 {
		t.Fatalf("problems: %v", p)
	}
	for field, spoil := range map[string]func(c *Config){
		"address":         func(c *Config) { c.Address = "localhost" },
		"frame":           func(c *Config) { c.Frame = "whole" },
		"delimiter":       func(c *Config) { c.Delimiter = "" },
		"token":           func(c *Config) { c.Token = "a\nb" },
		"max_message":     func(c *Config) { c.MaxMessage = -1 },
		"max_unacked":     func(c *Config) { c.MaxUnacked = 0 },
		"connect_timeout": func(c *Config) { c.ConnectTimeout = 0 },
		"write_timeout":   func(c *Config) { c.WriteTimeout = -1 },
		"backoff.initial": func(c *Config) { c.Backoff.Initial = 0 },
		"backoff.max":     func(c *Config) { c.Backoff.Max = 1 },
	} {
		c := good
		spoil(&c)
		if p := c.Check(); len(p) != 1 || p[0].Field != field {
			t.Errorf("%s: problems %v", field, p)
		}
		if _, err := New(c); err == nil {
			t.Errorf("%s: New succeeds", field)
		}
	}
	k := Kind()
	if _, err := k.NewSink(good, kind.Env{}); err != nil {
		t.Error(err)
	}
}

// FuzzReplies reads what a peer may send: whatever it is, the memory for it is bounded, and what it ends with is an error.
func FuzzReplies(f *testing.F) {
	for i := range byte(3) {
		f.Add([]byte("1\n22\r\nerror: no\n"), i)
		f.Add([]byte("\x00\x00\x00\x011\x00\x00\x00\x0222"), i)
		f.Add([]byte("\x011\x0222\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), i)
	}
	f.Fuzz(func(t *testing.T, data []byte, which byte) {
		frame := []Framing{Lines, U32, Varint}[which%3]
		cfg := Config{Frame: frame, Delimiter: "\n"}
		r := newReplies(strings.NewReader(string(data)), frame, []byte("\n"))
		whole := len(data)
		for n := 0; ; n++ {
			p, err := r.next()
			if err != nil {
				break
			}
			if len(p) > maxReply || n > whole {
				t.Fatalf("message %d has %d bytes, of %d", n, len(p), len(data))
			}
			want, rest, ok := cut(&cfg, data)
			if frame == Lines {
				want = []byte(strings.TrimSuffix(string(want), "\r"))
			}
			if !ok || string(want) != string(p) {
				t.Fatalf("message %d is %q, want %q", n, p, want)
			}
			data = rest
			if count, err := parseReply(p); err == nil && strings.TrimLeft(string(p), "0") != strings.TrimLeft(fmt.Sprint(count), "0") {
				t.Fatalf("%q is read as %d", p, count)
			}
		}
	})
}

// Zero allocations per message: what a batch costs does not depend on how many messages it has.
func TestWriteAllocatesNothingPerMessage(t *testing.T) {
	cost := func(n int) float64 {
		cfg := quick(U32, false)
		cfg.Address = "nowhere:1"
		l := newLender(t)
		s, err := newSink(cfg, func(context.Context, string, string) (net.Conn, error) { return &void{over: make(chan struct{})}, nil })
		l.must(err)
		l.must(s.Open(t.Context(), sink.Env{}))
		defer func() { l.must(s.Close(t.Context())) }()
		payloads := make([]string, n)
		for i := range payloads {
			payloads[i] = strings.Repeat("p", 100)
		}
		payloads[0] = strings.Repeat("q", 50_000)
		var batches []*sink.Batch
		for range 5 {
			batches = append(batches, sink.NewBatch(l.memory(payloads...), nil, "s", func(*sink.Batch, int, error) {}))
		}
		next, ctx := 0, t.Context()
		return testing.AllocsPerRun(3, func() {
			if err := errors.Join(s.Write(ctx, batches[next]), s.Flush(ctx)); err != nil {
				t.Fatal(err)
			}
			next++
		})
	}
	if few, many := cost(2), cost(2000); many > few+1 {
		t.Errorf("a batch of 2 costs %v allocations, one of 2,000 %v", few, many)
	}
}
