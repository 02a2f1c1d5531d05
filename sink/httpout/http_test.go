package httpout

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/sink/sinktest"
)

// The http sink sits the exam of all sinks, in the formats that carry any text.
func TestConformance(t *testing.T) {
	for _, tc := range []struct {
		format Format
		pack   Compression
	}{{NDJSON, None}, {NDJSON, Gzip}, {Single, None}} {
		t.Run(fmt.Sprint(tc.format, " ", tc.pack), func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Fixture {
				st := newStore(t, tc.format)
				cfg := one(st.URL)
				cfg.Format, cfg.Compression, cfg.Breaker.Failures, cfg.Batch.Messages = tc.format, tc.pack, 0, 40
				return sinktest.Fixture{
					New:      func() (sink.Sink, error) { return New(cfg) },
					Read:     st.read,
					Break:    st.set,
					Mend:     func() { st.set(-1) },
					Promises: sinktest.Promises{Exact: true, Keeps: true, Binary: tc.format == Single},
				}
			})
		})
	}
}

// Promise: what becomes of messages follows from the status of the answer.
func TestStatuses(t *testing.T) {
	for status, want := range map[int]plugin.Kind{
		200: plugin.KindAck, 201: plugin.KindAck, 202: plugin.KindAck, 204: plugin.KindAck,
		400: plugin.KindReject, 401: plugin.KindRetry, 403: plugin.KindRetry, 404: plugin.KindRetry, 405: plugin.KindRetry,
		407: plugin.KindRetry, 408: plugin.KindRetry, 409: plugin.KindReject, 410: plugin.KindReject, 413: plugin.KindReject,
		415: plugin.KindReject, 422: plugin.KindReject, 425: plugin.KindRetry, 429: plugin.KindRetry, 500: plugin.KindRetry,
		501: plugin.KindRetry, 502: plugin.KindRetry, 503: plugin.KindRetry, 504: plugin.KindRetry, 304: plugin.KindRetry,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			srv, got := listen(t)
			r := newRig(t, one(srv.URL))
			r.send("a")
			(<-got).with(status, "Retry-After", "7")
			err := r.next(1)["a"]
			kind, after := plugin.Classify(err)
			if kind != want {
				t.Errorf("%v, want %v: %v", kind, want, err)
			}
			honoured := slices.Contains([]int{408, 425, 429, 500, 501, 502, 503, 504}, status)
			if (after == 7*time.Second) != honoured || !honoured && after != 0 {
				t.Errorf("to be tried again after %v", after)
			}
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Status != status || !strings.Contains(err.Error(), srv.URL)) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Promise: Retry-After is honoured as seconds and as a date, up to five minutes.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "300": maxAfter, "301": maxAfter, "99999999999999999999999": maxAfter,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(time.Hour).Format(http.TimeFormat): maxAfter,
		now.Add(-time.Hour).Format(http.TimeFormat): 0, now.Add(2 * time.Second).Format(time.RFC850): 2 * time.Second,
		"": -1, "-1": -1, "1.5": -1, "soon": -1, "1 s": -1,
	} {
		got, ok := retryAfter(value, now)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v %v, want %v", value, got, ok, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "Wed, 02 Jan 2030 03:04:05 GMT", "Wednesday, 02-Jan-30 03:04:05 GMT", "18446744073709551616"} {
		f.Add(s, int64(1893553445))
	}
	f.Fuzz(func(t *testing.T, value string, at int64) {
		if d, ok := retryAfter(value, time.Unix(at, 0)); d < 0 || d > maxAfter || !ok && d != 0 {
			t.Errorf("%q at %d: %v %v", value, at, d, ok)
		}
	})
}

