package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink/file"
	sourcefile "github.com/penstock-dev/penstock/source/file"
	"github.com/penstock-dev/penstock/telemetry"
)

// live is the control of a real pipeline.
type live struct {
	*penstock.Runtime
	next     func() (penstock.Pipeline, error) // reads the file again
	draining atomic.Bool

	mu      sync.Mutex
	records []Record
}

func (l *live) Reload(ctx context.Context, trigger string) (Record, error) {
	record := Record{At: time.Unix(1, 0), Trigger: trigger}
	p, err := l.next()
	if err == nil {
		record.Reloaded, err = l.Runtime.Reload(ctx, p)
	}
	if err != nil {
		record.Error = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, record)
	return record, err
}

func (l *live) Reloads() []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Record(nil), l.records...)
}

func (l *live) Draining() bool { return l.draining.Load() }

// checked says when it has a message, and checks what it is told.
type checked struct {
	came   chan struct{}
	broken *atomic.Bool
}

var _ plugin.Checker = (*checked)(nil)

func (c *checked) Handle(context.Context, *penstock.Message) error {
	c.came <- struct{}{}
	return nil
}

func (c *checked) Check(context.Context) error {
	if c.broken.Load() {
		return errors.New("no database")
	}
	return nil
}

// Promise: the port tells how a real pipeline does, from before its start to its end, and loads it anew.
func TestRealPipeline(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "in")
	if err := os.WriteFile(path, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := sourcefile.New(sourcefile.Config{Path: path, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := file.New(file.Config{Path: filepath.Join(dir, "out")})
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan struct{}, 10)
	var broken atomic.Bool
	pipeline := func(identity string) penstock.Pipeline {
		return penstock.Pipeline{
			Data: dir, Logger: slog.New(slog.DiscardHandler), Drain: long,
			Sources: []penstock.Source{{Name: "in", From: in, Identity: "file"}},
			Plugins: []penstock.Plugin{{Name: "p", From: []string{"in"}, Identity: identity, New: func() (penstock.Handler, error) {
				return &checked{came: came, broken: &broken}, nil
			}}},
			Sinks: []penstock.Sink{{Name: "out", From: []string{"in"}, To: out, Identity: "file"}},
		}
	}
	rt, err := penstock.New(pipeline("first"))
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := telemetry.Handler(slog.New(slog.DiscardHandler), telemetry.Metrics(rt.Stats, rt.Memory, "1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &live{Runtime: rt, next: func() (penstock.Pipeline, error) { return pipeline("second"), nil }}
	r := start(t, Config{Control: c, Metrics: metrics})
	r.want(503, "idle", http.MethodGet, "/readyz")
	r.want(409, penstock.ErrChanging.Error(), http.MethodPost, "/reload")

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := rt.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-came
	<-came
	r.want(200, "true", http.MethodGet, "/readyz")
	r.want(200, `penstock_accepted_messages_total{kind="source",name="in"} 2`, http.MethodGet, "/metrics")
	r.want(200, `penstock_state{kind="plugin",name="p",state="running"} 1`, http.MethodGet, "/metrics")
	r.want(200, `"accepted": 2`, http.MethodGet, "/stats")
	broken.Store(true)
	r.want(503, "no database", http.MethodGet, "/readyz")
	broken.Store(false)
	r.want(200, "\"changed\": [\n    \"plugin p\"\n  ]", http.MethodPost, "/reload")
	c.next = func() (penstock.Pipeline, error) { return penstock.Pipeline{}, errors.New("p.yaml:1:1: no sources") }
	r.want(422, "p.yaml:1:1: no sources", http.MethodPost, "/reload")
	c.next = func() (penstock.Pipeline, error) { return penstock.Pipeline{}, nil }
	r.want(422, "a pipeline needs at least one", http.MethodPost, "/reload")
	r.want(200, "source in", http.MethodGet, "/reload")
	r.want(200, "true", http.MethodGet, "/readyz")
	c.draining.Store(true)
	r.want(503, "ending", http.MethodGet, "/readyz")
	stop()
	wg.Wait()
	r.want(200, `"settled": 2`, http.MethodGet, "/stats")
	r.want(200, `penstock_settled_messages_total{kind="source",name="in"} 2`, http.MethodGet, "/metrics")
	r.want(409, "ending", http.MethodPost, "/reload")
}
