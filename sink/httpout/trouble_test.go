package httpout

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// Promise: an endpoint that is slow is given up after timeout, by the sink's clock; one that takes its time within it is not.
func TestSlowEndpoint(t *testing.T) {
	srv, got := listen(t)
	r := newRig(t, one(srv.URL))
	r.send("a")
	q := <-got
	r.clock.Advance(29 * time.Second)
	q.with(200)
	if f := r.next(1); f["a"] != nil {
		t.Errorf("fates %v", f)
	}
	r.send("b")
	<-got
	r.clock.Advance(30 * time.Second)
	f := r.next(1)
	if k, _ := plugin.Classify(f["b"]); k != plugin.KindRetry || !errors.Is(f["b"], ErrTimeout) {
		t.Errorf("fates %v", f)
	}
}

// Promise: an endpoint that answers before it has read, and one that resets the connection at any time, leave lent memory alone and
// every message with one fate.
func TestEndpointsThatBreakOff(t *testing.T) {
	large := strings.Repeat("x", 200_000)
	for _, tc := range []struct {
		name string
		do   func(conn net.Conn)
		kind plugin.Kind
	}{
		{"closes at once", func(net.Conn) {}, plugin.KindRetry},
		{"resets at once", func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }, plugin.KindRetry},
		{"resets within the request", func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1000))
			_ = conn.(*net.TCPConn).SetLinger(0)
		}, plugin.KindRetry},
		{"talks nonsense", func(conn net.Conn) { _, _ = conn.Write([]byte("what?\r\n\r\n")) }, plugin.KindRetry},
		{"endless header", func(conn net.Conn) {
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\n"))
			for {
				if _, err := conn.Write([]byte("X: " + strings.Repeat("y", 1000) + "\r\n")); err != nil {
					return
				}
			}
		}, plugin.KindRetry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var served sync.WaitGroup
			served.Go(func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					tc.do(conn)
					conn.Close()
				}
			})
			defer served.Wait()
			defer ln.Close()
			cfg := one("http://" + ln.Addr().String())
			cfg.Breaker.Failures = 0
			r := newRig(t, cfg)
			for range 5 {
				r.send("a", large)
				for p, err := range r.next(2) {
					if k, _ := plugin.Classify(err); k != tc.kind {
						t.Errorf("%.5s: %v", p, err)
					}
				}
			}
		})
	}
}

// Promise: lent bytes are not read once their message is done, though the endpoint reads on after it has answered.
func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	poisoned := make(chan bool)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			poisoned <- false
			return
		}
		defer conn.Close()
		tmp := make([]byte, 64<<10)
		_, _ = conn.Read(tmp[:100])
		_, _ = conn.Write([]byte("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"))
		bad := false
		for {
			n, err := conn.Read(tmp)
			bad = bad || bytes.IndexByte(tmp[:n], 0xDB) >= 0
			if err != nil {
				poisoned <- bad
				return
			}
		}
	}()
	cfg := one("http://" + ln.Addr().String())
	cfg.Batch.Bytes = 64 << 20
	r := newRig(t, cfg)
	const n = 10 // more than the system's buffers take
	for range n {
		r.must(r.Write(t.Context(), r.lend(message{payload: strings.Repeat("x", 2<<20-100)})))
	}
	r.must(r.Flush(t.Context()))
	r.next(n)
	r.must(r.Close(t.Context())) // ends a connection that is kept
	if <-poisoned {
		t.Error("bytes were sent that were no longer lent")
	}
}

// Promise: an endless answer is read no further than 64 KiB, and an error shows 200 bytes of it.
func TestEndlessAnswer(t *testing.T) {
	for status, want := range map[int]plugin.Kind{200: plugin.KindAck, 400: plugin.KindReject, 413: plugin.KindReject} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			for {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		}))
		r := newRig(t, one(srv.URL))
		r.send("a", strings.Repeat("x", 200_000)) // the answer comes before it is read
		for p, err := range r.next(2) {
			if k, _ := plugin.Classify(err); k != want {
				t.Errorf("%d: %.5s: %v", status, p, err)
			}
			var e *Error
			if errors.As(err, &e) && len(e.Body) != showBody {
				t.Errorf("an error shows %d bytes", len(e.Body))
			}
		}
		srv.CloseClientConnections()
		srv.Close()
	}
}

// Promise: messages go to no host that the file does not name.
func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host got the messages") }))
	defer other.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := unpacked(r)
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/there", http.StatusPermanentRedirect)
		case "/there":
			if string(data) != "a\n" || r.Header.Get("Authorization") != "Bearer t" {
				t.Errorf("after a redirect: %q", data)
			}
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		case "/get":
			http.Redirect(w, r, "/there", http.StatusFound)
		default:
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	for path, says := range map[string]string{"/same": "", "/loop": "more than", "/get": "by a GET", "/other": "another host"} {
		cfg := one(srv.URL + path)
		cfg.Token = "t"
		r := newRig(t, cfg)
		r.send("a")
		err := r.next(1)["a"]
		if says == "" && err == nil {
			continue
		}
		if k, _ := plugin.Classify(err); k != plugin.KindRetry || !errors.Is(err, ErrRedirect) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
