package httpin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestBodies(t *testing.T) {
	long := strings.Repeat("x", 1000)
	tests := []struct {
		name    string
		frame   string
		delim   string
		body    string
		headers []string
		want    []string
	}{
		{"one message", "", "", `{"a":1}`, []string{"Content-Type", "application/json"}, []string{`{"a":1}`}},
		{"one message with newlines", "", "", "a\nb\n", nil, []string{"a\nb\n"}},
		{"no message", "", "", "", nil, nil},
		{"ndjson", "", "", "{}\n[]\n", []string{"Content-Type", "application/x-ndjson"}, []string{"{}", "[]"}},
		{"ndjson with parameters", "", "", "{}\n[]", []string{"Content-Type", "Application/X-NDJSON; charset=utf-8"}, []string{"{}", "[]"}},
		{"ndjson where frames are u32", "u32", "", "{}\n", []string{"Content-Type", "application/x-ndjson"}, []string{"{}"}},
		{"lines", "lines", "", "a\r\n\nb", nil, []string{"a", "", "b"}},
		{"lines with a delimiter", "lines", "||", "a||b\n||", nil, []string{"a", "b\n"}},
		{"u32", "u32", "", "\x00\x00\x00\x01a\x00\x00\x00\x02bc", nil, []string{"a", "bc"}},
		{"varint", "varint", "", "\x01a\x02bc", nil, []string{"a", "bc"}},
		{"gzip", "", "", string(zipped([]byte("hello"))), []string{"Content-Encoding", "gzip"}, []string{"hello"}},
		{"gzip of ndjson", "", "", string(zipped([]byte("a\nb\n"))), []string{
			"Content-Encoding", "GZIP", "Content-Type", "application/x-ndjson",
		}, []string{"a", "b"}},
		{"gzip of nothing", "", "", string(zipped(nil)), []string{"Content-Encoding", "gzip"}, nil},
		{"nothing, as gzip", "", "", "", []string{"Content-Encoding", "gzip"}, nil},
		{"identity", "", "", "x", []string{"Content-Encoding", "identity"}, []string{"x"}},
		{"longer", "lines", "", strings.Repeat(long+"\n", 3), nil, []string{long, long, long}},
	}
	for _, tt := range tests {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", tt.name, chunked), func(t *testing.T) {
				r := start(t, rigConfig{env: kind.Env{Frame: tt.frame, Delimiter: tt.delim}})
				var body io.Reader = strings.NewReader(tt.body)
				if chunked {
					body = struct{ io.Reader }{body}
				}
				status, s := r.must(body, tt.headers...)
				if got := r.payloads(); status != 200 || s.Accepted != len(tt.want) || strings.Join(got, "¦") != strings.Join(tt.want, "¦") {
					t.Errorf("%d %+v, messages %q, want %q", status, s, got, tt.want)
				}
			})
		}
	}
}