// Promise: a request that is too large is sent again in halves; a message that is too large alone goes to the dead letters, alone.
func TestTooLarge(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := unpacked(r)
		if len(data) > 10 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	defer srv.Close()
	r := newRig(t, one(srv.URL))
	r.send("a", "b", "c", "d", "large and larger", "f", "g", "h", "i", "j", "k")
	for p, err := range r.next(11) {
		if kind, _ := plugin.Classify(err); (kind == plugin.KindReject) != (p == "large and larger") || kind != plugin.KindReject && err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if st := r.Stats(); st.Rejected != 1 || st.Split == 0 || st.Failures != 0 {
		t.Errorf("stats %+v", st)
	}
}

// What a request looks like.
func TestRequest(t *testing.T) {
	srv, got := listen(t)
	cfg := one(srv.URL + "/in?x=1")
	cfg.Method, cfg.Token, cfg.Format, cfg.Compression = http.MethodPut, "secret", JSONArray, Gzip
	cfg.Headers = map[string]kind.Secret{"x-team": "blue", "Host": "ingest.example.com", "content-type": "application/vnd.x+json"}
	r := newRig(t, cfg)
	r.must(r.Write(t.Context(), r.lend(
		message{`{"a":1}`, "k", []string{"traceparent", "00-1-2-01"}}, message{`"b"`, "", []string{"traceparent", "00-3-4-01"}},
		message{"no JSON", "", nil}, message{" 3\n", "", nil},
	)))
	r.must(r.Flush(t.Context()))
	q := <-got
	q.with(200)
	for name, want := range map[string]string{
		"X-Team": "blue", "Authorization": "Bearer secret", "Content-Type": "application/vnd.x+json", "Traceparent": "00-1-2-01",
		"Content-Encoding": "gzip", "User-Agent": "penstock",
	} {
		if v := q.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if q.Method != http.MethodPut || q.Host != "ingest.example.com" || q.URL.String() != "/in?x=1" || q.ContentLength <= 0 {
		t.Errorf("%s %s to %s, %d bytes", q.Method, q.URL, q.Host, q.ContentLength)
	}
	var array []any
	if err := json.Unmarshal([]byte(q.body), &array); err != nil || len(array) != 3 {
		t.Errorf("body %q: %v", q.body, err)
	}
	f := r.next(4)
	if k, _ := plugin.Classify(f["no JSON"]); k != plugin.KindReject || !errors.Is(f["no JSON"], ErrNotJSON) || f[`"b"`] != nil {
		t.Errorf("fates %v", f)
	}
}

// Promise: the key is the same for the same messages, and another one for others; traces do not count.
func TestIdempotencyKey(t *testing.T) {
	srv, got := listen(t)
	cfg := one(srv.URL)
	cfg.IdempotencyKey = true
	r := newRig(t, cfg)
	key := func(msgs ...message) string {
		r.must(r.Write(t.Context(), r.lend(msgs...)))
		r.must(r.Flush(t.Context()))
		q := <-got
		q.with(200)
		r.next(len(msgs))
		return q.Header.Get("Idempotency-Key")
	}
	a := key(message{"a", "k", []string{"h", "v", "traceparent", "1"}}, message{"b", "", nil})
	if again := key(message{"a", "k", []string{"h", "v", "traceparent", "2"}}, message{"b", "", nil}); again != a || len(a) != 2*keyBytes {
		t.Errorf("keys %q and %q of the same messages", a, again)
	}
	seen := map[string]bool{a: true}
	for _, msgs := range [][]message{
		{{"a", "k", []string{"h", "v"}}},
		{{"a", "k", []string{"h", "w"}}, {"b", "", nil}},
		{{"a", "", []string{"h", "v"}}, {"b", "", nil}},
		{{"ab", "", nil}},
		{{"a", "b", nil}},
		{{"a", "", nil}, {"b", "", nil}},
		{{"b", "", nil}, {"a", "", nil}},
	} {
		k := key(msgs...)
		if seen[k] {
			t.Errorf("%v has the key of others", msgs)
		}
		seen[k] = true
	}
}

// Lines of ndjson: JSON over several lines is sent in one; what is no JSON and has several is rejected.
func TestLineEndsWithinMessages(t *testing.T) {
	srv, got := listen(t)
	r := newRig(t, one(srv.URL))
	r.send("{\n \"a\": 1\r\n}", "not\njson", "plain")
	q := <-got
	q.with(200)
	if want := "{  \"a\": 1  }\nplain\n"; q.body != want {
		t.Errorf("body %q, want %q", q.body, want)
	}
	f := r.next(3)
	if k, _ := plugin.Classify(f["not\njson"]); k != plugin.KindReject || !errors.Is(f["not\njson"], ErrNotJSON) || f["plain"] != nil {
		t.Errorf("fates %v", f)
	}
}

// Promise: a request holds no more messages and bytes than it may; with concurrency 1 they keep their order, whatever batches they came in.
func TestBatches(t *testing.T) {
	var mu sync.Mutex
	var sizes []int
	var lines []string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		data, _ := unpacked(r)
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, len(data))
		lines = append(lines, strings.Fields(string(data))...)
	}))
	defer srv.Close()
	cfg := one(srv.URL)
	cfg.Batch = Batch{Messages: 4, Bytes: 20}
	r := newRig(t, cfg)
	var want []string
	for i := range 5 {
		var msgs []message
		for k := range 7 {
			p := strings.Repeat(string(rune('a'+k)), 1+(i*k)%12)
			want, msgs = append(want, p), append(msgs, message{payload: p})
		}
		r.must(r.Write(t.Context(), r.lend(msgs...)))
	}
	huge := strings.Repeat("z", 100)
	want = append(want, huge)
	r.must(r.Write(t.Context(), r.lend(message{payload: huge})))
	r.must(r.Close(t.Context()))
	if !slices.Equal(lines, want) {
		t.Errorf("arrived %q, want %q", lines, want)
	}
	for i, n := range sizes {
		if n > 20+4 && i < len(sizes)-1 {
			t.Errorf("request %d has %d bytes", i, n)
		}
	}
}

