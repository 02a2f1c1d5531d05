package socket

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/tlstest"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// secure connects over TLS.
func (r *rig) secure(certFile string, cfg *tls.Config) *client {
	r.Helper()
	settings := &kind.ClientTLS{CA: certFile, ServerName: "127.0.0.1"}
	base, err := settings.Config()
	if err != nil {
		r.Fatal(err)
	}
	if cfg != nil {
		base.Certificates = cfg.Certificates
	}
	nc, err := tls.Dial("tcp", r.addr, base)
	if err != nil {
		r.Fatal(err)
	}
	return r.client(nc)
}

func TestTLS(t *testing.T) {
	cert, key, _, _ := tlstest.Certificate(t)
	for _, token := range []kind.Secret{"", "secret"} {
		t.Run("token="+token.Reveal(), func(t *testing.T) {
			r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}, Token: token, Acks: true}, sourcetest.IntakeConfig{})
			c := r.secure(cert, nil)
			data := "a\nbc\n"
			if token != "" {
				data = token.Reveal() + "\n" + data
			}
			for i := range len(data) {
				c.send(data[i : i+1]) // a record each
			}
			r.expect("a", "bc")
			big := strings.Repeat("x", 100_000) // many records
			c.send(big + "\nlast\n")
			r.expect("a", "bc", big, "last")
			r.until("the connection to be idle", func() bool { return r.count(waiting) == 1 })
			r.settle(0, 4)
			c.count(4)
			c.send("on\n")
			r.expect("a", "bc", big, "last", "on")
			r.settle(4, 5)
			c.count(5)
			c.halfClose()
			c.atEnd()
		})
	}
}

// Promise: an idle TLS connection holds no slab either, whatever came before.
func TestIdleTLSHoldsNoSlab(t *testing.T) {
	cert, key, _, _ := tlstest.Certificate(t)
	r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}}, sourcetest.IntakeConfig{})
	for range 20 {
		r.secure(cert, nil).send("m\n")
	}
	r.until("all messages", func() bool { return r.in.Len() == 20 && r.count(waiting) == 20 })
	r.settle(0, 20)
	r.until("all memory to be free", func() bool { return r.in.Account().Used() <= r.slab })
}

func TestTLSRefuses(t *testing.T) {
	cert, key, _, _ := tlstest.Certificate(t)
	t.Run("plain text", func(t *testing.T) {
		r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}}, sourcetest.IntakeConfig{})
		r.dial().send("hello, this is no TLS\n")
		r.until("a report", func() bool { return len(r.in.Reports()) == 1 })
		if err := r.in.Reports()[0]; !strings.Contains(err.Error(), "TLS handshake") {
			t.Errorf("reported %v", err)
		}
	})
	t.Run("no client certificate", func(t *testing.T) {
		r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key, ClientCA: cert}}, sourcetest.IntakeConfig{})
		stranger := r.secure(cert, nil)
		if _, err := stranger.r.ReadByte(); err == nil {
			t.Error("a stranger is let in")
		}
		r.until("a report", func() bool { return len(r.in.Reports()) == 1 })
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		r.secure(cert, &tls.Config{Certificates: []tls.Certificate{pair}}).send("friend\n")
		r.expect("friend")
	})
	t.Run("silence", func(t *testing.T) {
		short := func(s *Source) { s.handshake = 20 * time.Millisecond }
		r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}}, sourcetest.IntakeConfig{}, short)
		r.dial()
		r.refused(ErrLate)
	})
	t.Run("a cut connection", func(t *testing.T) {
		r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}}, sourcetest.IntakeConfig{})
		c := r.secure(cert, nil)
		c.send("whole\nbegun")
		r.expect("whole")
		if err := c.Conn.(*tls.Conn).NetConn().Close(); err != nil { // no close_notify: it may have been cut on the way
			t.Error(err)
		}
		r.refused(ErrReset)
		r.expect("whole")
	})
	t.Run("a missing file", func(t *testing.T) {
		s, err := New(Config{Network: "tcp", Address: "127.0.0.1:0", TLS: &kind.ServerTLS{Cert: "no.pem", Key: "no.key"}})
		if err != nil {
			t.Fatal(err)
		}
		in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
		if err := s.Run(t.Context(), in); err == nil || !strings.Contains(err.Error(), "no.pem") {
			t.Errorf("Run: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestToken(t *testing.T) {
	tests := []struct {
		name, framing, data string
		reason              error
		want                []string
	}{
		{"right", "lines", "secret\na\n", nil, []string{"a"}},
		{"right, with a carriage return", "lines", "secret\r\na\n", nil, []string{"a"}},
		{"right, alone", "lines", "secret\n", nil, nil},
		{"right", "u32", framed("u32", "secret", "a"), nil, []string{"a"}},
		{"right", "varint", framed("varint", "secret", "a"), nil, []string{"a"}},
		{"wrong", "lines", "secreT\na\n", ErrToken, nil},
		{"empty", "lines", "\na\n", ErrToken, nil},
		{"a beginning", "lines", "secre\n", ErrToken, nil},
		{"longer", "lines", "secrets\n", ErrToken, nil},
		{"without end", "lines", strings.Repeat("x", 4000), ErrToken, nil},
		{"wrong", "u32", framed("u32", "SECRET", "a"), ErrToken, nil},
		{"too long", "u32", "\x00\x01\x00\x00", ErrToken, nil},
		{"no length", "varint", strings.Repeat("\xff", 20), ErrToken, nil},
	}
	for _, tt := range tests {
		t.Run(tt.framing+" "+tt.name, func(t *testing.T) {
			r := start(t, Config{Framing: tt.framing, Token: "secret"}, sourcetest.IntakeConfig{})
			c := r.dial()
			c.send(tt.data)
			if tt.reason == nil {
				c.halfClose()
				c.atEnd()
				r.expect(tt.want...)
				if list := r.in.Reports(); len(list) > 0 {
					t.Errorf("reported %v", list)
				}
				return
			}
			if said := r.refused(tt.reason); strings.Contains(said, "secret") {
				t.Errorf("the token is told: %s", said)
			}
			if text, err := readFrame(c.r, tt.framing); err != nil || !strings.HasPrefix(text, "error: wrong token") {
				t.Errorf("the peer was told %q, %v", text, err)
			}
			c.atEnd()
			if r.in.Len() > 0 {
				t.Errorf("got %q", r.payloads())
			}
		})
	}
	t.Run("late", func(t *testing.T) {
		short := func(s *Source) { s.handshake = 20 * time.Millisecond }
		r := start(t, Config{Token: "secret"}, sourcetest.IntakeConfig{}, short)
		c := r.dial()
		c.send("sec")
		r.refused(ErrLate)
		if got := c.line(); !strings.HasPrefix(got, "error: the handshake took too long") {
			t.Errorf("the peer was told %q", got)
		}
	})
	t.Run("only looked", func(t *testing.T) {
		r := start(t, Config{Token: "secret"}, sourcetest.IntakeConfig{Clock: clock.System{}})
		c := r.dial()
		c.halfClose()
		c.atEnd()
		if list := r.in.Reports(); len(list) > 0 {
			t.Errorf("reported %v", list)
		}
	})
}

// Promise: Run ends while handshakes are under way.
func TestStopDuringHandshake(t *testing.T) {
	r := start(t, Config{Token: "secret", Acks: true}, sourcetest.IntakeConfig{})
	for range 5 {
		r.dial().send("sec")
	}
	r.until("five connections", func() bool { return r.src.Connections() == 5 })
}
