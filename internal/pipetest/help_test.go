package pipetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-dev/penstock/builtin"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type port struct {
	Address string `yaml:"address" jsonschema:"required" jsonschema_description:"Where."`
}

var errMade = errors.New("a test makes no real source and no real sink")

// handler is a handler that has been started.
type handler struct {
	plugin.Env
	handle func(ctx context.Context, h *handler, m *plugin.Message) error
	stop   func(h *handler) error
	seen   int
	kept   []byte
}

func (h *handler) Start(_ context.Context, env plugin.Env) error {
	h.Env = env
	return nil
}

func (h *handler) Handle(ctx context.Context, m *plugin.Message) error {
	h.seen++
	return h.handle(ctx, h, m)
}

func (h *handler) Stop(context.Context) error {
	if h.stop == nil {
		return nil
	}
	return h.stop(h)
}

type handle = func(ctx context.Context, h *handler, m *plugin.Message) error

// kinds are builtin plugins, a source and a sink that cannot be made, and native plugins.
func kinds(natives map[string]handle) *kind.Registry {
	r := kind.NewRegistry(builtin.Kinds()...)
	r.Add(kind.Source(kind.About{Name: "port"}, port{}, func(port, kind.Env) (source.Source, error) { return nil, errMade }))
	r.Add(kind.Sink(kind.About{Name: "port"}, port{}, func(port, kind.Env) (sink.Sink, error) { return nil, errMade }))
	for name, f := range natives {
		r.Add(kind.Native(name, func() (plugin.Handler, error) { return &handler{handle: f}, nil }))
	}
	return r
}

// write writes a file beside others.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// runFiles runs the tests of a pipeline, from the texts of both files.
func runFiles(t *testing.T, natives map[string]handle, pipeline, tests string, change ...func(o *Options)) ([]Result, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "penstock.yaml", pipeline)
	file := write(t, dir, "penstock_test.yaml", tests)
	o := Options{Registry: kinds(natives)}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, f := range change {
		f(&o)
	}
	results, err := Run(t.Context(), []string{file}, o)
	for i := range results {
		if results[i].File != file {
			t.Errorf("result of file %q, want %q", results[i].File, file)
		}
		results[i].File = "penstock_test.yaml"
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("files were left behind: %v", left)
	}
	return results, err
}

// mustRun runs tests whose files are good, and returns what WriteText says without times.
func mustRun(t *testing.T, natives map[string]handle, pipeline, tests string, change ...func(o *Options)) string {
	t.Helper()
	results, err := runFiles(t, natives, pipeline, tests, change...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range results {
		if results[i].Took <= 0 {
			t.Errorf("test %q took %v", results[i].Name, results[i].Took)
		}
		t.Logf("%q took %v", results[i].Name, results[i].Took)
		results[i].Took = 0
	}
	var b bytes.Buffer
	if err := WriteText(&b, results, true); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("\tpenstock_test.yaml\t0.000s", " penstock_test.yaml", " (0.00s)", "").Replace(b.String())
}

// passes fails unless all tests pass.
func passes(t *testing.T, natives map[string]handle, pipeline, tests string) {
	t.Helper()
	if got := mustRun(t, natives, pipeline, tests); strings.Contains(got, "FAIL") || strings.Contains(got, "no tests") {
		t.Errorf("it does not pass:\n%s", got)
	}
}

// fails fails unless the text of the failures has all these parts, in this order.
func fails(t *testing.T, got string, parts ...string) {
	t.Helper()
	rest := got
	for _, p := range append([]string{"--- FAIL: "}, parts...) {
		at := strings.Index(rest, p)
		if at < 0 {
			t.Errorf("no %q, or not in that order, in:\n%s", p, got)
			return
		}
		rest = rest[at+len(p):]
	}
}

// through is a pipeline with one native plugin, called p, with more keys.
func through(keys string) string {
	return `
sources: { in: { port: { address: nowhere }, key: $.k } }
plugins: { p: { native: p, from: in, emits: out` + keys + ` } }
sinks: { out: { from: out, port: { address: nowhere } } }
`
}

// copies emits what it gets.
func copies(_ context.Context, _ *handler, m *plugin.Message) error {
	return m.Emit("out", m.Payload())
}

// failing fails so many times, then copies.
func failing(times int) handle {
	return func(ctx context.Context, h *handler, m *plugin.Message) error {
		if m.Attempt() <= times {
			return fmt.Errorf("attempt %d fails", m.Attempt())
		}
		return copies(ctx, h, m)
	}
}

// stamp emits how long after the beginning of the test it was.
func stamp(h *handler, m *plugin.Message) error {
	out, err := json.Marshal(map[string]any{"at": h.Clock.Now().Sub(epoch()).String(), "of": json.RawMessage(m.Payload())})
	if err != nil {
		return err
	}
	return m.Emit("out", out)
}

const second = time.Second

// nativeWithStop is a plugin p that emits every ten seconds how many messages it has seen, and once more as it stops.
func nativeWithStop() kind.Kind {
	return kind.Native("p", func() (plugin.Handler, error) { return &ticker{}, nil })
}

type ticker struct {
	handler
	timer interface{ Stop() bool }
	done  chan struct{}
}

func (k *ticker) Start(ctx context.Context, env plugin.Env) error {
	k.handle = func(context.Context, *handler, *plugin.Message) error { return nil }
	k.Env, k.done = env, make(chan struct{})
	k.again()
	return nil
}

func (k *ticker) again() {
	k.timer = k.Clock.AfterFunc(10*second, func() {
		if err := k.Emit(context.Background(), "out", fmt.Appendf(nil, "tick %d", k.seen)); err == nil {
			k.again()
		}
	})
}

func (k *ticker) Stop(ctx context.Context) error {
	k.timer.Stop()
	return k.Emit(ctx, "out", fmt.Appendf(nil, "bye %d", k.seen))
}

// nativeThatFails is a plugin p that does not start.
func nativeThatFails() kind.Kind {
	return kind.Native("p", func() (plugin.Handler, error) { return nil, errors.New("there is no disk") })
}

// listener is a handler that listens on a port, and another goroutine of it sleeps again and again.
type listener struct {
	l    net.Listener
	stop context.CancelFunc
	done sync.WaitGroup
}

func (l *listener) Start(ctx context.Context, _ plugin.Env) (err error) {
	if l.l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.done.Go(func() {
		for {
			if _, err := l.l.Accept(); err != nil {
				return
			}
		}
	})
	l.done.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(3 * time.Millisecond) // sleep: this is what is tested
		}
	})
	return nil
}

func (l *listener) Handle(ctx context.Context, m *plugin.Message) error { return copies(ctx, nil, m) }

func (l *listener) Stop(context.Context) error {
	l.stop()
	err := l.l.Close()
	l.done.Wait()
	return err
}
