package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/api"
	"github.com/penstock-dev/penstock/cli"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// Promise: --summary json is one line on the standard output, with the counts at its top.
func TestSummary(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	s.write("in.txt", "a\nb\n")
	s.want(0, nil, "run", "--until-idle", "--summary", "json")
	out := s.out.String()
	if strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
		t.Errorf("not one line: %q", out)
	}
	var top map[string]any
	if err := json.Unmarshal([]byte(out), &top); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{
		"accepted": 2, "settled": 2, "retried": 0, "held": 0, "dead": 0, "dropped": 0, "bad": 0, "returned": 0,
	} {
		if got, ok := top[key].(float64); !ok || got != want {
			t.Errorf("%s: %v, want %v", key, top[key], want)
		}
	}
	if strings.Contains(s.err.String(), "accepted 2") {
		t.Errorf("a second summary:\n%s", s.err)
	}
	s.want(0, []string{"accepted 2, settled 2"}, "run", "--until-idle")
	if s.out.String() != "" {
		t.Errorf("the standard output has %q", s.out)
	}
	s.want(0, nil, "run", "--until-idle", "--summary", "none")
	if strings.Contains(s.err.String()+s.out.String(), "accepted") {
		t.Errorf("it says\n%s%s", s.out, s.err)
	}
}

// The summary says where the dead letters are.
func TestSummaryOfDeadLetters(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", strings.Replace(copies, "from: in,", "from: o,", 1)+
		"plugins:\n  p: { filter: { where: msg.n > 1 }, from: in, emits: o }\n")
	s.write("in.txt", "{\"n\":2}\n{}\n")
	s.want(0, []string{"dead 1,", "dead letters, each with the reason: kept/dead/letters.ndjson\n"}, "run", "--until-idle", "--data", "kept")
	s.want(cli.ExitFailed, []string{"dead 1,", "1 message went to the dead letters"}, "run", "--until-idle", "--fail-on-dead")
	if !strings.Contains(s.read("kept/dead/letters.ndjson"), "reason") {
		t.Error("no reason in the dead letter")
	}
	if strings.Contains(s.err.String(), " \n") {
		t.Errorf("lines end in spaces:\n%s", s.err)
	}
}

// Every flag of run can be set by its variable, and goes before it.
func TestVariables(t *testing.T) {
	s := newShell(t)
	s.write("other.yaml", copies)
	s.write("in.txt", "a\n")
	s.env = map[string]string{
		"PENSTOCK_CONFIG": "other.yaml", "PENSTOCK_UNTIL_IDLE": "true", "PENSTOCK_SUMMARY": "json", "PENSTOCK_LOG_FORMAT": "json",
		"PENSTOCK_LOG_LEVEL": "debug", "PENSTOCK_DATA": "kept", "PENSTOCK_LISTEN": "127.0.0.1:0", "PENSTOCK_PROGRESS": "never",
		"PENSTOCK_STRICT_BORROW": "1", "PENSTOCK_WATCH": "false",
	}
	s.want(0, []string{`"accepted":1`, `"msg":"running"`, `"listen":"127.0.0.1:`}, "run")
	s.want(0, []string{"accepted 1, settled 1", "msg=running"}, "run", "--summary", "text", "--log-format", "text")
	s.want(0, []string{`"listen":"off"`}, "run", "--listen", "off")
	s.want(0, []string{`"listen":"off"`}, "run", "--listen=off", "--log-level=info")
	s.want(0, nil, "run", "--log-level=warn")
	if strings.Contains(s.err.String(), "running") {
		t.Errorf("logged although it is only information:\n%s", s.err)
	}
	s.want(3, []string{"penstock.yaml"}, "run", "-c", "penstock.yaml")
	for name, bad := range map[string]string{
		"PENSTOCK_UNTIL_IDLE": "perhaps", "PENSTOCK_SUMMARY": "xml", "PENSTOCK_WATCH": "on and off", "PENSTOCK_LOG_LEVEL": "loud",
	} {
		was := s.env[name]
		s.env[name] = bad
		s.want(2, []string{bad}, "run")
		s.env[name] = was
	}
	s.env["PENSTOCK_WATCH"] = "maybe"
	s.want(2, []string{`variable PENSTOCK_WATCH="maybe": give true or false`}, "run")
	if strings.Contains(s.err.String(), "strconv") {
		t.Errorf("it says %s", s.err)
	}
}