func TestRefused(t *testing.T) {
	const most = 1000 // a message
	small := func(s *Settings) { s.MaxBody = 10_000 }
	bomb := string(zipped(make([]byte, 20<<20)))
	nd := []string{"Content-Type", "application/x-ndjson"}
	gz := append([]string{"Content-Encoding", "gzip"}, nd...)
	token := func(s *Settings) { s.Tokens = []kind.Secret{"first", "second"} }
	at := func(path string) func(*http.Request) { return func(r *http.Request) { r.URL.Path = path } }
	by := func(method string) func(*http.Request) { return func(r *http.Request) { r.Method = method } }
	tests := []struct {
		name     string
		settings func(*Settings)
		frame    string
		body     string
		headers  []string
		change   func(*http.Request)
		status   int
		accepted int
		says     string
		header   string // "Name: value" that must be there
	}{
		{"other path", small, "", "x", nil, at("/other"), 404, 0, "path", ""},
		{"GET", small, "", "", nil, by("GET"), 405, 0, "POST", "Allow: POST, PUT"},
		{"DELETE", small, "", "x", nil, by("DELETE"), 405, 0, "POST", "Allow: POST, PUT"},
		{"no token", token, "", "x", nil, nil, 401, 0, "Bearer", "Www-Authenticate: Bearer"},
		{"wrong token", token, "", "x", []string{"Authorization", "Bearer firs"}, nil, 401, 0, "Bearer", ""},
		{"other scheme", token, "", "x", []string{"Authorization", "Basic first"}, nil, 401, 0, "Bearer", ""},
		{"endless token", token, "", "x", []string{"Authorization", "Bearer " + strings.Repeat("x", 2000)}, nil, 401, 0, "Bearer", ""},
		{"unknown encoding", small, "", "x", []string{"Content-Encoding", "br"}, nil, 415, 0, "gzip", "Accept-Encoding: gzip"},
		{"two encodings", small, "", "x", []string{"Content-Encoding", "gzip, gzip"}, nil, 415, 0, "gzip", ""},
		{"body too large", small, "", strings.Repeat("x\n", 6000), nd, nil, 413, -1, "max_body", ""},
		{"message too large", small, "", strings.Repeat("x", most+1), nil, nil, 413, 0, "1000 bytes", ""},
		{"line too large", small, "", "a\nb\n" + strings.Repeat("x", most+1) + "\nc\n", nd, nil, 413, 2, "1000 bytes", ""},
		{"last line too large", small, "", "a\nb\n" + strings.Repeat("x", most+1), nd, nil, 413, 2, "1000 bytes", ""},
		{"frame too large", small, "u32", "\x00\x00\x00\x01a\xff\xff\xff\xffb", nil, nil, 413, 1, "1000 bytes", ""},
		{"frame cut off", small, "u32", "\x00\x00\x00\x01a\x00\x00\x00\x05b", nil, nil, 400, 1, "u32", ""},
		{"no length", small, "varint", "\x01a" + strings.Repeat("\xff", 11), nil, nil, 400, 1, "64 bits", ""},
		{"not gzip", small, "", "plain text, no gzip at all", gz, nil, 400, 0, "gzip", ""},
		{"gzip cut off", small, "", string(zipped([]byte("a\nb\n"))[:20]), gz, nil, 400, -1, "gzip", ""},
		{"gzip with more behind", small, "", string(zipped([]byte("a\nb\n"))) + "more", gz, nil, 400, 2, "gzip", ""},
		{"gzip bomb", small, "", bomb, gz, nil, 413, -1, "max_body", ""},
		{"gzip bomb in one message", small, "", bomb, gz[:2], nil, 413, 0, "", ""},
	}
	for _, tt := range tests {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", tt.name, chunked), func(t *testing.T) {
				r := start(t, rigConfig{settings: tt.settings, env: kind.Env{Frame: tt.frame}, intake: sourcetest.IntakeConfig{MaxBytes: most}})
				var body io.Reader = strings.NewReader(tt.body)
				if chunked {
					body = struct{ io.Reader }{body}
				}
				req, _ := http.NewRequest(http.MethodPost, r.url, body)
				for i := 0; i < len(tt.headers); i += 2 {
					req.Header.Set(tt.headers[i], tt.headers[i+1])
				}
				if tt.change != nil {
					tt.change(req)
				}
				resp, err := r.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				status, s := read(t, resp)
				if status != tt.status || !strings.Contains(s.Error, tt.says) || tt.accepted >= 0 && s.Accepted != tt.accepted || s.Unsettled != 0 {
					t.Errorf("%d %+v, want %d, %d accepted, something with %q", status, s, tt.status, tt.accepted, tt.says)
				}
				if len(r.messages()) != s.Accepted {
					t.Errorf("%d messages came, but the answer says %d", len(r.messages()), s.Accepted)
				}
				if refused := r.reported(); refused.Status != tt.status || refused.Accepted != s.Accepted || refused.Remote == "" {
					t.Errorf("reported %+v", refused)
				}
				if name, value, ok := strings.Cut(tt.header, ": "); ok && resp.Header.Get(name) != value {
					t.Errorf("header %s is %q, want %q", name, resp.Header.Get(name), value)
				}
			})
		}
	}
}

func TestTokens(t *testing.T) {
	r := start(t, rigConfig{settings: func(s *Settings) { s.Tokens = []kind.Secret{"first", "second"} }})
	for _, h := range []string{"Bearer first", "bearer second"} {
		if status, s := r.must(strings.NewReader("x"), "Authorization", h); status != 200 {
			t.Errorf("%s: %d %+v", h, status, s)
		}
	}
}

