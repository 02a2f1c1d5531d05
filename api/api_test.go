package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock/internal/tlstest"
	"github.com/penstock-dev/penstock/kind"
)

// Promise: an address that others can reach is refused, unless there are TLS and a token or certificates of clients.
func TestUnsafeAddresses(t *testing.T) {
	cert, key, _, _ := tlstest.Certificate(t)
	withTLS, withClients := &kind.ServerTLS{Cert: cert, Key: key}, &kind.ServerTLS{Cert: cert, Key: key, ClientCA: cert}
	tests := []struct {
		address string
		tls     *kind.ServerTLS
		token   kind.Secret
		want    string // "" for good
	}{
		{"127.0.0.1:7070", nil, "", ""},
		{"127.8.9.10:7070", nil, "", ""},
		{"localhost:0", nil, "", ""},
		{"LocalHost.:0", nil, "", ""},
		{"[::1]:7070", nil, "", ""},
		{"[::ffff:127.0.0.1]:7070", nil, "", ""},
		{"0.0.0.0:7070", nil, "", "set tls and a token (or tls.client_ca), or listen on 127.0.0.1:7070"},
		{":7070", nil, "", "listen on 127.0.0.1:7070"},
		{"[::]:7070", nil, "", "127.0.0.1:7070"},
		{"10.1.2.3:80", nil, "t", "set tls, or"},
		{"10.1.2.3:80", withTLS, "", "set a token (or tls.client_ca), or"},
		{"localhost.example.com:80", nil, "", "127.0.0.1:80"},
		{"127.0.0.1.example.com:80", nil, "", "127.0.0.1:80"},
		{"10.1.2.3:80", withTLS, "t", ""},
		{"10.1.2.3:80", withClients, "", ""},
		{"7070", nil, "", "host:port"},
		{"", nil, "", "host:port"},
	}
	for _, tt := range tests {
		_, err := New(Config{Address: tt.address, TLS: tt.tls, Token: tt.token, Control: &control{}})
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.address, err)
			}
			continue
		}
		var refused *AddressError
		if !errors.As(err, &refused) || refused.Address != tt.address || !strings.Contains(err.Error(), tt.want) ||
			errors.Is(err, ErrUnsafe) == strings.Contains(tt.want, "host:port") {
			t.Errorf("%s: %v, want %q", tt.address, err, tt.want)
		}
	}
	if _, err := New(Config{Address: "127.0.0.1:0"}); err == nil {
		t.Error("made without a control")
	}
	if _, err := New(Config{Address: "127.0.0.1:0", Control: &control{}, TLS: &kind.ServerTLS{Cert: "none", Key: "none"}}); err == nil {
		t.Error("made without a certificate")
	}
}