// The progress line is wiped before a log line and at the end.
func TestProgress(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", lasting)
	exit := s.begin("run", "--progress", "always")
	s.err.await(t, "0 accepted, 0 settled")
	s.end(exit)
	said := s.err.String()
	if !strings.Contains(said, "\r\x1b[Ktime=") || !strings.Contains(said, "\r\x1b[Kaccepted 0") {
		t.Errorf("it says %q", said)
	}
}

// Promise: with JSON logs, standard error has records only, the summary and the error among them.
func TestJSONLogs(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	s.write("bad.yaml", "nonsense")
	s.want(cli.ExitConfig, []string{`"msg":"failed","error":"bad.yaml:1`, `"exit_code":3`}, "run", "--log-format", "json", "-c", "bad.yaml")
	s.onlyRecords(1)
	s.want(cli.ExitFailed, []string{`"msg":"failed"`, "in.txt", `"exit_code":1`}, "run", "--log-format", "json", "--until-idle")
	s.onlyRecords(1)
	s.write("in.txt", "a\n")
	s.want(0, []string{`"msg":"summary","accepted":1,"settled":1,`}, "run", "--log-format", "json", "--log-level", "error", "--until-idle")
	s.onlyRecords(1)
}

// onlyRecords checks that so many lines were written to standard error, each of them JSON.
func (s *shell) onlyRecords(n int) {
	s.t.Helper()
	lines := strings.SplitAfter(s.err.String(), "\n")
	for _, line := range lines[:len(lines)-1] {
		if !json.Valid([]byte(line)) {
			s.t.Errorf("not JSON: %s", line)
		}
	}
	if len(lines) != n+1 {
		s.t.Errorf("%d lines, want %d:\n%s", len(lines)-1, n, s.err)
	}
}

// A process that goes on without sources says so.
func TestSourcesHaveEnded(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	s.write("in.txt", "a\n")
	exit := s.begin("run")
	s.err.await(t, "--until-idle would end it")
	s.end(exit)
	if n := strings.Count(s.err.String(), "all sources have ended"); n != 1 {
		t.Errorf("said %d times:\n%s", n, s.err)
	}
}

// Exit codes of run.
func TestExitCodes(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	s.want(cli.ExitFailed, []string{"in.txt", "no such file"}, "run", "--until-idle")
	if said := s.err.String(); strings.Contains(said, "accepted") || strings.Count(said, "\n") != 1 {
		t.Errorf("more than an error:\n%s", said)
	}
	s.want(cli.ExitUsage, nil, "run", "--summary=no")
	s.write("bad.yaml", "nonsense")
	s.want(cli.ExitConfig, []string{"bad.yaml:1"}, "run", "-c", "bad.yaml")
	s.write("memory.yaml", "memory: 1KiB\n"+copies)
	s.want(cli.ExitConfig, []string{"memory"}, "run", "-c", "memory.yaml")
	s.write("dir.yaml", strings.Replace(copies, "out.txt", "no/such/out.txt", 1))
	s.write("in.txt", "a\n")
	s.want(cli.ExitFailed, []string{"no/such", "create_dir"}, "run", "-c", "dir.yaml", "--until-idle")

	s.write("penstock.yaml", lasting)
	exit := s.begin("run")
	s.err.await(t, "running")
	s.end(exit)
}

