package httpout

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// notes is a log.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

func (n *notes) logger() *slog.Logger { return slog.New(slog.NewTextHandler(n, nil)) }

// mustRetry checks the fate of a message.
func (r *rig) mustRetry(payload string, after time.Duration, is error) {
	r.Helper()
	err := r.next(1)[payload]
	if kind, a := plugin.Classify(err); kind != plugin.KindRetry || a != after || is != nil && !errors.Is(err, is) {
		r.Errorf("%v, want a retry after %v", err, after)
	}
}

func (r *rig) mustBe(state string) {
	r.Helper()
	if st := r.Status(); st.State != state || st.Since.IsZero() {
		r.Errorf("status %+v, want %s", st, state)
	}
}

// Promise: after so many failed requests in a row nothing is sent for a while; then one request tries, and decides. Messages wait in the
// sink meanwhile, which is no attempt. All of it shows.
func TestBreaker(t *testing.T) {
	srv, got := listen(t)
	cfg := one(srv.URL)
	cfg.Concurrency = 2
	cfg.Breaker = Breaker{Failures: 3, OpenFor: 20 * time.Second}
	r := newRig(t, cfg)
	r.mustBe("ok")
	for i := range 3 {
		r.send("a")
		(<-got).with(500)
		r.mustRetry("a", 0, nil)
		if i < 2 {
			r.mustBe("retrying")
		}
	}
	r.mustBe("open")
	r.clock.Advance(10 * time.Second)
	r.send("a")
	r.clock.waits(10 * time.Second)
	r.mustBe("open")
	r.clock.Advance(10 * time.Second)
	trial := <-got
	r.mustBe("half-open")
	r.send("b")
	r.clock.waits(trialWait) // one at a time
	trial.with(503, "Retry-After", "60")
	r.mustRetry("a", 60*time.Second, nil)
	r.mustBe("open")
	r.clock.Advance(time.Second)
	r.clock.waits(59 * time.Second) // longer than open_for: the endpoint has asked for it
	r.mustBe("open")
	r.clock.Advance(59 * time.Second)
	(<-got).with(200)
	if f := r.next(1); f["b"] != nil {
		t.Errorf("after the trial: %v", f)
	}
	r.mustBe("ok")
	r.send("a")
	(<-got).with(500)
	r.mustRetry("a", 0, nil) // counts from one
	r.mustBe("retrying")
	if st := r.Stats(); st != (Stats{Requests: 6, Failures: 5, Opened: 1, Held: 2}) {
		t.Errorf("stats %+v", st)
	}
}

// Promise: a sink that is closed while its breaker is open waits for nothing, and neither does a Write whose context ends.
func TestCloseWhileOpen(t *testing.T) {
	srv, got := listen(t)
	cfg := one(srv.URL)
	cfg.Breaker.Failures = 1
	r := newRig(t, cfg)
	r.send("a")
	(<-got).with(500)
	r.mustRetry("a", 0, nil)
	r.send("b")
	r.clock.waits(30 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.must(r.Write(ctx, r.lend(message{payload: "c"})))
	r.must(r.Flush(ctx))
	if f := r.next(1); !errors.Is(f["c"], context.Canceled) {
		t.Errorf("fates %v", f)
	}
	r.must(r.Write(t.Context(), r.lend(message{payload: "d"})))
	r.must(r.Close(t.Context()))
	for p, err := range r.next(2) {
		if k, after := plugin.Classify(err); k != plugin.KindRetry || after != 0 || !errors.Is(err, ErrOpen) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// The log names the sink once, and says that the breaker is open when it opens, and once a minute as long as it is.
func TestLog(t *testing.T) {
	srv, got := listen(t)
	cfg := one(srv.URL)
	cfg.Breaker = Breaker{Failures: 2, OpenFor: 10 * time.Second}
	log := &notes{}
	r := newLogged(t, cfg, log.logger())
	for i := range 10 { // the first two open it, and then there is a trial each ten seconds
		r.send("a")
		if i >= 2 {
			r.clock.waits(10 * time.Second)
			r.clock.Advance(10 * time.Second)
		}
		(<-got).with(500)
		r.mustRetry("a", 0, nil)
	}
	r.send("a")
	r.clock.waits(10 * time.Second)
	r.clock.Advance(10 * time.Second)
	(<-got).with(200)
	r.next(1)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	says := []string{"a request failed", "breaker is open", "breaker is still open", "breaker is closed"}
	if len(lines) != len(says) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(says), log)
	}
	for i, line := range lines {
		if !strings.Contains(line, says[i]) || strings.Count(line, "sink=out") != 1 || strings.Contains(line, "http sink") ||
			strings.Count(line, "POST") != 1 {
			t.Errorf("line %d: %s", i, line)
		}
	}
}
