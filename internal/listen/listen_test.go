package listen_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/penstock-dev/penstock/internal/listen"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, p *listen.Pool, network, address string) net.Listener {
	t.Helper()
	l, err := p.Listen(context.Background(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Promise: a listener goes on to the next of its address, and a connection that comes in between is not refused.
func TestHandOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p := listen.NewPool()
	first := open(t, p, "unix", path)
	second := open(t, p, "unix", path)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := second.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.Close(), client.Close(), second.Close(), second.Close()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the last handle is closed, and somebody answers")
	}
	third := open(t, p, "unix", path)
	if err := third.Close(); err != nil {
		t.Error(err)
	}
}

// Promise: closing one handle ends its Accept, and no other's.
func TestCloseEndsAccept(t *testing.T) {
	p := listen.NewPool()
	path := filepath.Join(t.TempDir(), "s")
	first, second := open(t, p, "unix", path), open(t, p, "unix", path)
	ended := make(chan error)
	go func() { _, err := first.Accept(); ended <- err }()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// Promise: port 0 is another port each time.
func TestPortZero(t *testing.T) {
	p := listen.NewPool()
	a, b := open(t, p, "tcp", "127.0.0.1:0"), open(t, p, "tcp", "127.0.0.1:0")
	if a.Addr().String() == b.Addr().String() {
		t.Errorf("both at %v", a.Addr())
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
}
