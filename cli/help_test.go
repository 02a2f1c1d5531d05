package cli_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/cli"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/standard"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen keeps what is written, and tells when.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until a text has been written.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	for timeout := time.After(20 * time.Second); !strings.Contains(s.String(), text); {
		select {
		case <-s.more:
		case <-timeout:
			t.Fatalf("no %q in\n%s", text, s)
		}
	}
}

// shell runs command lines in a directory, with an environment of its own.
type shell struct {
	t       *testing.T
	kinds   *kind.Registry
	env     map[string]string
	stdin   io.Reader
	signals chan os.Signal
	out     *screen
	err     *screen
}

// newShell makes a shell whose working directory, the process's, is a fresh one.
func newShell(t *testing.T) *shell {
	t.Helper()
	t.Chdir(t.TempDir())
	return &shell{t: t, kinds: standard.Kinds(), env: map[string]string{}, stdin: strings.NewReader(""), signals: make(chan os.Signal, 4)}
}

// run runs a command line and returns its exit code.
func (s *shell) run(args ...string) int {
	s.out, s.err = newScreen(), newScreen()
	return s.app().Run(s.t.Context(), args)
}

func (s *shell) app() cli.App {
	return cli.App{
		Kinds: s.kinds, Name: "penstock", Version: "v1.2.3", Stdin: s.stdin, Stdout: s.out, Stderr: s.err, Signals: s.signals,
		Getenv: func(name string) (string, bool) {
			v, ok := s.env[name]
			return v, ok
		},
	}
}

// begin runs a command line in the background.
func (s *shell) begin(args ...string) (exit <-chan int) {
	s.out, s.err = newScreen(), newScreen()
	done := make(chan int, 1)
	app := s.app()
	go func() { done <- app.Run(context.Background(), args) }()
	return done
}

// end ends what has begun, and wants its exit code to be 0.
func (s *shell) end(exit <-chan int) {
	s.t.Helper()
	s.signals <- syscall.SIGTERM
	s.code(exit, cli.ExitOK)
}

func (s *shell) code(exit <-chan int, want int) {
	s.t.Helper()
	select {
	case code := <-exit:
		if code != want {
			s.t.Errorf("exit code %d, want %d; it says\n%s%s", code, want, s.out, s.err)
		}
	case <-time.After(20 * time.Second):
		s.t.Fatalf("it has not ended; it says\n%s%s", s.out, s.err)
	}
}

// want runs a command line that must end with a code, and have all these in its outputs.
func (s *shell) want(code int, holds []string, args ...string) {
	s.t.Helper()
	got := s.run(args...)
	said := s.out.String() + s.err.String()
	if got != code {
		s.t.Errorf("%v: exit code %d, want %d; it says\n%s", args, got, code, said)
	}
	for _, text := range holds {
		if !strings.Contains(said, text) {
			s.t.Errorf("%v: no %q in\n%s", args, text, said)
		}
	}
}

func (s *shell) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shell) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

const (
	copies = `listen: off
sources:
  in: { file: { path: in.txt } }
sinks:
  out: { from: in, file: { path: out.txt, mode: truncate } }
`
	lasting = `listen: off
sources:
  in: { tcp: { address: "127.0.0.1:0" } }
sinks:
  out: { from: in, file: { path: out.txt } }
`
)
