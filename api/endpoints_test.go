package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

func TestEndpoints(t *testing.T) {
	c := &control{
		summary: penstock.Summary{Accepted: 7, Rows: []penstock.Row{{Name: "in", Kind: "source", State: "running", Accepted: 7}}},
		memory:  arena.Stats{Budget: 100, Used: [3]int64{1, 2, 3}, Capacity: [3]int64{70, 20, 10}},
	}
	r := start(t, Config{Control: c, Version: "1.2.3", Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "metrics here")
	})})
	r.want(200, "ok", "GET", "/healthz")
	r.want(200, `"ready": true`, "GET", "/readyz")
	r.want(200, "metrics here", "GET", "/metrics")
	r.want(200, "penstock 1.2.3\n", "GET", "/")
	r.want(200, "/metrics", "GET", "/")
	r.want(200, "[]", "GET", "/reload")
	r.want(404, "", "GET", "/elsewhere")
	r.want(405, "", "DELETE", "/reload")
	r.want(405, "", "POST", "/stats")
	var got struct {
		Accepted int
		Version  string
		Rows     []penstock.Row
		Memory   struct {
			Budget  int
			Classes map[string]struct{ Used, Limit int }
		}
	}
	resp, text := r.ask("GET", "/stats", http.NoBody)
	if err := json.Unmarshal([]byte(text), &got); err != nil || resp.Header.Get("Content-Type") != "application/json" ||
		resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v, headers %v", err, resp.Header)
	}
	if got.Accepted != 7 || got.Version != "1.2.3" || len(got.Rows) != 1 || got.Memory.Budget != 100 || got.Memory.Classes["emits"].Used != 2 ||
		got.Memory.Classes["sources"].Limit != 70 {
		t.Errorf("stats %s", text)
	}
}

func TestHandle(t *testing.T) {
	r := start(t, Config{Token: "secret"})
	r.want(404, "", "GET", "/later", "Authorization", "Bearer secret")
	r.server.Handle("GET /later", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "mounted") }))
	r.want(200, "mounted", "GET", "/later", "Authorization", "Bearer secret")
	r.want(401, "", "GET", "/later")
	r.want(403, "", "GET", "/later", "Authorization", "Bearer secret", "Host", "evil.example.com")
	r.want(404, "", "GET", "/metrics", "Authorization", "Bearer secret") // there are none
}

func TestReadiness(t *testing.T) {
	row := func(kind, name, state, err string) penstock.Summary {
		return penstock.Summary{Rows: []penstock.Row{{Name: name, Kind: kind, State: state, Error: err}}}
	}
	tests := []struct {
		name string
		c    *control
		want []string
	}{
		{"ready", &control{summary: row("source", "in", "running", "")}, nil},
		{"an ended source", &control{summary: row("source", "in", "ended", "")}, nil},
		{"a sink that retries", &control{summary: row("sink", "out", "open", "refused")}, nil},
		{"draining", &control{draining: true}, []string{"ending"}},
		{"a failed source", &control{summary: row("source", "in", "failed", "no such file")}, []string{`source "in" has failed: no such file`}},
		{"a quarantined plugin", &control{summary: row("plugin", "p", "quarantined", "")}, []string{`plugin "p" is quarantined`}},
		{"said once", &control{
			summary: row("plugin", "p", "quarantined", ""),
			check:   func(context.Context) error { return errors.New(`plugin "p" is quarantined: it has panicked`) },
		}, []string{`plugin "p" is quarantined: it has panicked`}},
		{"two checks", &control{check: func(context.Context) error {
			return errors.Join(errors.New("no database"), nil, errors.New("no cache"))
		}}, []string{"no database", "no cache"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, Config{Control: tt.c})
			resp, text := r.ask("GET", "/readyz", http.NoBody)
			var got readiness
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			ok := got.Ready == (len(tt.want) == 0) && got.Ready == (resp.StatusCode == http.StatusOK) && len(got.Reasons) == len(tt.want)
			for i := range tt.want {
				ok = ok && strings.Contains(got.Reasons[i], tt.want[i])
			}
			if !ok || !got.Ready && resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%s %s, want %q", resp.Status, text, tt.want)
			}
			r.want(200, "ok", "GET", "/healthz")
		})
	}
}

