package httpin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/source/httpin"
)

// Promise: in a whole pipeline that is stopped under load, what was answered as settled has been handled.
func TestPipelineStops(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httpin.Defaults()
	s.Address = ln.Addr().String()
	src, err := httpin.New(s, kind.Env{Listen: func(context.Context, string, string) (net.Listener, error) { return ln, nil }})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	handled := map[string]bool{}
	enough := make(chan struct{})
	rt, err := penstock.New(penstock.Pipeline{
		Data: t.TempDir(), Memory: 64 << 20, Drain: 10 * time.Second, Logger: slog.New(slog.DiscardHandler),
		Sources: []penstock.Source{{Name: "in", From: src}},
		Plugins: []penstock.Plugin{{Name: "note", From: []string{"in"}, New: func() (penstock.Handler, error) {
			return plugin.HandlerFunc(func(_ context.Context, m *penstock.Message) error {
				mu.Lock()
				defer mu.Unlock()
				if string(m.Header("content-type")) != "application/x-ndjson" {
					t.Errorf("a message has the content type %q", m.Header("content-type"))
				}
				if handled[string(m.Payload())] = true; len(handled) == 5000 {
					close(enough)
				}
				return nil
			}), nil
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	transport := &http.Transport{}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	var settled []string
	for c := range 8 {
		clients.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				var lines []string
				for i := range 100 {
					lines = append(lines, fmt.Sprintf("%d %d %d %s", c, round, i, strings.Repeat("x", i*10)))
				}
				resp, err := client.Post("http://"+s.Address, "application/x-ndjson", strings.NewReader(strings.Join(lines, "\n")))
				if err != nil {
					continue
				}
				var says struct{ Accepted, Unsettled int }
				err = json.NewDecoder(resp.Body).Decode(&says)
				resp.Body.Close()
				if err != nil {
					t.Error(err)
				}
				if says.Unsettled == 0 {
					mu.Lock()
					settled = append(settled, lines[:says.Accepted]...)
					mu.Unlock()
				}
			}
		})
	}
	go func() {
		<-enough
		cancel()
	}()
	summary, err := rt.Run(ctx)
	if err != nil {
		t.Error(err)
	}
	clients.Wait()
	transport.CloseIdleConnections()
	for _, m := range settled {
		if !handled[m] {
			t.Fatalf("%q was answered as settled, but was not handled", m)
		}
	}
	if len(settled) < 4000 || summary.Accepted != summary.Settled {
		t.Errorf("%d answered, %d handled, %d accepted, %d settled", len(settled), len(handled), summary.Accepted, summary.Settled)
	}
}
