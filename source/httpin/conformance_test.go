package httpin

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// fixture is a client that sends what is put: one request for each message, or all in requests that go on for as long as they may. A
// message is done when a request says so; what is not is sent again.
type fixture struct {
	frame string // "" for one request a message
	kind  string // content type

	mu      sync.Mutex
	list    [][]byte
	todo    []int
	changed chan struct{}
}

func newFixture(frame, contentType string) *fixture {
	return &fixture{frame: frame, kind: contentType, changed: make(chan struct{})}
}

func (f *fixture) Put(_ testing.TB, messages [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range messages {
		f.todo = append(f.todo, len(f.list))
		f.list = append(f.list, m)
	}
	f.wake()
}

// wake tells the client that there is more to do. The caller holds f.mu.
func (f *fixture) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// next waits for something to do, as long as ctx.
func (f *fixture) next(ctx context.Context) (n int, message []byte, ok bool) {
	for {
		f.mu.Lock()
		changed := f.changed
		if len(f.todo) > 0 {
			n := f.todo[0]
			f.todo = f.todo[1:]
			f.mu.Unlock()
			return n, f.list[n], true
		}
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, nil, false
		}
	}
}

// again puts n back: first if it was never taken, else last.
func (f *fixture) again(first bool, n ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first {
		f.todo = append(append([]int(nil), n...), f.todo...)
	} else {
		f.todo = append(f.todo, n...)
	}
	f.wake()
}

func (f *fixture) Open(t testing.TB) source.Source {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Defaults()
	s.Address = ln.Addr().String()
	s.Headers = []string{"content-type", "x-kept"}
	src, err := New(s, kind.Env{Frame: f.frame, Listen: func(context.Context, string, string) (net.Listener, error) { return ln, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{MaxIdleConnsPerHost: 10}
	return &served{
		Source: src, f: f, url: "http://" + s.Address + "/", ctx: ctx, cancel: cancel,
		client: &http.Client{Transport: transport}, taken: make(chan struct{}, 1),
	}
}

// served is a source with its client.
type served struct {
	*Source
	f      *fixture
	url    string
	ctx    context.Context
	cancel context.CancelFunc
	client *http.Client
	taken  chan struct{} // a token: a batch was accepted
	busy   sync.WaitGroup
}

// tap tells of what is accepted.
type tap struct {
	source.Intake
	accepted func(b *arena.Batch)
	after    func(err error)
}

func (t *tap) Accept(b *arena.Batch) error {
	if t.accepted != nil {
		t.accepted(b)
	}
	err := t.Intake.Accept(b)
	if t.after != nil {
		t.after(err)
	}
	return err
}

func (s *served) Run(ctx context.Context, in source.Intake) error {
	s.busy.Go(func() {
		if s.f.frame == "" {
			s.one()
		} else {
			s.stream()
		}
	})
	return s.Source.Run(ctx, &tap{Intake: in, after: func(err error) {
		if err == nil {
			select {
			case s.taken <- struct{}{}:
			default:
			}
		}
	}})
}

func (s *served) Close(ctx context.Context) error {
	err := s.Source.Close(ctx)
	s.cancel()
	s.busy.Wait()
	s.client.CloseIdleConnections()
	return err
}

func (s *served) post(body io.Reader) (status, accepted int) {
	r, err := http.NewRequest(http.MethodPost, s.url, body)
	if err != nil {
		return 0, 0
	}
	r.Header.Set("Content-Type", s.f.kind)
	r.Header.Set("X-Kept", "yes")
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, 0
	}
	defer resp.Body.Close()
	var says struct{ Accepted int }
	if json.NewDecoder(resp.Body).Decode(&says) != nil {
		return 0, 0
	}
	return resp.StatusCode, says.Accepted
}

// one sends one message a request, the next one when the last one has been accepted, which keeps their order.
func (s *served) one() {
	for {
		n, message, ok := s.f.next(s.ctx)
		if !ok {
			return
		}
		answered := make(chan bool, 1) // whether the message was accepted
		s.busy.Go(func() {
			status, accepted := s.post(bytes.NewReader(message))
			if status != http.StatusOK {
				s.f.again(accepted == 0, n)
			}
			answered <- accepted == 1
		})
		select {
		case <-s.taken:
		case taken := <-answered:
			if taken {
				<-s.taken
			} else if s.ctx.Err() != nil || s.Source.ended() {
				return
			}
		}
	}
}

// stream sends messages in one request for as long as that goes on, and after it what was not accepted in another.
func (s *served) stream() {
	for !s.Source.ended() && s.ctx.Err() == nil {
		r, w := io.Pipe()
		ctx, stop := context.WithCancel(s.ctx)
		var sent []int
		var writing sync.WaitGroup
		writing.Go(func() {
			for {
				n, message, ok := s.f.next(ctx)
				if !ok {
					_ = w.Close()
					return
				}
				sent = append(sent, n)
				if _, err := w.Write(framed(s.f.frame, message)); err != nil {
					return
				}
			}
		})
		_, accepted := s.post(r)
		stop()
		_ = r.Close()
		writing.Wait()
		s.f.again(true, sent[min(accepted, len(sent)):]...)
	}
}

func framed(frame string, message []byte) []byte {
	switch frame {
	case "u32":
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
	case "varint":
		return append(binary.AppendUvarint(nil, uint64(len(message))), message...)
	}
	return append(bytes.Clone(message), '\n')
}

func TestConformance(t *testing.T) {
	t.Run("one message a request", func(t *testing.T) {
		f := sourcetest.Features{Append: true, PerMessage: true, Returned: true, Binary: true}
		sourcetest.Run(t, f, func(*testing.T) sourcetest.Fixture { return newFixture("", "application/octet-stream") })
	})
	t.Run("frames of u32", func(t *testing.T) {
		f := sourcetest.Features{Append: true, Binary: true}
		sourcetest.Run(t, f, func(*testing.T) sourcetest.Fixture { return newFixture("u32", "application/octet-stream") })
	})
	t.Run("frames of varint", func(t *testing.T) {
		f := sourcetest.Features{Append: true, Binary: true}
		sourcetest.Run(t, f, func(*testing.T) sourcetest.Fixture { return newFixture("varint", "application/octet-stream") })
	})
	t.Run("lines", func(t *testing.T) {
		sourcetest.Run(t, sourcetest.Features{Append: true}, func(*testing.T) sourcetest.Fixture {
			return newFixture("lines", "application/x-ndjson")
		})
	})
}

// ended reports whether no request is let in any more.
func (s *Source) ended() bool {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	return s.ledger.draining
}