// Promise: what counts is where the listener is, not what its address is called.
func TestListenerElsewhere(t *testing.T) {
	s, err := New(Config{Address: "localhost:0", Control: &control{}, Listen: func(ctx context.Context, network, _ string) (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, network, "0.0.0.0:0")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrUnsafe) {
		t.Errorf("error %v", err)
	}
}

// Promise: a port that is in use is named, with what to do.
func TestPortInUse(t *testing.T) {
	r := start(t, Config{})
	s, err := New(Config{Address: r.addr, Control: &control{}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Start(t.Context())
	var refused *AddressError
	if !errors.As(err, &refused) || refused.Address != r.addr || !strings.Contains(err.Error(), "Choose another port with listen") {
		t.Errorf("error %v", err)
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Logf("the system says %v", err)
	}
	if s.Addr() != nil {
		t.Errorf("address %v", s.Addr())
	}
}

func TestStartOnce(t *testing.T) {
	r := start(t, Config{})
	if err := r.server.Start(t.Context()); !errors.Is(err, ErrStarted) {
		t.Errorf("second Start: %v", err)
	}
	s, err := New(Config{Address: "127.0.0.1:0", Control: &control{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrStarted) {
		t.Errorf("Start after Close: %v", err)
	}
}

// Promise: with a token, nobody gets anything without it but /healthz and /readyz.
func TestToken(t *testing.T) {
	r := start(t, Config{Token: "s3cret", Metrics: http.NotFoundHandler()})
	r.want(200, "ok", "GET", "/healthz")
	r.want(200, "true", "GET", "/readyz")
	for _, path := range []string{"/", "/metrics", "/stats", "/reload", "/elsewhere", "/healthz/", "/./healthz", "//healthz", "/stats?/healthz"} {
		resp, _ := r.ask("GET", path, http.NoBody)
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	r.want(401, "Authorization: Bearer TOKEN", "POST", "/reload")
	for _, wrong := range []string{"Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer (hidden)"} {
		r.want(401, "", "GET", "/stats", "Authorization", wrong)
	}
	r.want(200, "{", "GET", "/stats", "Authorization", "Bearer s3cret")
	r.want(200, "{", "POST", "/reload", "Authorization", "bearer  s3cret")
}

// Promise: pages of other sites change nothing.
func TestCrossOrigin(t *testing.T) {
	reloads := 0
	r := start(t, Config{Control: &control{reload: func(context.Context, string) (Record, error) { reloads++; return Record{}, nil }}})
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example.com"},
		{"Origin", "null"},
		{"Origin", "http://127.0.0.1:1"},
	} {
		r.want(403, "another site", "POST", "/reload", headers...)
	}
	if reloads != 0 {
		t.Errorf("%d reloads", reloads)
	}
	r.want(200, "", "POST", "/reload", "Sec-Fetch-Site", "same-origin")
	r.want(200, "", "POST", "/reload", "Origin", r.url)
	r.want(200, "", "POST", "/reload")
	r.want(200, "", "GET", "/stats", "Sec-Fetch-Site", "cross-site") // no page can read the answer
}

// Promise: a name that means this machine only to a browser that was deceived gets nothing.
func TestHost(t *testing.T) {
	r := start(t, Config{})
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"localhost", "localhost:" + port, "LOCALHOST", "localhost.:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:" + port,
	} {
		r.want(200, "ok", "GET", "/healthz", "Host", host)
	}
	for _, host := range []string{
		"evil.example.com", "evil.example.com:" + port, "localhost.evil.com", "127.0.0.1.evil.com:80", "10.0.0.1", "[::2]:80", "0.0.0.0",
		"127.0.0.1:80:80",
	} {
		r.want(403, "this machine only", "GET", "/healthz", "Host", host)
		r.want(403, "", "POST", "/reload", "Host", host)
	}
	conn := r.dial()
	send(t, conn, "GET /healthz HTTP/1.0\r\n\r\n") // no browser
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("without a host: %s", resp.Status)
	}
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// FuzzHost: a host that is taken for this machine's is a loopback address, or localhost.
func FuzzHost(f *testing.F) {
	for _, s := range []string{
		"localhost", "127.0.0.1:80", "[::1]:80", "[::1", "::1", "::1%lo", "0x7f.1", "127.1", "[[::1]]", "localhost..:1", ":", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !kind.Loopback(kind.Host(s)) || strings.Contains(strings.ToLower(s), "localhost") {
			return
		}
		if a, err := netip.ParseAddrPort(s); err == nil && a.Addr().Unmap().IsLoopback() {
			return
		}
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			host = strings.Trim(s, "[]")
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Unmap().IsLoopback() {
			t.Fatalf("%q is taken for this machine's", s)
		}
	})
}

func TestTLS(t *testing.T) {
	cert, key, pair, pool := tlstest.Certificate(t)
	for _, clients := range []bool{false, true} {
		cfg := Config{Address: "0.0.0.0:0", TLS: &kind.ServerTLS{Cert: cert, Key: key}, Token: "secret"}
		if clients {
			cfg.TLS.ClientCA, cfg.Token = cert, ""
		}
		r := start(t, cfg)
		_, port, err := net.SplitHostPort(r.addr)
		if err != nil {
			t.Fatal(err)
		}
		r.url = "https://127.0.0.1:" + port
		config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		r.client.Transport = &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		if clients {
			resp, err := r.client.Get(r.url + "/healthz")
			if err == nil {
				resp.Body.Close()
				t.Error("served without a client's certificate")
			}
			config = config.Clone()
			config.Certificates = []tls.Certificate{pair}
			r.client.Transport = &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		} else {
			r.want(401, "", "GET", "/stats")
		}
		resp, _ := r.ask("GET", "/stats", http.NoBody, "Authorization", "Bearer secret", "Host", "api.example.com")
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("%s %s", resp.Proto, resp.Status)
		}
	}
}

// The same port speaks HTTP/2 without TLS to those who know.
func TestUnencryptedHTTP2(t *testing.T) {
	r := start(t, Config{})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	r.client.Transport = transport
	if resp, _ := r.ask("GET", "/healthz", http.NoBody); resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
}

func TestBodies(t *testing.T) {
	r := start(t, Config{})
	if resp, text := r.ask("POST", "/reload", strings.NewReader("{}")); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Status, text)
	}
	large := strings.Repeat("x", maxBody+1)
	if resp, text := r.ask("POST", "/reload", strings.NewReader(large)); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s %s", resp.Status, text)
	}
	if resp := r.broken("nonsense\r\n"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a broken body: %s", resp.Status)
	}
}