// A plugin that does not start.
func TestPluginThatDoesNotStart(t *testing.T) {
	s := newShell(t)
	s.kinds.Add(kind.Native("broken", func() (plugin.Handler, error) { return nil, errors.New("out of order") }))
	s.write("in.txt", "a\n")
	s.write("penstock.yaml", strings.Replace(copies, "sinks:", "plugins:\n  p: { native: broken, from: in }\nsinks:", 1))
	s.want(cli.ExitFailed, []string{`plugin "p"`, "out of order"}, "run", "--until-idle")
}

// Promise: the port that is in use is an error, unless it is the default one of a job that ends by itself.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:7070")
	if err == nil {
		defer l.Close()
	} // else it is in use already
	s := newShell(t)
	s.write("in.txt", "a\n")
	body := strings.Replace(copies, "listen: off\n", "", 1)
	s.write("penstock.yaml", body)
	s.want(0, []string{"level=WARN", "the port is in use", "--listen"}, "run", "--until-idle")
	s.write("asked.yaml", "listen: 127.0.0.1:7070\n"+body)
	s.want(cli.ExitFailed, []string{"127.0.0.1:7070", "in use", "another port"}, "run", "--until-idle", "-c", "asked.yaml")
	s.want(cli.ExitFailed, []string{"in use"}, "run", "--until-idle", "--listen", "127.0.0.1:7070")
	s.want(cli.ExitFailed, []string{"0.0.0.0:0", "tls", "token"}, "run", "--until-idle", "--listen", "0.0.0.0:0")
	s.want(cli.ExitFailed, []string{"missing port", "127.0.0.1:7070"}, "run", "--until-idle", "--listen", "7070")
}

// SIGHUP loads the file again; while it ends, or after it, it does nothing.
func TestSignals(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", lasting)
	exit := s.begin("run", "--listen", "127.0.0.1:0")
	s.signals <- syscall.SIGHUP // before it has started: it is loaded then
	s.err.await(t, `msg="loaded again" trigger=SIGHUP`)
	s.err.await(t, "msg=running")
	_, address, _ := strings.Cut(s.err.String(), "listen=")
	address, _, _ = strings.Cut(address, "\n")
	s.write("penstock.yaml", strings.Replace(lasting, "listen: off", "listen: 127.0.0.1:1\ntoken: x", 1)+"\n"+
		"  more: { from: in, file: { path: more.txt } }\n")
	s.signals <- syscall.SIGHUP
	s.err.await(t, `added="[sink more]"`)
	s.err.await(t, `take a restart" settings=[token]`)
	answer, err := http.Get("http://" + address + "/reload")
	if err != nil {
		t.Fatal(err)
	}
	var records []api.Record
	if err := errors.Join(json.NewDecoder(answer.Body).Decode(&records), answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if r := records[0]; strings.Join(r.RestartNeeded, " ") != "token" || len(r.Failed) > 0 {
		t.Errorf("the record is %+v", r)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := os.Remove("penstock.yaml"); err != nil {
		t.Fatal(err)
	}
	s.signals <- syscall.SIGHUP
	s.err.await(t, "nothing has changed")
	s.end(exit)
}

// stuck is a plugin that waits in the midst of a message.
type stuck struct{ came, release chan struct{} }

func (p stuck) Handle(context.Context, *plugin.Message) error {
	p.came <- struct{}{}
	<-p.release
	return nil
}

// beginStuck runs a pipeline until it is stuck, and sends signals until it has ended, which must be with the code for that.
func (s *shell) beginStuck(p stuck, change func(*cli.App), args ...string) {
	s.t.Helper()
	s.kinds.Add(kind.Native("stuck", func() (plugin.Handler, error) { return p, nil }))
	s.write("penstock.yaml", "listen: off\nsources:\n  in: { file: { path: in.txt } }\nplugins:\n  p: { native: stuck, from: in }\n")
	s.write("in.txt", "a\n")
	s.out, s.err = newScreen(), newScreen()
	app := s.app()
	change(&app)
	done := make(chan int, 1)
	go func() { done <- app.Run(context.Background(), append([]string{"run"}, args...)) }()
	<-p.came
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case code := <-done:
			if code != cli.ExitStopped {
				s.t.Errorf("exit code %d", code)
			}
			return
		case <-again.C:
			select {
			case s.signals <- syscall.SIGTERM:
			default:
			}
		}
	}
}

