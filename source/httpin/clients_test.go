package httpin

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

const ndjson = "Content-Type: application/x-ndjson\r\n"

func TestPipelining(t *testing.T) {
	r := start(t, rigConfig{})
	c := r.dial()
	var b bytes.Buffer
	var want []string
	for i := range 50 {
		m := fmt.Sprintf("message %d", i)
		want = append(want, m)
		fmt.Fprintf(&b, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(m), m)
	}
	c.send("%s", b.String())
	for range 50 {
		if status, s := c.response(); status != 200 || s.Accepted != 1 {
			t.Fatalf("%d %+v", status, s)
		}
	}
	if got := r.payloads(); !slices.Equal(got, want) {
		t.Errorf("messages %q", got)
	}
}

// Promise: a request that is refused does not cost the connection, if little is left of its body.
func TestKeepAliveAfterRefusal(t *testing.T) {
	r := start(t, rigConfig{})
	c := r.dial()
	c.send("POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	if status, _ := c.response(); status != 404 {
		t.Errorf("status %d", status)
	}
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	if status, _ := c.response(); status != 200 {
		t.Errorf("status %d", status)
	}
}

// Promise: a body that stands still is answered 408, and its whole messages stay accepted.
func TestSlowBody(t *testing.T) {
	tests := []struct {
		name, head, sent string
		accepted         int
	}{
		{"one message", "Content-Length: 10\r\n", "abc", 0},
		{"a batch", ndjson + "Content-Length: 10\r\n", "a\nb\nc", 2},
		{"a chunked batch", ndjson + "Transfer-Encoding: chunked\r\n", "5\r\na\nb\nc\r\n", 2},
		{"nothing", ndjson + "Transfer-Encoding: chunked\r\n", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, rigConfig{settings: func(s *Settings) { s.BodyTimeout = 40 * time.Millisecond }})
			c := r.dial()
			c.send("POST / HTTP/1.1\r\nHost: x\r\n%s\r\n%s", tt.head, tt.sent)
			if status, s := c.response(); status != 408 || s.Accepted != tt.accepted {
				t.Errorf("%d %+v, want 408 and %d accepted", status, s, tt.accepted)
			}
			c.closed()
			if e := r.reported(); e.Status != 408 {
				t.Errorf("reported %v", e)
			}
		})
	}
}

// Promise: a body may take as long as it likes while bytes come.
func TestSteadyBody(t *testing.T) {
	const every = 20 * time.Millisecond
	r := start(t, rigConfig{settings: func(s *Settings) { s.BodyTimeout = 8 * every }})
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 40\r\n\r\n", ndjson)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range 20 { // longer than the timeout
		<-tick.C
		c.send("x\n")
	}
	if status, s := c.response(); status != 200 || s.Accepted != 20 {
		t.Errorf("%d %+v", status, s)
	}
}

// Promise: while memory is short, a body that hardly moves does not keep its slab from others.
func TestSlowBodyWhileMemoryIsShort(t *testing.T) {
	r := start(t, rigConfig{
		intake:   sourcetest.IntakeConfig{Budget: 16 * 4 << 10, SlabSize: 4 << 10},
		settings: func(s *Settings) { s.BodyTimeout = time.Hour }, patience: 40 * time.Millisecond,
	})
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 100\r\n\r\nabc", ndjson)
	r.until("the body to hold a slab", func() bool { return r.in.Account().Used() > 0 })
	var slabs []*arena.Slab
	for r.in.Account().Room() {
		s, err := r.in.Account().Lease()
		if err != nil {
			break
		}
		slabs = append(slabs, s)
	}
	if status, s := c.response(); status != 408 {
		t.Errorf("%d %+v, want 408", status, s)
	}
	for _, s := range slabs {
		s.Release()
	}
}

// Promise: a client that has closed its own half gets its answer.
func TestHalfClosed(t *testing.T) {
	r := start(t, rigConfig{hold: true})
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r.arrive(1)
	r.settle(source.Settled)
	if status, s := c.response(); status != 200 || s.Accepted != 1 {
		t.Errorf("%d %+v", status, s)
	}
}

