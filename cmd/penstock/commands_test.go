//go:build unix

package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock"
)

// What is there to see of a pipeline that runs.
func TestPort(t *testing.T) {
	dir := t.TempDir()
	file, in := slow(t, dir, "")
	p := run(t, dir, file)
	<-in.came
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": `"ready": true`, "/": "GET  /metrics", "/reload": "[]",
		"/metrics": `penstock_accepted_messages_total{kind="source",name="in"} 3000`,
	} {
		if path == "/metrics" {
			eventually(t, "all is read", func() bool {
				_, body := get(t, p.url(path))
				return strings.Contains(body, want)
			})
			continue
		}
		if status, body := get(t, p.url(path)); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	status, body := get(t, p.url("/stats"))
	var s penstock.Summary
	if err := json.Unmarshal([]byte(body), &s); err != nil || status != 200 || s.Accepted != 3000 || s.Settled != 0 || len(s.Rows) != 2 {
		t.Errorf("/stats: %d %s, %v", status, body, err)
	}
	p.signal(syscall.SIGTERM)
	p.await("ending: sources stop")
	if status, body := get(t, p.url("/readyz")); status != 503 || !strings.Contains(body, "ending") {
		t.Errorf("/readyz while it drains: %d %s", status, body)
	}
	in.open()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Promise: an address that others can reach is refused without TLS and a token, and it is said what to do.
func TestOpenPort(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir)
	const body = "sources:\n  in: { stdin: }\nsinks:\n  out: { from: in, stdout: }\n"
	for name, tt := range map[string]struct {
		top  string
		args []string
		env  []string
		code int
	}{
		"by a flag":            {"", []string{"--listen", "0.0.0.0:0"}, nil, 1},
		"by a variable":        {"", nil, []string{"PENSTOCK_LISTEN=0.0.0.0:0"}, 1},
		"by the file":          {"listen: 0.0.0.0:0\n", nil, nil, 3},
		"TLS without a token":  {"listen: \":0\"\ntls: { cert: cert.pem, key: key.pem }\n", nil, nil, 3},
		"a token without TLS":  {"listen: \"[::]:0\"\ntoken: secret\n", nil, nil, 3},
		"a source without TLS": {"", []string{"-c", "source.yaml"}, nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, dir, "penstock.yaml", tt.top+body)
			write(t, dir, "source.yaml", "sources:\n  in: { tcp: { address: \":0\" } }\nsinks:\n  out: { from: in, stdout: }\n")
			p := start(t, options{dir: dir, args: append([]string{"run"}, tt.args...), env: tt.env})
			if code := p.exit(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if said := p.log.String(); !strings.Contains(strings.ToLower(said), "tls") || !strings.Contains(said, "127.0.0.1") {
				t.Errorf("it says %q", said)
			}
		})
	}
	write(t, dir, "penstock.yaml", "listen: 0.0.0.0:0\ntls: { cert: cert.pem, key: key.pem }\ntoken: secret\n"+body)
	p := start(t, options{dir: dir, args: []string{"run", "--until-idle"}, stdin: strings.NewReader("a\n")})
	if code := p.exit(); code != 0 {
		t.Errorf("guarded: exit code %d", code)
	}
}

// A port that is in use: only a warning for a job at the default port, an error where somebody has asked for it.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:7070")
	if err == nil {
		defer l.Close()
	} // else it is in use already
	dir := t.TempDir()
	const body = "sources:\n  in: { stdin: }\nsinks:\n  out: { from: in, stdout: }\n"
	for name, tt := range map[string]struct {
		top   string
		args  []string
		code  int
		level string
	}{
		"a job":                     {"", []string{"--until-idle"}, 0, "level=WARN"},
		"a job, asked by the flag":  {"", []string{"--until-idle", "--listen", "127.0.0.1:7070"}, 1, "Choose another port"},
		"a job, asked by the file":  {"listen: 127.0.0.1:7070\n", []string{"--until-idle"}, 1, "Choose another port"},
		"not a job":                 {"", nil, 1, "Choose another port"},
		"a job that wants no port":  {"listen: off\n", []string{"--until-idle"}, 0, "listen=off"},
		"a job that takes any port": {"", []string{"--until-idle", "--listen", "127.0.0.1:0"}, 0, "listen=127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, dir, "penstock.yaml", tt.top+body)
			p := start(t, options{dir: dir, args: append([]string{"run"}, tt.args...), stdin: strings.NewReader("a\n")})
			if code := p.exit(); code != tt.code || !strings.Contains(p.log.String(), tt.level) {
				t.Errorf("exit code %d, want %d, and %q in\n%s", code, tt.code, tt.level, p.log)
			}
		})
	}
}

