package cli_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

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

// Exit codes of run.
func TestExitCodes(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	s.want(cli.ExitFailed, []string{"in.txt", "no such file"}, "run", "--until-idle")
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
	s.err.await(t, "token has changed")
	answer, err := http.Get("http://" + address + "/reload")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := os.Remove("penstock.yaml"); err != nil {
		t.Fatal(err)
	}
	s.signals <- syscall.SIGHUP
	s.err.await(t, "nothing has changed")
	s.end(exit)
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