// Promise: a body that nobody wants is not waited for.
func TestSlowBody(t *testing.T) {
	t.Parallel() // it takes the time that a body has
	if resp := start(t, Config{}).broken("1\r\n"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a body that stands still: %s", resp.Status)
	}
}

// broken sends a request whose body has no end.
func (r *rig) broken(body string) *http.Response {
	r.t.Helper()
	conn := r.dial()
	send(r.t, conn, "POST /reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func TestLargeHeaders(t *testing.T) {
	r := start(t, Config{})
	r.want(431, "", "GET", "/healthz", "X-Large", strings.Repeat("x", 2*maxHeaderBytes))
}

// Promise: more requests than there are places for are refused at once, and /healthz answers still.
func TestTooManyRequests(t *testing.T) {
	entered, goOn := make(chan struct{}, maxRequests), make(chan struct{})
	r := start(t, Config{Metrics: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-goOn
	})})
	done := make(chan struct{})
	for range maxRequests {
		go func() {
			r.want(200, "", "GET", "/metrics")
			done <- struct{}{}
		}()
	}
	for range maxRequests {
		<-entered
	}
	r.want(503, "ask again later", "GET", "/stats")
	r.want(200, "ok", "GET", "/healthz")
	close(goOn)
	for range maxRequests {
		within(t, "a request", done)
	}
	r.want(200, "", "GET", "/stats")
}

// Promise: Close waits for what is under way, and not for connections on which nothing is.
func TestClose(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	r := start(t, Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-goOn
		_, _ = io.WriteString(w, "whole")
	})})
	silent := r.dial()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.want(200, "whole", "GET", "/metrics")
	}()
	within(t, "the request", entered)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := r.server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection stays")
	}
	close(goOn)
	within(t, "the answer", done)
	within(t, "Close", closed)
	if conn, err := net.Dial("tcp", r.addr); err == nil {
		conn.Close()
		t.Error("still accepted")
	}
}

// A listener that fails is logged.
func TestListenerThatFails(t *testing.T) {
	log := make(lineWriter, 1)
	var ln net.Listener
	s, err := New(Config{
		Address: "127.0.0.1:0", Control: &control{}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Listen: func(ctx context.Context, network, address string) (_ net.Listener, err error) {
			ln, err = new(net.ListenConfig).Listen(ctx, network, address)
			return ln, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if line := <-log; !strings.Contains(line, "not served any more") {
		t.Errorf("log %s", line)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// lineWriter passes on what is logged.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}