// blocked is an output that nobody reads.
type blocked chan struct{}

func (b blocked) Write([]byte) (int, error) {
	<-b
	return 0, io.ErrClosedPipe
}

// Promise: a second signal ends it although nobody reads the summary.
func TestSecondSignalWithBlockedOutput(t *testing.T) {
	s := newShell(t)
	p := stuck{make(chan struct{}, 1), make(chan struct{})}
	out := make(blocked)
	defer close(out)
	defer close(p.release)
	s.beginStuck(p, func(a *cli.App) { a.Stdout = out }, "--summary", "json")
}

// Promise: a second signal ends it with the summary as far as it is known, and says what becomes of the rest.
func TestSummaryAfterSecondSignal(t *testing.T) {
	s := newShell(t)
	p := stuck{make(chan struct{}, 1), make(chan struct{})}
	defer close(p.release)
	s.beginStuck(p, func(*cli.App) {})
	for _, text := range []string{"if its source can send it again", "accepted 1, settled 0"} {
		if !strings.Contains(s.err.String(), text) {
			t.Errorf("no %q in\n%s", text, s.err)
		}
	}
}

// --watch sees files that are changed, added to a directory, and put back.
func TestWatch(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for --watch to look")
	}
	s := newShell(t)
	s.write("conf.d/a.yaml", lasting)
	exit := s.begin("run", "-c", "conf.d", "--watch")
	s.err.await(t, "running")
	s.write("conf.d/b.yaml", "sinks:\n  more: { from: in, file: { path: more.txt } }\n")
	s.err.await(t, `msg="loaded again" trigger=watch added="[sink more]"`)
	s.write("conf.d/b.yaml", "sinks:\n  more: { from: nobody, file: { path: more.txt } }\n")
	s.err.await(t, "nothing has changed")
	if err := os.Remove("conf.d/b.yaml"); err != nil {
		t.Fatal(err)
	}
	s.err.await(t, `removed="[sink more]"`)
	s.end(exit)
}

// slowStart is a plugin that takes its time to start.
type slowStart struct{ came, release chan struct{} }

func (p slowStart) Start(context.Context, plugin.Env) error {
	p.came <- struct{}{}
	<-p.release
	return nil
}

func (slowStart) Handle(context.Context, *plugin.Message) error { return nil }

// Promise: a signal that comes while the file is being loaded has it loaded once more.
func TestSignalDuringReload(t *testing.T) {
	s := newShell(t)
	p := slowStart{make(chan struct{}), make(chan struct{})}
	s.kinds.Add(kind.Native("slow", func() (plugin.Handler, error) { return p, nil }))
	s.write("penstock.yaml", lasting)
	exit := s.begin("run")
	s.err.await(t, "msg=running")
	slow := lasting + "plugins:\n  slow: { native: slow, from: in }\n"
	s.write("penstock.yaml", slow)
	s.signals <- syscall.SIGHUP
	<-p.came
	s.write("penstock.yaml", strings.Replace(slow, "plugins:", "  more: { from: in, file: { path: more.txt } }\nplugins:", 1))
	s.signals <- syscall.SIGHUP
	s.err.await(t, "to be loaded again")
	close(p.release)
	s.err.await(t, `added="[plugin slow]"`)
	s.err.await(t, `added="[sink more]"`)
	s.write("penstock.yaml", "memory: 512MiB\ndata: elsewhere\n"+slow)
	s.signals <- syscall.SIGHUP
	s.err.await(t, "penstock.yaml: memory cannot be changed while the pipeline runs: it is 256MiB, and would be 512MiB")
	s.end(exit)
}