// Promise: a plugin whose check does not return makes the pipeline not ready within two seconds, however many ask, and its check runs once.
func TestCheckThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		var checks atomic.Int32
		p := &prober{base: t.Context(), control: &control{check: func(context.Context) error {
			checks.Add(1)
			<-goOn
			return nil
		}}}
		for range 3 {
			began := time.Now()
			if got := p.reasons(t.Context()); len(got) != 1 || !strings.Contains(got[0], "have not returned within 2s") {
				t.Errorf("reasons %q", got)
			}
			if took := time.Since(began); took != 2*time.Second {
				t.Errorf("took %v", took)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if got := p.reasons(gone); len(got) != 1 {
			t.Errorf("reasons for one who has gone: %q", got)
		}
		if n := checks.Load(); n != 1 {
			t.Errorf("%d checks", n)
		}
		close(goOn)
		synctest.Wait()
		if got := p.reasons(t.Context()); len(got) != 0 || checks.Load() != 2 {
			t.Errorf("reasons %q after %d checks", got, checks.Load())
		}
	})
}

// Promise: a check that heeds its context is told that it took too long.
func TestCheckThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{base: t.Context(), control: &control{check: func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("database: %w", context.Cause(ctx))
		}}}
		if got := p.reasons(t.Context()); len(got) == 0 {
			t.Error("ready")
		}
		synctest.Wait()
	})
}

// Promise: a plugin that hangs does not keep /healthz from answering.
func TestHealthIsNotReadiness(t *testing.T) {
	t.Parallel() // it takes the time that a check has
	goOn := make(chan struct{})
	entered := make(chan struct{})
	r := start(t, Config{Control: &control{check: func(context.Context) error {
		close(entered)
		<-goOn
		return nil
	}}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.want(503, "have not returned", "GET", "/readyz")
	}()
	within(t, "the check", entered)
	r.want(200, "ok", "GET", "/healthz")
	within(t, "/readyz", done)
	close(goOn)
}

func TestReloads(t *testing.T) {
	c := &control{}
	for i := range 25 {
		c.records = append(c.records, Record{Trigger: fmt.Sprint(i), At: time.Unix(int64(i), 0)})
	}
	r := start(t, Config{Control: c})
	_, text := r.ask("GET", "/reload", http.NoBody)
	var got []Record
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 20 || got[0].Trigger != "24" || got[19].Trigger != "5" || got[0].Added == nil {
		t.Errorf("records %s", text)
	}
	if c.records[24].Trigger != "24" {
		t.Error("the control's records were changed")
	}
}

func TestReload(t *testing.T) {
	record := Record{Trigger: "api", Reloaded: penstock.Reloaded{
		Added: []string{"plugin p"}, Swaps: map[string]penstock.Swapped{"q": {}}, Took: time.Second,
	}}
	tests := []struct {
		name   string
		err    error
		drains bool
		status int
		want   []string
	}{
		{"well", nil, false, 200, []string{`"added": [`, `"plugin p"`, `"removed": []`, `"took_ns": 1000000000`, `"trigger": "api"`}},
		{"busy", fmt.Errorf("reload: %w", penstock.ErrChanging), false, 409, []string{penstock.ErrChanging.Error()}},
		{"ending", nil, true, 409, []string{"ending"}},
		{"a bad file", errors.New("a.yaml:1:2: unknown key \"x\"\na.yaml:3:4: no such kind"), false, 422, []string{
			`"error": "nothing has been changed"`, `"a.yaml:1:2: unknown key \"x\"",`, `"a.yaml:3:4: no such kind"`, `"record": {`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, Config{Control: &control{draining: tt.drains, reload: func(_ context.Context, trigger string) (Record, error) {
				if trigger != "api" {
					t.Errorf("trigger %q", trigger)
				}
				return record, tt.err
			}}})
			for _, want := range tt.want {
				r.want(tt.status, want, "POST", "/reload")
			}
		})
	}
}

// Promise: while a reload is under way, another one is refused, and the first goes on though its client has gone; Close cancels it.
func TestReloadOneAtATime(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	r := start(t, Config{Control: &control{reload: func(ctx context.Context, _ string) (Record, error) {
		close(entered)
		defer close(left)
		<-ctx.Done()
		return Record{}, ctx.Err()
	}}})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/reload", http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		if resp, err := r.client.Do(req); err == nil {
			resp.Body.Close()
			t.Errorf("%s, though the client has gone", resp.Status)
		}
	}()
	within(t, "the reload", entered)
	cancel()
	within(t, "the client", gone)
	r.want(409, "another reload is under way", "POST", "/reload")
	select {
	case <-left:
		t.Error("the reload ended with its client")
	default:
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := r.server.Close(ended); err != nil {
		t.Error(err)
	}
	within(t, "the cancelled reload", left)
}
