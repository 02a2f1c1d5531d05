package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// long is how long something that must happen may take.
const long = 20 * time.Second

// control is a pipeline that says what a test wants. What is nil goes well and says nothing.
type control struct {
	check    func(ctx context.Context) error
	summary  penstock.Summary
	memory   arena.Stats
	reload   func(ctx context.Context, trigger string) (Record, error)
	records  []Record
	draining bool
}

func (c *control) Check(ctx context.Context) error {
	if c.check == nil {
		return nil
	}
	return c.check(ctx)
}

func (c *control) Reload(ctx context.Context, trigger string) (Record, error) {
	if c.reload == nil {
		return Record{Trigger: trigger}, nil
	}
	return c.reload(ctx, trigger)
}

func (c *control) Stats() penstock.Summary { return c.summary }
func (c *control) Memory() arena.Stats     { return c.memory }
func (c *control) Reloads() []Record       { return c.records }
func (c *control) Draining() bool          { return c.draining }

// rig is a server that runs, and a client of it.
type rig struct {
	t      *testing.T
	server *Server
	addr   string
	url    string
	client *http.Client
}

func start(t *testing.T, cfg Config) *rig {
	t.Helper()
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	if cfg.Control == nil {
		cfg.Control = &control{}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, server: s, addr: s.Addr().String(), client: &http.Client{Transport: &http.Transport{}, Timeout: long}}
	r.url = "http://" + r.addr
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// ask makes a request. headers are names and values; "Host" is what the client believes to have reached.
func (r *rig) ask(method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(text)
}

// want asks and checks the status and what the answer holds.
func (r *rig) want(status int, holds, method, path string, headers ...string) {
	r.t.Helper()
	if resp, text := r.ask(method, path, http.NoBody, headers...); resp.StatusCode != status || !strings.Contains(text, holds) {
		r.t.Errorf("%s %s %q: %s, want %d with %q\n%s", method, path, headers, resp.Status, status, holds, text)
	}
}

// within waits for done.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(long):
		t.Fatalf("%s takes longer than %v", what, long)
	}
}