// Promise: requests run side by side, as many as they may; a Write that waits for one to end gives up with its context.
func TestConcurrency(t *testing.T) {
	srv, got := listen(t)
	cfg := one(srv.URL)
	cfg.Concurrency = 3
	r := newRig(t, cfg)
	var open []request
	for i := range 3 {
		r.send(fmt.Sprint(i))
		open = append(open, <-got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.must(r.Write(ctx, r.lend(message{payload: "late"})))
	r.must(r.Flush(ctx))
	if f := r.next(1); !errors.Is(f["late"], context.Canceled) {
		t.Errorf("fates %v", f)
	}
	for i, q := range slices.Backward(open) {
		q.with(200)
		if f := r.next(1); len(f) != 1 || f[fmt.Sprint(i)] != nil {
			t.Errorf("request %d: %v", i, f)
		}
	}
}

// Promise: Close waits for answers, and gives up what is under way when its context ends.
func TestClose(t *testing.T) {
	srv, got := listen(t)
	r := newRig(t, one(srv.URL))
	r.must(r.Write(t.Context(), r.lend(message{payload: "a"})))
	ended := make(chan error)
	go func() { ended <- r.Close(t.Context()) }()
	(<-got).with(200)
	r.must(<-ended)
	if f := r.next(1); f["a"] != nil {
		t.Errorf("fates %v", f)
	}

	r = newRig(t, one(srv.URL))
	r.send("b")
	<-got
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- r.Close(ctx) }()
	cancel()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("Close: %v", err)
	}
	if f := r.next(1); !errors.Is(f["b"], ErrClosed) {
		t.Errorf("fates %v", f)
	}
}