// A test that fails shows a diff, exits with 1 and is in the JUnit file.
func TestFailingTest(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "penstock.yaml", "sources:\n  in: { stdin: }\nplugins:\n  big: { filter: { where: msg.n >= 2 }, from: in, emits: big }\n"+
		"sinks:\n  out: { from: big, stdout: }\n")
	write(t, dir, "penstock_test.yaml", `tests:
  - name: this one passes
    input: [ { source: in, payload: { n: 2 } } ]
    expect: { big: [ { n: 2 } ] }
  - name: this one fails
    input: [ { source: in, payload: { n: 1 } }, { source: in, payload: { n: 3 } } ]
    expect: { big: [ { n: 1 } ] }
`)
	p := start(t, options{dir: dir, args: []string{"test", "--junit", "report.xml"}})
	if code := p.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	said := p.out.String()
	for _, want := range []string{"this one fails", `-`, `+`, `"n":1`, `"n":3`} {
		if !strings.Contains(strings.ReplaceAll(said, `": `, `":`), want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(said, "this one passes") {
		t.Errorf("it names a test that passes:\n%s", said)
	}
	report, err := os.ReadFile(filepath.Join(dir, "report.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var junit struct {
		Suites []struct {
			Failures int `xml:"failures,attr"`
			Tests    int `xml:"tests,attr"`
			Cases    []struct {
				Name    string  `xml:"name,attr"`
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(report, &junit); err != nil || len(junit.Suites) != 1 || junit.Suites[0].Failures != 1 || junit.Suites[0].Tests != 2 {
		t.Errorf("%+v, %v, of\n%s", junit, err, report)
	}
	p = start(t, options{dir: dir, args: []string{"test", "--run", "passes", "-v"}})
	if code := p.exit(); code != 0 || !strings.Contains(p.out.String(), "this one passes") {
		t.Errorf("exit code %d: %s", code, p.out)
	}
}

// On a terminal a line of progress stands below the log, is never longer than the terminal is wide, and is gone at the end.
func TestProgressOnATerminal(t *testing.T) {
	script := tool(t, "script")
	in := newInbox()
	in.gate = make(chan struct{})
	server := httptest.NewServer(in)
	defer server.Close()
	defer in.open()
	dir := t.TempDir()
	write(t, dir, "penstock.yaml", "listen: off\nsources:\n  in: { file: { path: in.ndjson } }\n"+
		fmt.Sprintf("sinks:\n  out: { from: in, http: { url: %q } }\n", server.URL))
	write(t, dir, "in.ndjson", text(numbered(0, 100)))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	command := "stty cols 30; exec " + os.Getenv(binaryVar) + " run --until-idle"
	p := start(t, options{dir: dir, program: []string{script, "-qfec", command, "/dev/null"}, stdout: w})
	w.Close()
	var shown []byte
	read := func(until string) {
		t.Helper()
		for !strings.Contains(string(shown), until) {
			b := make([]byte, 4096)
			n, err := r.Read(b)
			shown = append(shown, b[:n]...)
			if err != nil && !strings.Contains(string(shown), until) {
				t.Fatalf("%v: no %q in %q", err, until, shown)
			}
		}
	}
	read("1s, 100 accepted") // the second one: it goes on
	in.open()
	read("settled 100")
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	const up = "\r\x1b[K" // to the beginning of the line, which is wiped
	for i, line := range strings.Split(string(shown), up)[1:] {
		line, _, _ = strings.Cut(line, "\n")
		if len(line) >= 30 && !strings.HasPrefix(line, "accepted") && !strings.HasPrefix(line, "time=") {
			t.Errorf("line %d is too long: %q", i, line)
		}
	}
	if !strings.Contains(string(shown), up+"accepted 100") {
		t.Errorf("the line of progress is still there above the summary: %q", shown)
	}
}
