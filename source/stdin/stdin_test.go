package stdin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is an input that begins anew each time.
type fixture struct {
	data []byte
	open func(t testing.TB, data []byte) io.Reader
}

func (f *fixture) Put(_ testing.TB, messages [][]byte) {
	for _, m := range messages {
		f.data = append(append(f.data, m...), '\n')
	}
}

func (f *fixture) Open(t testing.TB) source.Source {
	s, err := New(Config{Reader: f.open(t, f.data)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// piped is the reading end of a pipe that data is written to.
func piped(t testing.TB, data []byte) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = w.Write(data) // fails where the exam reads no further
		_ = w.Close()
	}()
	return r
}

// closing closes what it reads from at the end, as the end of a process would.
type closing struct {
	*Source
	f *os.File
}

func (c closing) Close(ctx context.Context) error {
	_ = c.f.Close()
	return c.Source.Close(ctx)
}

type pipeFixture struct{ fixture }

func (f *pipeFixture) Open(t testing.TB) source.Source {
	r := piped(t, f.data)
	s, err := New(Config{Reader: r})
	if err != nil {
		t.Fatal(err)
	}
	return closing{s, r}
}

func TestConformance(t *testing.T) {
	features := sourcetest.Features{Ends: true}
	t.Run("pipe", func(t *testing.T) {
		sourcetest.Run(t, features, func(*testing.T) sourcetest.Fixture { return &pipeFixture{} })
	})
	t.Run("reader", func(t *testing.T) {
		sourcetest.Run(t, features, func(*testing.T) sourcetest.Fixture {
			return &fixture{open: func(_ testing.TB, data []byte) io.Reader { return bytes.NewReader(data) }}
		})
	})
	t.Run("file", func(t *testing.T) {
		sourcetest.Run(t, features, func(t *testing.T) sourcetest.Fixture {
			return &fixture{open: func(t testing.TB, data []byte) io.Reader {
				name := t.TempDir() + "/in"
				if err := os.WriteFile(name, data, 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(name)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return f
			}}
		})
	})
}

// run runs a source over r until it ends, or until stop is called once started is done.
func run(t *testing.T, cfg Config, started <-chan struct{}) (*sourcetest.Intake, error) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{MaxBytes: 100})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, in) }()
	if started != nil {
		<-started
		stop()
	}
	select {
	case err = <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not return")
	}
	in.Ended()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return in, err
}

// stubborn blocks in Read until it is let go.
type stubborn struct {
	reading chan struct{}
	letGo   chan struct{}
	left    chan struct{}
}

func (s *stubborn) Read(p []byte) (int, error) {
	close(s.reading)
	<-s.letGo
	n := copy(p, "late\n")
	defer close(s.left)
	return n, nil
}

// Promise: Run returns when its context ends although a read does not; what that reads later touches no memory of the arena.
func TestStubbornRead(t *testing.T) {
	s := &stubborn{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	in, err := run(t, Config{Reader: s}, s.reading)
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := in.Close(); err != nil { // the arena is gone
		t.Error(err)
	}
	close(s.letGo)
	<-s.left
	if in.Len() != 0 {
		t.Errorf("got %v", in.Messages())
	}
}

// Promise: a pipe that nobody writes to does not keep Run, nor a goroutine.
func TestSilentPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	began := make(chan struct{})
	close(began)
	in, err := run(t, Config{Reader: r}, began)
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}

// broken fails after some bytes.
type broken struct{ io.Reader }

var errBroken = errors.New("broken")

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errBroken
	}
	return n, err
}

func TestInputs(t *testing.T) {
	long := strings.Repeat("x", 200)
	tests := []struct {
		name    string
		cfg     Config
		want    string // messages, with "|" between
		err     error
		reports error
	}{
		{"lines", Config{Reader: strings.NewReader("a\nb\r\n\nc")}, "a|b||c", nil, nil},
		{"delimiter", Config{Reader: strings.NewReader("a;b"), Delimiter: ";"}, "a|b", nil, nil},
		{"u32", Config{Reader: strings.NewReader("\x00\x00\x00\x01a"), Framing: "u32"}, "a", nil, nil},
		{"whole", Config{Reader: strings.NewReader("a\nb"), Framing: "whole"}, "a\nb", nil, nil},
		{"empty", Config{Reader: strings.NewReader("")}, "", nil, nil},
		{"too large", Config{Reader: strings.NewReader("a\n" + long + "\nb")}, "a|b", nil, decode.ErrTooLarge},
		{"cut", Config{Reader: strings.NewReader("\x00\x00\x00\x05a"), Framing: "u32"}, "", decode.ErrTruncated, nil},
		{"broken", Config{Reader: broken{strings.NewReader("a\nb")}}, "a", errBroken, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, err := run(t, tt.cfg, nil)
			if !errors.Is(err, tt.err) {
				t.Errorf("Run: %v, want %v", err, tt.err)
			}
			var got []string
			last := uint64(0)
			for _, m := range in.Messages() {
				got = append(got, string(m.Payload))
				if m.Receipt <= last {
					t.Errorf("receipt %d after %d", m.Receipt, last)
				}
				last = m.Receipt
			}
			if strings.Join(got, "|") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if list := in.Reports(); tt.reports == nil && len(list) > 0 || tt.reports != nil && (len(list) != 1 || !errors.Is(list[0], tt.reports)) {
				t.Errorf("reported %v", list)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Reader: os.Stdin, Framing: "csv"},
		{Reader: os.Stdin, Framing: "u32", Delimiter: ";"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestKind(t *testing.T) {
	k := Kind(strings.NewReader("a;b"))
	s, err := k.NewSource(k.Settings, kind.Env{Delimiter: ";"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.(*Source); !ok {
		t.Errorf("made a %T", s)
	}
}
