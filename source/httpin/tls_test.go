package httpin

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/internal/tlstest"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestTLS(t *testing.T) {
	cert, key, pair, pool := tlstest.Certificate(t)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, clientCA := range []bool{false, true} {
			t.Run(proto+map[bool]string{true: " with a client's certificate"}[clientCA], func(t *testing.T) {
				r := start(t, rigConfig{settings: func(s *Settings) {
					s.TLS = &kind.ServerTLS{Cert: cert, Key: key}
					s.Tokens = []kind.Secret{"secret"}
					if clientCA {
						s.TLS.ClientCA = cert
					}
				}})
				r.url = "https://" + r.addr + "/"
				config := &tls.Config{RootCAs: pool}
				transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: proto == "HTTP/2.0"}
				defer transport.CloseIdleConnections()
				r.client = &http.Client{Transport: transport, Timeout: long}
				if clientCA {
					if resp, err := r.post(strings.NewReader("x")); err == nil {
						resp.Body.Close()
						t.Error("a client without a certificate was let in")
					}
					transport.CloseIdleConnections()
					config = config.Clone()
					config.Certificates = []tls.Certificate{pair}
					transport = &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: proto == "HTTP/2.0"}
					r.client = &http.Client{Transport: transport, Timeout: long}
				}
				if status, _ := r.must(strings.NewReader("x")); status != 401 {
					t.Errorf("without a token: %d", status)
				}
				resp, err := r.post(strings.NewReader("x"), "Authorization", "Bearer secret")
				if err != nil {
					t.Fatal(err)
				}
				if status, s := read(t, resp); status != 200 || s.Accepted != 1 || resp.Proto != proto {
					t.Errorf("%s %d %+v", resp.Proto, status, s)
				}
			})
		}
	}
}

// clear2 makes the client one of HTTP/2 without TLS.
func clear2(r *rig) {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	r.client = &http.Client{Transport: &http.Transport{Protocols: p}, Timeout: long}
}

func TestHTTP2(t *testing.T) {
	r := start(t, rigConfig{
		settings: func(s *Settings) { s.BodyTimeout, s.MaxBody = 40*time.Millisecond, 1<<20 },
		intake:   sourcetest.IntakeConfig{MaxBytes: 1000},
	})
	clear2(r)
	lines := strings.Repeat(strings.Repeat("x", 999)+"\n", 1000)
	nd := []string{"Content-Type", "application/x-ndjson"}
	if status, s := r.must(strings.NewReader(lines), nd...); status != 200 || s.Accepted != 1000 {
		t.Errorf("a batch: %d %+v", status, s)
	}
	if status, s := r.must(struct{ io.Reader }{strings.NewReader(lines + lines)}, nd...); status != 413 || s.Accepted == 0 {
		t.Errorf("a batch that is too large: %d %+v", status, s)
	}
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = pw.Write([]byte("a\nb\nc")) }()
	if status, s := r.must(pr, nd...); status != 408 || s.Accepted != 2 {
		t.Errorf("a slow one: %d %+v", status, s)
	}
	if status, s := r.must(strings.NewReader("x")); status != 200 {
		t.Errorf("afterwards: %d %+v", status, s)
	}
}

// Promise: a stream that is reset while it waits for settlement is not waited for.
func TestHTTP2Reset(t *testing.T) {
	r := start(t, rigConfig{hold: true})
	clear2(r)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, r.url, strings.NewReader("x"))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := r.client.Do(req); err == nil {
			resp.Body.Close()
			t.Error("it was answered")
		}
	}()
	r.arrive(1)
	cancel()
	within(t, "the client", gone)
	r.until("the request to be forgotten", func() bool { return r.src.Requests() == 0 })
	r.settle(source.Settled)
}
