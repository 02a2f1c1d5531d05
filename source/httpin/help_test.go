package httpin

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// long is how long something that must happen may take.
const long = 20 * time.Second

// got is one message that was accepted, with the headers that it kept.
type got struct {
	payload string
	headers map[string]string
}

// rig is a source that runs, and an intake that settles what comes unless it is told not to.
type rig struct {
	t      testing.TB
	in     *sourcetest.Intake
	src    *Source
	addr   string
	url    string
	client *http.Client
	stop   func() // ends Run and waits for it
	ran    error

	mu   sync.Mutex
	came []got
}

type rigConfig struct {
	settings func(s *Settings)
	env      kind.Env
	intake   sourcetest.IntakeConfig
	hold     bool // settle nothing
	patience time.Duration
}

func start(t testing.TB, c rigConfig) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Defaults()
	s.Address = ln.Addr().String()
	if c.settings != nil {
		c.settings(&s)
	}
	c.env.Listen = func(context.Context, string, string) (net.Listener, error) { return ln, nil }
	src, err := New(s, c.env)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, in: sourcetest.NewIntake(t, c.intake), src: src, addr: s.Address, url: "http://" + s.Address + s.Path,
		client: &http.Client{Transport: &http.Transport{}, Timeout: long},
	}
	if c.patience > 0 {
		src.patience = c.patience
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.ran = src.Run(ctx, &tap{Intake: r.in, accepted: r.note})
		r.in.Ended()
	}()
	settling := make(chan struct{})
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		for !c.hold {
			changed := r.in.Changed()
			r.settle(source.Settled)
			select {
			case <-changed:
			case <-settling:
				return
			}
		}
	}()
	r.stop = sync.OnceFunc(func() { cancel(); within(t, "Run", ended) })
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		r.stop()
		close(settling)
		<-settled
		r.settle(source.Returned)
		if err := src.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := r.in.Close(); err != nil {
			t.Errorf("after Close: %v", err)
		}
		if r.ran != nil {
			t.Errorf("Run: %v", r.ran)
		}
	})
	return r
}

func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(long):
		t.Fatalf("%s did not end within %v", what, long)
	}
}

func (r *rig) settle(o source.Outcome) {
	r.in.Settle(r.src, o, func(sourcetest.Message) bool { return true })
}

func (r *rig) note(b *arena.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range b.Frames {
		g := got{string(b.Payload(i)), map[string]string{}}
		for n, v, rest, ok := arena.NextHeader(b.Headers(i)); ok; n, v, rest, ok = arena.NextHeader(rest) {
			g.headers[string(n)] = string(v)
		}
		r.came = append(r.came, g)
	}
}

func (r *rig) messages() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]got(nil), r.came...)
}

// payloads are the messages so far.
func (r *rig) payloads() []string {
	var out []string
	for _, g := range r.messages() {
		out = append(out, g.payload)
	}
	return out
}

// until waits for cond, which is looked at whenever something has happened, and every millisecond for what the intake does not see.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.After(long)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		changed := r.in.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-look.C:
		case <-deadline:
			r.t.Fatalf("waited %v for %s; %d messages came, reported %v", long, what, r.in.Len(), r.in.Reports())
		}
	}
}

// arrive waits for n messages.
func (r *rig) arrive(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d messages", n), func() bool { return r.in.Len() >= n })
}

// reported waits for the first report and returns it.
func (r *rig) reported() *RefusedError {
	r.t.Helper()
	r.until("a report", func() bool { return len(r.in.Reports()) > 0 })
	list := r.in.Reports()
	var refused *RefusedError
	if len(list) > 1 || !errors.As(list[0], &refused) {
		r.t.Fatalf("reported %v, want one *RefusedError", list)
	}
	return refused
}

// says is the body of an answer.
type says struct {
	Error     string
	Accepted  int
	Unsettled int
}

// read is the status and the body of a response.
func read(t testing.TB, resp *http.Response) (int, says) {
	t.Helper()
	defer resp.Body.Close()
	var s says
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Errorf("status %d, and its body: %v", resp.StatusCode, err)
	}
	if resp.StatusCode != http.StatusOK && s.Error == "" {
		t.Errorf("status %d without a reason", resp.StatusCode)
	}
	return resp.StatusCode, s
}

// post sends a body with some headers: name, value, name, value.
func (r *rig) post(body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodPost, r.url, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return r.client.Do(req)
}

// must is post when it works.
func (r *rig) must(body io.Reader, headers ...string) (int, says) {
	r.t.Helper()
	resp, err := r.post(body, headers...)
	if err != nil {
		r.t.Fatal(err)
	}
	return read(r.t, resp)
}

// raw is a connection on which a test writes what it likes.
type raw struct {
	t testing.TB
	*net.TCPConn
	in *bufio.Reader
}

func (r *rig) dial() *raw {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(long)); err != nil {
		r.t.Fatal(err)
	}
	return &raw{r.t, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *raw) send(format string, args ...any) *raw {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// response reads one.
func (c *raw) response() (int, says) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return read(c.t, resp)
}

// closed checks that the server closes the connection.
func (c *raw) closed() {
	c.t.Helper()
	var timeout net.Error
	if _, err := c.in.ReadByte(); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Errorf("the connection was not closed: %v", err)
	}
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data) // to memory
	_ = z.Close()
	return b.Bytes()
}