// Promise: every message of a request keeps its headers, also where the body goes over many slabs and messages outgrow one.
func TestHeaders(t *testing.T) {
	for _, size := range []int{0, 1, 10, 500, 3000, 4000, 4090, 4096, 5000, 9000, 70_000} {
		for _, headers := range []int{0, 100, 600, 5000} {
			for _, zip := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d bytes, %d of headers, gzip %v", size, headers, zip), func(t *testing.T) {
					r := start(t, rigConfig{
						settings: func(s *Settings) { s.Headers = []string{"X-One", "x-two", "x-none"} },
						intake:   sourcetest.IntakeConfig{SlabSize: 4096, MaxBytes: 80_000},
					})
					var body []byte
					var want []string
					for i := range 40 {
						line := fmt.Sprint(i) + strings.Repeat(string(rune('a'+i%26)), max(size-i%5, 0))
						want = append(want, line)
						body = append(append(body, line...), '\n')
					}
					args := []string{"Content-Type", "application/x-ndjson"}
					value := strings.Repeat("h", headers)
					if headers > 0 {
						args = append(args, "X-One", value, "X-Two", "1", "x-two", "2")
					}
					if zip {
						body, args = zipped(body), append(args, "Content-Encoding", "gzip")
					}
					if status, s := r.must(bytes.NewReader(body), args...); status != 200 || s.Accepted != len(want) {
						t.Fatalf("%d %+v", status, s)
					}
					for i, g := range r.messages() {
						if g.payload != want[i] {
							t.Fatalf("message %d is not what was sent: %.60q", i, g.payload)
						}
						if headers > 0 && (len(g.headers) != 2 || g.headers["x-one"] != value || g.headers["x-two"] != "1, 2") {
							t.Fatalf("message %d has the headers %.100v", i, g.headers)
						}
						if headers == 0 && len(g.headers) > 0 {
							t.Fatalf("message %d has the headers %.100v", i, g.headers)
						}
					}
				})
			}
		}
	}
}

// signalling is a manual clock that says when somebody has asked to be woken.
type signalling struct {
	*clock.Manual
	asked chan time.Duration
}

func (c signalling) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := c.Manual.AfterFunc(d, f)
	select {
	case c.asked <- d:
	default:
	}
	return t
}

// Promise: a request is answered 504 at its settle_timeout, and what it brought stays accepted; its receipts do nothing afterwards.
func TestSettleTimeout(t *testing.T) {
	c := signalling{clock.NewManual(time.Unix(0, 0)), make(chan time.Duration, 100)}
	r := start(t, rigConfig{intake: sourcetest.IntakeConfig{Clock: c}, hold: true, settings: func(s *Settings) { s.SettleTimeout = time.Hour }})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		status, s := r.must(strings.NewReader("a\nb\n"), "Content-Type", "application/x-ndjson")
		if status != 504 || s.Accepted != 2 || s.Unsettled != 2 {
			t.Errorf("%d %+v, want 504 with 2 of 2 unsettled", status, s)
		}
	}()
	for d := range c.asked {
		if d == time.Hour {
			break
		}
	}
	c.Advance(time.Hour - 1)
	select {
	case <-answered:
		t.Error("answered before its time")
	default:
	}
	c.Advance(1)
	within(t, "the request", answered)
	r.settle(source.Settled)
	if n := r.src.Requests(); n != 0 {
		t.Errorf("%d requests are under way", n)
	}
}

func TestWindowFull(t *testing.T) {
	r := start(t, rigConfig{intake: sourcetest.IntakeConfig{Window: 2}, hold: true, patience: 20 * time.Millisecond})
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, s := r.must(strings.NewReader("a\nb\n"), "Content-Type", "application/x-ndjson"); status != 200 || s.Accepted != 2 {
			t.Errorf("the first: %d %+v", status, s)
		}
	})
	r.arrive(2)
	resp, err := r.post(strings.NewReader("c"))
	if err != nil {
		t.Fatal(err)
	}
	if status, s := read(t, resp); status != 429 || s.Accepted != 0 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("the second: %d %+v %v", status, s, resp.Header)
	}
	r.settle(source.Settled)
	wg.Wait()
	if n := len(r.in.Reports()); n > 0 {
		t.Errorf("reported %v, but nobody is at fault", r.in.Reports())
	}
}

