package httpin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// offline is a handler without a network, whose intake settles at once.
func offline(t *testing.T, frame string, wrap func(in source.Intake) source.Intake) (*rig, *handler) {
	t.Helper()
	s := Defaults()
	s.Address = "127.0.0.1:0"
	src, err := New(s, kind.Env{Frame: frame})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, in: sourcetest.NewIntake(t, sourcetest.IntakeConfig{}), src: src}
	t.Cleanup(func() {
		if err := r.in.Close(); err != nil {
			t.Error(err)
		}
	})
	var in source.Intake = &tap{r.in, r.note, func(error) { r.settle(source.Settled) }}
	if wrap != nil {
		in = wrap(in)
	}
	return r, newHandler(context.Background(), src, in, func() {})
}

func ask(t *testing.T, h http.Handler, body string) (int, says) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
	return read(t, w.Result())
}

// refusing is an intake that takes nothing.
type refusing struct {
	source.Intake
	err error
}

func (r refusing) Accept(b *arena.Batch) error {
	b.Free()
	return r.err
}

func TestAcceptRefuses(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
	}{
		{errors.New("key function panicked"), 500},
		{source.ErrStopped, 503},
	} {
		_, h := offline(t, "lines", func(in source.Intake) source.Intake { return refusing{in, tt.err} })
		if status, s := ask(t, h, "a\nb\n"); status != tt.status || s.Accepted != 0 || s.Unsettled != 0 {
			t.Errorf("%v: %d %+v, want %d", tt.err, status, s, tt.status)
		}
	}
}

func TestDraining(t *testing.T) {
	r, h := offline(t, "", nil)
	if status, s := ask(t, h, "a"); status != 200 {
		t.Errorf("%d %+v", status, s)
	}
	r.src.ledger.drain()
	if status, s := ask(t, h, "a"); status != 503 || len(r.in.Reports()) > 0 {
		t.Errorf("%d %+v, reported %v", status, s, r.in.Reports())
	}
}

// Promise: a connection that comes while the source stops is closed.
func TestLateConnection(t *testing.T) {
	r, h := offline(t, "", nil)
	r.src.closeFresh(r.src.serverFor(h, r.in.Env().Logger))
	here, there := net.Pipe()
	r.src.connState(here, http.StateNew)
	if _, err := there.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}

// Promise: a request may have more messages than one number counts.
func TestManyMessages(t *testing.T) {
	r, h := offline(t, "", nil)
	q := &request{h: h}
	q.count.done = make(chan struct{}, 1)
	h.ledger.begin(q)
	q.receipt += messageMask - 3
	for range 3 {
		slab, err := r.in.Account().LeaseSized(3)
		if err != nil {
			t.Fatal(err)
		}
		b := r.in.NewBatch()
		b.Slab = slab
		for range 3 {
			b.Frames, b.Receipts = append(b.Frames, arena.Frame{Len: 3}), append(b.Receipts, 0)
		}
		if err := r.in.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.accept(b); err != nil {
			t.Fatal(err)
		}
	}
	q.count.finish()
	if accepted, unsettled := q.outcome(); accepted != 9 || unsettled != 0 || len(q.ids) != 2 {
		t.Errorf("%d accepted, %d unsettled, %d numbers", accepted, unsettled, len(q.ids))
	}
	h.ledger.end(q)
}

// Promise: where memory is left for one slab only, a body that needs another waits for it, but not for ever.
func TestOneSlab(t *testing.T) {
	for _, released := range []bool{false, true} {
		patience := 20 * time.Millisecond
		if released {
			patience = long
		}
		r := start(t, rigConfig{
			env: kind.Env{Frame: "lines"}, patience: patience,
			intake: sourcetest.IntakeConfig{Budget: 16 * 4 << 10, SlabSize: 4 << 10},
		})
		var slabs []*arena.Slab
		for r.in.Account().Room() {
			s, err := r.in.Account().Lease()
			if err != nil {
				t.Fatal(err)
			}
			slabs = append(slabs, s)
		}
		slabs[0].Release()
		status := make(chan int, 1)
		go func() {
			s, _ := r.must(strings.NewReader(strings.Repeat(strings.Repeat("x", 900)+"\n", 100)), "Content-Type", "text/plain")
			status <- s
		}()
		want := http.StatusTooManyRequests
		if released {
			r.arrive(4)
			want = http.StatusOK
			for _, s := range slabs[1:] {
				s.Release()
			}
		}
		if got := <-status; got != want {
			t.Errorf("status %d, want %d", got, want)
		}
		if !released {
			for _, s := range slabs[1:] {
				s.Release()
			}
		}
	}
}

// Promise: without tokens, pages of other sites cannot post by way of a browser on this machine; programs can.
func TestPagesOfOthers(t *testing.T) {
	for _, c := range []struct {
		name, header, value string
		want                int
	}{
		{"a program", "", "", 0},
		{"a page of this address", "Sec-Fetch-Site", "same-origin", 0},
		{"a page of another site", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"a page of another site in an old browser", "Origin", "http://evil.example", http.StatusForbidden},
	} {
		h := &handler{settings: Settings{Path: "/", MaxRequests: 1, MaxBody: 1}, framing: decode.Lines(nil)}
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080/", http.NoBody)
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		if got := h.door(httptest.NewRecorder(), r).status; got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
