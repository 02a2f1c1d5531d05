package socket

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestUnix(t *testing.T) {
	r := start(t, Config{Network: "unix", Acks: true, Mode: 0o660}, sourcetest.IntakeConfig{})
	c := r.dial()
	c.send("a\nb\n")
	r.expect("a", "b") // so it has been let in, and the permissions are set
	info, err := os.Stat(r.addr)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket file: %v, %v", info, err)
	}
	r.settle(0, 2)
	c.count(2)
	r.finish()
	if _, err := os.Stat(r.addr); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket file is still there: %v", err)
	}
}

// Promise: a socket file that a dead process has left is replaced; one that answers, and what is no socket, stay.
func TestStaleSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	alive := func(want string) {
		t.Helper()
		s, err := New(Config{Network: "unix", Address: path})
		if err != nil {
			t.Fatal(err)
		}
		in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
		if err := s.Run(t.Context(), in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %q", err, want)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
	alive("somebody listens")
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	r := start(t, Config{Network: "unix", Address: path}, sourcetest.IntakeConfig{})
	r.dial().send("a\n")
	r.expect("a")
	r.finish()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	alive("is no socket")
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

// shared is a listener whose address outlives its Close, as while a pipeline is loaded again.
type shared struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (s *shared) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *shared) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func (s *shared) Addr() net.Addr { return &net.UnixAddr{Name: "shared", Net: "unix"} }

// open makes a source that gets its connections from the channel.
func open(t *testing.T, cfg Config, icfg sourcetest.IntakeConfig, conns chan net.Conn) (*Source, *sourcetest.Intake, func()) {
	t.Helper()
	cfg.Network, cfg.Address = "tcp", "127.0.0.1:1"
	cfg.Listen = func(context.Context, string, string) (net.Listener, error) {
		return &shared{conns, make(chan struct{})}, nil
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	in := sourcetest.NewIntake(t, icfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, in) }()
	return s, in, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Promise: a source that ends leaves the address to the one that takes its place.
func TestListenerGoesOn(t *testing.T) {
	conns := make(chan net.Conn)
	_, _, stop := open(t, Config{}, sourcetest.IntakeConfig{}, conns)
	stop()
	_, in, stop := open(t, Config{}, sourcetest.IntakeConfig{}, conns)
	defer stop()
	near, far := net.Pipe()
	defer near.Close()
	conns <- far
	if _, err := io.WriteString(near, "a\n"); err != nil {
		t.Error(err)
	}
	deadline := time.After(patient)
	for in.Len() == 0 {
		changed := in.Changed()
		if in.Len() > 0 {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("no message")
		}
	}
}

// hidden is a connection that cannot be asked whether there is something.
type hidden struct{ net.Conn }

func (h hidden) CloseWrite() error { return h.Conn.(interface{ CloseWrite() error }).CloseWrite() }

type hiding struct{ net.Listener }

func (h hiding) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hidden{c}, nil
}

// Promise: where a connection cannot be asked, all is as elsewhere, and an idle one holds no slab.
func TestConnectionsThatCannotBeAsked(t *testing.T) {
	features := sourcetest.Features{Append: true, Cursor: true, Binary: true}
	sourcetest.Run(t, features, func(t *testing.T) sourcetest.Fixture {
		return &hidingProducer{newProducer(t, Config{Network: "tcp", Framing: "u32", Acks: true})}
	})
}

func TestSettings(t *testing.T) {
	lim := DefaultMaxConnections
	pair := &kind.ServerTLS{Cert: "c", Key: "k"}
	tests := []struct {
		name     string
		settings kind.Checked
		field    string // of the one problem; "" for none
	}{
		{"loopback", TCPSettings{Address: "127.0.0.1:9000", MaxConnections: lim}, ""},
		{"loopback v6", TCPSettings{Address: "[::1]:9000", MaxConnections: lim}, ""},
		{"loopback by name", TCPSettings{Address: "localhost:9000", MaxConnections: lim}, ""},
		{"loopback within v6", TCPSettings{Address: "[::ffff:127.0.0.1]:9000", MaxConnections: lim}, ""},
		{"no address", TCPSettings{MaxConnections: lim}, "address"},
		{"no port", TCPSettings{Address: "127.0.0.1", MaxConnections: lim}, "address"},
		{"a wild port", TCPSettings{Address: "127.0.0.1:99999", MaxConnections: lim}, "address"},
		{"open", TCPSettings{Address: "0.0.0.0:9000", MaxConnections: lim}, "address"},
		{"open, no host", TCPSettings{Address: ":9000", MaxConnections: lim}, "address"},
		{"open, a name", TCPSettings{Address: "example.com:9000", MaxConnections: lim}, "address"},
		{"open, TLS only", TCPSettings{Address: ":9000", TLS: pair, MaxConnections: lim}, "address"},
		{"open, token only", TCPSettings{Address: ":9000", Token: "t", MaxConnections: lim}, "address"},
		{"open, TLS and token", TCPSettings{Address: ":9000", TLS: pair, Token: "t", MaxConnections: lim}, ""},
		{"open, client certificates", TCPSettings{
			Address: ":9000", TLS: &kind.ServerTLS{Cert: "c", Key: "k", ClientCA: "a"}, MaxConnections: lim,
		}, ""},
		{"open, insecure", TCPSettings{Address: ":9000", Insecure: true, MaxConnections: lim}, ""},
		{"no key", TCPSettings{Address: "127.0.0.1:1", TLS: &kind.ServerTLS{Cert: "c"}, MaxConnections: lim}, "tls"},
		{"negative time", TCPSettings{Address: "127.0.0.1:1", IdleTimeout: -1, MaxConnections: lim}, "idle_timeout"},
		{"no connections", TCPSettings{Address: "127.0.0.1:1"}, "max_connections"},
		{"a long token", TCPSettings{Address: "127.0.0.1:1", Token: kind.Secret(strings.Repeat("x", 2000)), MaxConnections: lim}, "token"},
		{"unix", UnixSettings{Path: "a.sock", MaxConnections: lim}, ""},
		{"no path", UnixSettings{MaxConnections: lim}, "path"},
		{"too many", UnixSettings{Path: "a.sock", MaxConnections: 1 << 30}, "max_connections"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.settings.Check()
			if tt.field == "" && len(got) > 0 || tt.field != "" && (len(got) != 1 || got[0].Field != tt.field) {
				t.Errorf("problems %v, want one of %q", got, tt.field)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	if got := (TCPSettings{Address: "127.0.0.1:9000"}).Claims(); got[0] != "tcp 127.0.0.1:9000" {
		t.Errorf("claims %q", got)
	}
	if got := (UnixSettings{Path: "/run/../run/a.sock"}).Claims(); got[0] != "file /run/a.sock" {
		t.Errorf("claims %q", got)
	}
	tcp, unix := TCP(), Unix()
	ts, us := tcp.Settings.(TCPSettings), unix.Settings.(UnixSettings)
	ts.Address, us.Path = "127.0.0.1:9000", "a.sock"
	if err := us.Mode.UnmarshalText([]byte("0640")); err != nil || us.Mode != 0o640 || us.Mode.String() != "0640" {
		t.Errorf("mode %v, %v", us.Mode, err)
	}
	for _, bad := range []string{"", "rw", "1000", "0800"} {
		if err := new(Permission).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("mode %q is accepted", bad)
		}
	}
	for _, k := range []struct {
		kind     kind.Kind
		settings any
	}{{tcp, ts}, {unix, us}} {
		if _, err := k.kind.NewSource(k.settings, kind.Env{Frame: "u32"}); err != nil {
			t.Error(err)
		}
		if _, err := k.kind.NewSource(k.settings, kind.Env{Frame: "u32", Delimiter: ";"}); err == nil {
			t.Error("a delimiter of u32 is accepted")
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{Network: "udp", Address: "127.0.0.1:1"},
		{Network: "tcp"},
		{Network: "tcp", Address: "a:1", Framing: "csv"},
		{Network: "tcp", Address: "a:1", Framing: "whole", Acks: true},
		{Network: "tcp", Address: "a:1", Framing: "whole", Token: "t"},
		{Network: "tcp", Address: "a:1", Token: "a\nb"},
		{Network: "tcp", Address: "a:1", Token: "a\r"},
		{Network: "tcp", Address: "a:1", Token: "a;b", Delimiter: ";"},
		{Network: "tcp", Address: "a:1", MaxConnections: -1},
		{Network: "tcp", Address: "a:1", IdleTimeout: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}