// Promise: what comes before the window is full stays accepted, and is settled by the time that the answer says so.
func TestWindowFullWithin(t *testing.T) {
	r := start(t, rigConfig{intake: sourcetest.IntakeConfig{Window: 2, MaxBatch: 2}, hold: true, patience: 20 * time.Millisecond})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		status, s := r.must(strings.NewReader("a\nb\nc\nd\n"), "Content-Type", "application/x-ndjson")
		if status != 429 || s.Accepted != 2 || s.Unsettled != 0 {
			t.Errorf("%d %+v, want 429 and 2 accepted", status, s)
		}
	}()
	r.arrive(2)
	r.until("the request to give up", func() bool { return r.src.ledgerReading() == 0 })
	r.settle(source.Settled)
	within(t, "the request", answered)
	if got := r.payloads(); len(got) != 2 {
		t.Errorf("messages %q", got)
	}
}

func (s *Source) ledgerReading() int {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	return s.ledger.reading
}

// Promise: a request waits for memory only so long, whatever others hold.
func TestMemoryFull(t *testing.T) {
	r := start(t, rigConfig{
		intake: sourcetest.IntakeConfig{Budget: 16 * 4 << 10, SlabSize: 4 << 10}, hold: true, patience: 20 * time.Millisecond,
	})
	const n = 30
	statuses := make(chan int, n)
	for range n {
		go func() {
			status, _ := r.must(strings.NewReader(strings.Repeat("x", 3000)))
			statuses <- status
		}()
	}
	ok, refused := 0, 0
	for refused+r.in.Len() < n { // those that wait for settlement hold all the memory
		if status := <-statuses; status != http.StatusTooManyRequests {
			t.Fatalf("status %d while nothing is settled", status)
		}
		refused++
	}
	r.settle(source.Settled)
	for ok+refused < n {
		if status := <-statuses; status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		ok++
	}
	if ok == 0 || refused == 0 {
		t.Errorf("%d answered 200, %d refused", ok, refused)
	}
}

func TestTooManyRequests(t *testing.T) {
	r := start(t, rigConfig{settings: func(s *Settings) { s.MaxRequests = 1 }, hold: true})
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, _ := r.must(strings.NewReader("a")); status != 200 {
			t.Errorf("the first: %d", status)
		}
	})
	r.arrive(1)
	resp, err := r.post(strings.NewReader("b"))
	if err != nil {
		t.Fatal(err)
	}
	if status, s := read(t, resp); status != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the second: %d %+v", status, s)
	}
	r.settle(source.Settled)
	wg.Wait()
}

// Promise: on a stop, what was accepted is answered as it is settled, and what is given back is answered 503.
func TestStop(t *testing.T) {
	for _, outcome := range []source.Outcome{source.Settled, source.Returned} {
		t.Run(fmt.Sprint(outcome), func(t *testing.T) {
			r := start(t, rigConfig{hold: true})
			want := map[source.Outcome]int{source.Settled: 200, source.Returned: 503}[outcome]
			var wg sync.WaitGroup
			wg.Go(func() {
				if status, s := r.must(strings.NewReader("a")); status != want || s.Accepted != 1 {
					t.Errorf("%d %+v, want %d", status, s, want)
				}
			})
			r.arrive(1)
			r.stop()
			r.settle(outcome)
			wg.Wait()
		})
	}
}

// Promise: Close answers what nobody will settle any more.
func TestCloseAnswers(t *testing.T) {
	r := start(t, rigConfig{hold: true})
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, s := r.must(strings.NewReader("a")); status != 503 || s.Unsettled != 1 {
			t.Errorf("%d %+v", status, s)
		}
	})
	r.arrive(1)
	r.stop()
	if err := r.src.Close(context.Background()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestRuntimeStops(t *testing.T) {
	r := start(t, rigConfig{})
	r.in.Stop()
	if status, s := r.must(strings.NewReader("a")); status != 503 || s.Accepted != 0 {
		t.Errorf("%d %+v", status, s)
	}
	r.stop()
}
