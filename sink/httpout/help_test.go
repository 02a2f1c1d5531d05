package httpout

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/sink/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is an endpoint that keeps what arrives.
type store struct {
	*httptest.Server
	mu     sync.Mutex
	format Format
	room   int // bytes; negative: no end
	msgs   []sinktest.Message
}

func newStore(t *testing.T, format Format) *store {
	st := &store{format: format, room: -1}
	st.Server = httptest.NewServer(st)
	t.Cleanup(st.Close)
	return st
}

func (st *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := unpacked(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.room >= 0 {
		if st.room < len(data) || st.room == 0 {
			http.Error(w, "no room", http.StatusInsufficientStorage)
			return
		}
		st.room -= len(data)
	}
	if st.format == Single {
		st.msgs = append(st.msgs, sinktest.Message{Payload: data})
		return
	}
	for line := range bytes.SplitSeq(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		st.msgs = append(st.msgs, sinktest.Message{Payload: bytes.Clone(line)})
	}
}

func unpacked(r *http.Request) ([]byte, error) {
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = z
	}
	return io.ReadAll(in)
}

func (st *store) read() ([]sinktest.Message, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return append([]sinktest.Message(nil), st.msgs...), nil
}

func (st *store) set(room int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.room = room
}

// request is what an endpoint gets, and where it is answered.
type request struct {
	*http.Request
	body   string
	answer chan func(w http.ResponseWriter)
}

// with answers a request with a status and headers, in pairs.
func (r request) with(status int, headers ...string) {
	r.answer <- func(w http.ResponseWriter) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, http.StatusText(status))
	}
}

// listen starts an endpoint that hands each request to the test, which answers it.
func listen(t *testing.T) (*httptest.Server, chan request) {
	t.Helper()
	got := make(chan request, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := unpacked(r)
		if err != nil {
			t.Errorf("body: %v", err)
		}
		q := request{r, string(data), make(chan func(http.ResponseWriter))}
		got <- q
		select {
		case f := <-q.answer:
			f(w)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	return srv, got
}

type fate struct {
	payload string
	err     error
}

// rig is a sink, and what became of its messages.
type rig struct {
	testing.TB
	*Sink
	arena   *arena.Arena
	account *arena.Account
	clock   *manual
	fates   chan fate
}

// manual is a clock that tells what it is asked to wait for.
type manual struct {
	*clock.Manual
	asked chan time.Duration
}

func (m *manual) AfterFunc(d time.Duration, f func()) clock.Timer {
	defer func() { m.asked <- d }()
	return m.Manual.AfterFunc(d, f)
}

// waits returns when somebody has asked to wait for d.
func (m *manual) waits(d time.Duration) {
	for <-m.asked != d {
	}
}

func newRig(t testing.TB, cfg Config) *rig { return newLogged(t, cfg, nil) }

// newLogged is a rig whose sink is called out.
func newLogged(t testing.TB, cfg Config, logger *slog.Logger) *rig {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: 64 << 20, SlabSize: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	acc, err := a.Account(arena.Sources, "test", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, arena: a, account: acc, fates: make(chan fate, 100_000)}
	r.clock = &manual{clock.NewManual(time.Unix(1e9, 0)), make(chan time.Duration, 100_000)}
	if r.Sink, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := r.Open(t.Context(), sink.Env{Name: "out", Clock: r.clock, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
	})
	return r
}

// message is a message; its headers are in pairs.
type message struct {
	payload, key string
	headers      []string
}

func (r *rig) lend(msgs ...message) *sink.Batch {
	r.Helper()
	slab, err := r.account.Lease()
	if err != nil {
		r.Fatal(err)
	}
	b := r.arena.NewBatch()
	b.Slab = slab
	off := 0
	put := func(p []byte) (uint32, uint32) {
		at := off
		off += copy(slab.Bytes()[off:], p)
		return uint32(at), uint32(len(p))
	}
	for _, m := range msgs {
		var block []byte
		for i := 0; i < len(m.headers); i += 2 {
			block = arena.AppendHeader(block, m.headers[i], []byte(m.headers[i+1]))
		}
		var f arena.Frame
		f.HdrOff, f.HdrLen = put(block)
		f.KeyOff, f.KeyLen = put([]byte(m.key))
		f.Off, f.Len = put([]byte(m.payload))
		b.Frames = append(b.Frames, f)
	}
	left := len(msgs)
	return sink.NewBatch(b, nil, "s", func(_ *sink.Batch, i int, err error) {
		for j := range b.Payload(i) { // from now on the bytes are somebody else's
			b.Payload(i)[j] = 0xDB
		}
		if left--; left == 0 {
			b.Free()
		}
		r.fates <- fate{msgs[i].payload, err}
	})
}

// send writes payloads as one batch, and flushes.
func (r *rig) send(payloads ...string) {
	r.Helper()
	msgs := make([]message, len(payloads))
	for i, p := range payloads {
		msgs[i].payload = p
	}
	r.must(r.Write(context.Background(), r.lend(msgs...)))
	r.must(r.Flush(context.Background()))
}

// next waits for the fates of n messages.
func (r *rig) next(n int) map[string]error {
	out := map[string]error{}
	for range n {
		f := <-r.fates
		out[f.payload] = f.err
	}
	return out
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func one(url string) Config {
	cfg := Defaults()
	cfg.URL, cfg.Concurrency = url, 1
	return cfg
}