// TLS: the endpoint's certificate is checked.
func TestTLS(t *testing.T) {
	st := &store{format: NDJSON, room: -1}
	st.Server = httptest.NewUnstartedServer(st)
	st.EnableHTTP2 = true
	st.Config.ErrorLog = nil
	st.StartTLS()
	defer st.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: st.Certificate().Raw})
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := one(st.URL)
	cfg.TLS = &kind.ClientTLS{CA: ca}
	r := newRig(t, cfg)
	r.send("a", strings.Repeat("b", 300_000))
	for p, err := range r.next(2) {
		if err != nil {
			t.Errorf("%.5s: %v", p, err)
		}
	}
	cfg.TLS = nil
	r = newRig(t, cfg)
	r.send("a")
	if f := r.next(1); f["a"] == nil || !strings.Contains(f["a"].Error(), "certificate") {
		t.Errorf("a stranger: %v", f)
	}
	cfg.TLS = &kind.ClientTLS{CA: filepath.Join(t.TempDir(), "none")}
	s, err := New(cfg)
	r.must(err)
	if err := s.Open(t.Context(), sink.Env{}); err == nil {
		t.Error("Open without its certificates succeeds")
	}
	r.must(s.Close(t.Context()))
}

func TestSettingsAreChecked(t *testing.T) {
	good := Defaults()
	good.URL = "https://example.com/in"
	if p := good.Check(); len(p) > 0 {
		t.Fatalf("problems: %v", p)
	}
	for field, spoil := range map[string]func(c *Config){
		"url":                    func(c *Config) { c.URL = "example.com" },
		"tls":                    func(c *Config) { c.URL, c.TLS = "http://example.com", &kind.ClientTLS{} },
		"method":                 func(c *Config) { c.Method = "GET" },
		"format":                 func(c *Config) { c.Format = "xml" },
		"compression":            func(c *Config) { c.Compression = "zip" },
		"batch.messages":         func(c *Config) { c.Batch.Messages = 0 },
		"batch.bytes":            func(c *Config) { c.Batch.Bytes = 0 },
		"timeout":                func(c *Config) { c.Timeout = 0 },
		"concurrency":            func(c *Config) { c.Concurrency = 0 },
		"breaker.failures":       func(c *Config) { c.Breaker.Failures = -1 },
		"breaker.open_for":       func(c *Config) { c.Breaker.OpenFor = 0 },
		"token":                  func(c *Config) { c.Token = "a\nb" },
		"headers.a b":            func(c *Config) { c.Headers = map[string]kind.Secret{"a b": "c"} },
		"headers.a":              func(c *Config) { c.Headers = map[string]kind.Secret{"a": "b\r\nc: d"} },
		"headers.content-length": func(c *Config) { c.Headers = map[string]kind.Secret{"content-length": "1"} },
		"headers.authorization":  func(c *Config) { c.Headers, c.Token = map[string]kind.Secret{"authorization": "x"}, "y" },
	} {
		c := good
		spoil(&c)
		if p := c.Check(); len(p) != 1 || p[0].Field != field {
			t.Errorf("%s: problems %v", field, p)
		}
		if _, err := New(c); err == nil {
			t.Errorf("%s: New succeeds", field)
		}
	}
	k := Kind()
	if _, err := k.NewSink(good, kind.Env{}); err != nil {
		t.Error(err)
	}
}

// Promise: one message that the endpoint will not have takes no other with it.
func TestPoisonStandsAlone(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, err := io.ReadAll(r.Body); err != nil || strings.Contains(string(text), "poison") {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	defer srv.Close()
	r := newRig(t, one(srv.URL))
	var msgs []message
	for i := range 9 {
		msgs = append(msgs, message{payload: fmt.Sprint(i)})
	}
	msgs[5].payload = "poison"
	r.must(r.Write(t.Context(), r.lend(msgs...)))
	r.must(r.Flush(t.Context()))
	for payload, err := range r.next(len(msgs)) {
		if k, _ := plugin.Classify(err); (payload == "poison") != (k == plugin.KindReject) || payload != "poison" && err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
}