// Promise: of a body that breaks off, whole messages stay accepted, and it counts as bad input once.
func TestBrokenOff(t *testing.T) {
	tests := []struct {
		name, head, sent string
		reset            bool
		accepted         int
	}{
		{"half closed", ndjson + "Content-Length: 10\r\n", "a\nb\nc", false, 2},
		{"reset", ndjson + "Content-Length: 10\r\n", "a\nb\nc", true, 2},
		{"chunk cut off", ndjson + "Transfer-Encoding: chunked\r\n", "9\r\na\nb\nc", false, 2},
		{"malformed chunk", ndjson + "Transfer-Encoding: chunked\r\n", "4\r\na\nb\n\r\nno number\r\n", false, 2},
		{"one message", "Content-Length: 10\r\n", "abc", false, 0},
		{"one long message", "Content-Length: 100000\r\n", "abc", false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, rigConfig{})
			c := r.dial()
			c.send("POST / HTTP/1.1\r\nHost: x\r\n%s\r\n%s", tt.head, tt.sent)
			if tt.reset { // what was sent before it would be lost with it
				r.arrive(tt.accepted)
				_ = c.SetLinger(0)
				c.Close()
			} else {
				_ = c.CloseWrite()
				if status, s := c.response(); status != 400 || s.Accepted != tt.accepted {
					t.Errorf("%d %+v", status, s)
				}
			}
			if e := r.reported(); e.Status != 400 || e.Accepted != tt.accepted {
				t.Errorf("reported %v", e)
			}
			if n := r.in.Len(); n != tt.accepted {
				t.Errorf("%d messages came", n)
			}
		})
	}
}

// Promise: who is refused by what its headers say is refused before it sends the body.
func TestExpectContinue(t *testing.T) {
	r := start(t, rigConfig{settings: func(s *Settings) { s.MaxBody = 100 }})
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
	if status, _ := c.response(); status != 413 {
		t.Errorf("status %d, want 413", status)
	}
	c = r.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil || resp.StatusCode != http.StatusContinue {
		t.Fatalf("%v %v, want 100", resp, err)
	}
	c.send("abc")
	if status, _ := c.response(); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestMalformed(t *testing.T) {
	for name, head := range map[string]string{
		"length":       "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
		"two lengths":  "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"no HTTP":      "this is a line of some other protocol\r\n\r\n",
		"many headers": "POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, rigConfig{})
			c := r.dial()
			c.send("%s", head)
			resp, err := http.ReadResponse(c.in, nil)
			if err != nil || resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%+v %v", resp, err)
			}
		})
	}
}

// Promise: a connection without a request holds no slab, and neither does a body that has not begun.
func TestIdleHoldsNothing(t *testing.T) {
	r := start(t, rigConfig{})
	for i := range 100 {
		c := r.dial()
		c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
		c.response()
		if i%2 == 0 {
			c.send("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 3\r\n\r\n", ndjson)
		}
	}
	r.until("the requests to begin", func() bool { return r.src.Requests() == 50 })
	if used := r.in.Account().Used(); used > 0 {
		t.Errorf("idle connections use %d bytes", used)
	}
}

// Promise: a stop ends reading bodies; the whole messages of one stay accepted.
func TestStopWithin(t *testing.T) {
	r := start(t, rigConfig{})
	idle := r.dial()
	used := r.dial()
	used.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	used.response()
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 100\r\n\r\na\nb\nc", ndjson)
	r.arrive(3)
	r.until("nothing else to be read", func() bool { return r.src.Requests() == 1 })
	r.stop()
	if status, s := c.response(); status != 503 || s.Accepted != 2 {
		t.Errorf("%d %+v, want 503 and 2 accepted", status, s)
	}
	idle.closed()
	used.closed()
	if n := len(r.in.Reports()); n > 0 {
		t.Errorf("reported %v, but nobody is at fault", r.in.Reports())
	}
}

