package cli_test

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// chatty logs that it starts, and sends a signal when it gets an x.
type chatty struct{ signals chan<- os.Signal }

func (c *chatty) Start(ctx context.Context, env plugin.Env) error {
	env.Logger.DebugContext(ctx, "hello from a plugin")
	return nil
}

func (c *chatty) Handle(ctx context.Context, m *plugin.Message) error {
	if string(m.Payload()) != "x" {
		return nil
	}
	c.signals <- syscall.SIGTERM
	<-ctx.Done()
	return ctx.Err()
}

func newTestedShell(t *testing.T) *shell {
	t.Helper()
	s := newShell(t)
	s.kinds.Add(kind.Native("chatty", func() (plugin.Handler, error) { return &chatty{s.signals}, nil }))
	s.write("penstock.yaml", "sources:\n  in: { stdin: }\nplugins:\n  p: { native: chatty, from: in }\n")
	s.write("penstock_test.yaml", `tests:
  - { name: first, input: [ payload: a ], expect: {} }
  - { name: second, input: [ payload: b ], expect: {} }
`)
	return s
}

// With -v, what pipelines log is on standard error, down to debug messages, and results are not.
func TestTestLogs(t *testing.T) {
	s := newTestedShell(t)
	s.want(0, nil, "test")
	if got := s.err.String(); got != "" {
		t.Errorf("without -v, standard error has:\n%s", got)
	}
	s.want(0, nil, "test", "-v")
	if got := s.err.String(); strings.Count(got, "level=DEBUG msg=\"hello from a plugin\"") != 2 || strings.Contains(got, "PASS") {
		t.Errorf("with -v, standard error has:\n%s", got)
	}
	if got := s.out.String(); !strings.Contains(got, "PASS: second") || strings.Contains(got, "hello") {
		t.Errorf("with -v, standard output has:\n%s", got)
	}
}

// A signal ends it, with the results so far and an error that says so.
func TestTestIsInterrupted(t *testing.T) {
	s := newTestedShell(t)
	s.write("penstock_test.yaml", strings.Replace(s.read("penstock_test.yaml"), "payload: b", "payload: x", 1)+
		"  - { name: third, input: [], expect: {} }\n")
	s.want(1, []string{"PASS: first", "FAIL: second", "ended before all tests were run"}, "test", "-v", "--junit", "report.xml")
	if got := s.out.String(); strings.Contains(got, "third") {
		t.Errorf("tests go on:\n%s", got)
	}
	if got := s.read("report.xml"); !strings.Contains(got, `name="first"`) {
		t.Errorf("the JUnit file is:\n%s", got)
	}
}