// Promise: whoever has connected before a stop, and sends a request at once, is answered.
func TestStopBeforeTheRequest(t *testing.T) {
	r := start(t, rigConfig{})
	c := r.dial()
	r.until("the connection", func() bool {
		r.src.mu.Lock()
		defer r.src.mu.Unlock()
		return len(r.src.fresh) == 1
	})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.stop()
	}()
	r.until("the stop", func() bool {
		r.src.mu.Lock()
		defer r.src.mu.Unlock()
		return r.src.quiet != nil
	})
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	if status, s := c.response(); status != 503 || s.Accepted != 0 {
		t.Errorf("%d %+v, want 503", status, s)
	}
	c.closed()
	<-stopped
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed: install it to try the source with a client that people use")
	}
	r := start(t, rigConfig{settings: func(s *Settings) { s.Path, s.Tokens = "/ingest", []kind.Secret{"secret"} }})
	dir := t.TempDir()
	var lines []string
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf(`{"n":%d,"text":%q}`, i, strings.Repeat("x", i%500)))
	}
	data := []byte(strings.Join(lines, "\n") + "\n")
	plain, zip := filepath.Join(dir, "in.ndjson"), filepath.Join(dir, "in.ndjson.gz")
	for path, data := range map[string][]byte{plain: data, zip: zipped(data)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	auth := []string{"-sS", "-w", "%{http_code}", "-H", "Authorization: Bearer secret", "--max-time", "20"}
	tests := []struct {
		name  string
		args  []string
		want  int
		print string
	}{
		{"one message", []string{"-d", `{"a":1}`, "-H", "Content-Type: application/json"}, 1, "{\"accepted\":1}\n200"},
		{"a file", []string{"--data-binary", "@" + plain, "-H", "Content-Type: application/x-ndjson"}, 3000, "{\"accepted\":3000}\n200"},
		{"a file by PUT", []string{"-T", plain, "-H", "Content-Type: application/x-ndjson"}, 3000, "{\"accepted\":3000}\n200"},
		{"a file in chunks", []string{"-T", "-", "-H", "Content-Type: application/x-ndjson"}, 3000, "{\"accepted\":3000}\n200"},
		{"a gzip file", []string{
			"--data-binary", "@" + zip, "-H", "Content-Type: application/x-ndjson", "-H", "Content-Encoding: gzip",
		}, 3000, "{\"accepted\":3000}\n200"},
		{"HTTP/2 in the clear", []string{"--http2-prior-knowledge", "-d", "x"}, 1, "{\"accepted\":1}\n200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := r.in.Len()
			cmd := exec.CommandContext(t.Context(), curl, append(append(slices.Clone(auth), tt.args...), r.url)...)
			cmd.Stdin = bytes.NewReader(data)
			out, err := cmd.CombinedOutput()
			if err != nil && strings.Contains(string(out), "not support") {
				t.Skipf("this curl cannot: %s", out)
			}
			if err != nil || string(out) != tt.print {
				t.Errorf("curl says %q, %v", out, err)
			}
			got := r.payloads()[before:]
			if len(got) != tt.want || tt.want > 1 && !slices.Equal(got, lines) {
				t.Errorf("%d messages came, want %d, as sent", len(got), tt.want)
			}
		})
	}
}

// Promise: while a file is loaded again, the listener goes on to another source, and nobody is refused in between.
func TestListenerGoesOn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conns := make(chan net.Conn)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	for round := range 2 {
		s := Defaults()
		s.Address = ln.Addr().String()
		src, err := New(s, kind.Env{Listen: func(context.Context, string, string) (net.Listener, error) {
			return &shared{Listener: ln, conns: conns, closed: make(chan struct{})}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- src.Run(ctx, in) }()
		answered := make(chan int, 1)
		go func() {
			resp, err := http.Post("http://"+s.Address, "text/plain", strings.NewReader("x"))
			if err != nil {
				t.Error(err)
				answered <- 0
				return
			}
			status, _ := read(t, resp)
			answered <- status
		}()
		for in.Len() == 0 {
			<-in.Changed()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		in.Settle(src, source.Settled, func(sourcetest.Message) bool { return true })
		if status := <-answered; status != 200 {
			t.Errorf("round %d: status %d", round, status)
		}
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	ln.Close()
	<-accepting
}

// shared is a listener whose Close closes only itself.
type shared struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
}

func (l *shared) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *shared) Close() error {
	close(l.closed)
	return nil
}
