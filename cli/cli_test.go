package cli_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// Every command answers, and bad command lines end with 2 and say what to do.
func TestCommands(t *testing.T) {
	s := newShell(t)
	for _, tt := range []struct {
		line  string
		code  int
		holds []string
	}{
		{"", 0, []string{"Available Commands", "Exit codes"}},
		{"help", 0, []string{"run", "lint", "explain"}},
		{"help run", 0, []string{"--until-idle"}},
		{"version", 0, []string{"penstock v1.2.3 go1", "/"}},
		{"--version", 0, []string{"penstock v1.2.3 go1", "/"}},
		{"explain native", 0, []string{"compiled into the binary", "This binary has none", "Keys of any plugin", "mailbox"}},
		{"__complete run --summary ", 0, []string{"text\njson\nnone\n"}},
		{"__complete run --log-level ", 0, []string{"debug\ninfo\nwarn\nerror\n"}},
		{"__complete run --log-format ", 0, []string{"text\njson\n"}},
		{"__complete run --progress ", 0, []string{"auto\nalways\nnever\n"}},
		{"__complete graph --format ", 0, []string{"text\ndot\n"}},
		{"__complete explain http ", 0, []string{"source\nplugin\nsink\n"}},
		{"list", 0, []string{"source  file", "plugin  filter", "sink    http"}},
		{"list plugins", 0, []string{"plugin  throttle"}},
		{"explain pipeline", 0, []string{"memory", "default 127.0.0.1:7070", "tls.cert"}},
		{"schema", 0, []string{`"$schema"`, `"sources"`}},
		{"reference", 0, []string{"# Reference", "Sink `http`"}},
		{"man", 0, []string{".TH PENSTOCK 1", "until", "EXAMPLES"}},
		{"completion bash", 0, []string{"complete"}},
		{"completion zsh", 0, []string{"#compdef penstock"}},
		{"completion fish", 0, []string{"complete -c penstock"}},
		{"completion powershell", 0, []string{"Register-ArgumentCompleter"}},
		{"__complete explain ht", 0, []string{"http"}},

		{"rn", 2, []string{`unknown command "rn"`, "penstock help"}},
		{"run foo.yaml", 2, []string{"name the file with -c foo.yaml"}},
		{"graph foo.yaml", 2, []string{"name the file with -c foo.yaml"}},
		{"run --til-idle", 2, []string{"unknown flag: --til-idle"}},
		{"run --watch=maybe", 2, []string{"penstock: --watch=maybe: give true or false\n"}},
		{"run --summary yaml", 2, []string{`--summary "yaml"`, "text json none"}},
		{"run --log-level trace", 2, []string{`--log-level "trace": give one of [debug info warn error]`}},
		{"run --log-format xml", 2, []string{`--log-format "xml": give one of [text json]`}},
		{"run --progress sometimes", 2, []string{`--progress "sometimes"`}},
		{"list engines", 2, []string{`list "engines": give sources, plugins or sinks`}},
		{"explain", 2, []string{"explain what? Give a kind: ", "throttle", "pipeline, native"}},
		{"explain kafka", 2, []string{`no kind "kafka"`, "throttle", "pipeline"}},
		{"explain fil", 2, []string{`no kind "fil" (did you mean "file"?)`}},
		{"explain http source sink", 2, []string{"give one kind"}},
		{"explain stdin sink", 2, []string{`there is no sink of kind "stdin"`, "penstock explain stdin"}},
		{"explain http pump", 2, []string{`there is no pump of kind "http"`}},
		{"graph --format svg", 3, []string{"penstock.yaml: no such file", "new pipeline"}},
		{"lint nope.yaml", 2, []string{"nope.yaml: no such file"}},
		{"lint [", 2, []string{"syntax error in pattern"}},
		{"test nope", 2, []string{"nope"}},
		{"test --run (", 2, []string{"--run: error parsing regexp"}},
		{"new", 2, []string{"penstock new pipeline"}},
		{"new plugin", 2, []string{`unknown command "plugin"`}},
		{"run", 3, []string{"penstock.yaml: no such file", "-c", "new pipeline"}},
	} {
		args := strings.Fields(tt.line)
		if strings.HasSuffix(tt.line, " ") { // the word to complete is empty
			args = append(args, "")
		}
		s.want(tt.code, tt.holds, args...)
	}
}

// explain shows one role of a kind, if it is asked to.
func TestExplainOneRole(t *testing.T) {
	s := newShell(t)
	for _, args := range [][]string{{"http", "sink"}, {"http", "sinks"}, {"sink", "http"}} {
		s.want(0, []string{"sink http: "}, append([]string{"explain"}, args...)...)
		if strings.Contains(s.out.String(), "source http: ") {
			t.Errorf("%v: it explains the source too", args)
		}
	}
}

// list shows only what was asked for.
func TestListOneRole(t *testing.T) {
	s := newShell(t)
	s.want(0, []string{"stdout"}, "list", "sinks")
	if said := s.out.String(); strings.Contains(said, "source") || strings.Contains(said, "plugin") {
		t.Errorf("it lists\n%s", said)
	}
}

// Promise: explain says all there is to say about a kind, and its example is right.
func TestExplain(t *testing.T) {
	s := newShell(t)
	s.kinds.Add(kind.Native("free", func() (plugin.Handler, error) { return nil, nil }))
	s.kinds.Add(kind.NativeWith(kind.About{Name: "bound", Summary: "Has settings.", Example: "native: bound\nfrom: flights\nemits: late\n"},
		struct {
			Threshold int `yaml:"threshold" jsonschema_description:"The least delay."`
		}{60}, func(struct {
			Threshold int `yaml:"threshold" jsonschema_description:"The least delay."`
		},
		) (plugin.Handler, error) {
			return nil, nil
		}))
	for _, role := range []kind.Role{kind.RoleSource, kind.RolePlugin, kind.RoleSink} {
		for _, k := range s.kinds.Kinds(role) {
			holds := []string{fmt.Sprintf("%s %s: %s", role, k.Name, k.Summary), strings.TrimSpace(k.Doc), fmt.Sprintf("Keys of any %s:", role)}
			for _, setting := range append(config.Explain(k), config.Common(role)...) {
				holds = append(holds, "  "+setting.Path+"  ("+setting.Type, setting.Description)
				if setting.Default != "" {
					holds = append(holds, "default "+setting.Default)
				}
			}
			s.want(0, holds, "explain", k.Name)
			if k.Name == "free" {
				continue
			}
			s.write("example.yaml", example(role, k))
			s.env["TOKEN"] = "secret"
			s.want(0, []string{"example.yaml: ok"}, "lint", "example.yaml")
		}
	}
	s.want(0, []string{"goes to the plugin as it is"}, "explain", "free")
	s.want(0, []string{"Settings, under config:", "threshold  (integer; default 60"}, "explain", "bound")
}

// example is a pipeline around the example of a kind.
func example(role kind.Role, k kind.Kind) string {
	entry := "  it:\n    " + strings.ReplaceAll(strings.TrimSpace(k.Example), "\n", "\n    ") + "\n"
	const stdin, stdout = "sources:\n  flights: { stdin: }\n", "sinks:\n  out: { from: %s, stdout: }\n"
	switch role {
	case kind.RoleSource:
		return "sources:\n" + entry + fmt.Sprintf(stdout, "it")
	case kind.RoleSink:
		if strings.Contains(k.Example, "from: late") {
			return strings.ReplaceAll(stdin, "flights", "late") + "sinks:\n" + entry
		}
		return stdin + "sinks:\n" + entry
	}
	_, emits, _ := strings.Cut(k.Example, "emits: ")
	return stdin + "plugins:\n" + entry + fmt.Sprintf(stdout, strings.TrimSpace(emits))
}

// new pipeline writes a pipeline that lints, passes its test and runs; it overwrites nothing.
func TestNewPipeline(t *testing.T) {
	s := newShell(t)
	s.want(0, []string{"wrote", "cd hello", "penstock test", "penstock run --until-idle"}, "new", "pipeline", "hello")
	s.want(1, []string{"penstock.yaml is there already"}, "new", "pipeline", "hello")
	t.Chdir("hello")
	s.want(0, []string{"penstock.yaml: ok: 1 source, 1 plugin, 1 sink"}, "lint")
	s.want(0, []string{"1 test passed"}, "test")
	s.want(0, []string{"accepted 3, settled 3"}, "run", "--until-idle", "--listen", "off")
	if got := strings.Count(s.read("late.ndjson"), "\n"); got != 2 {
		t.Errorf("%d late flights", got)
	}
	t.Chdir(t.TempDir())
	s.write("flights.ndjson", "mine")
	s.want(1, []string{"flights.ndjson is there already"}, "new", "pipeline")
	s.want(2, []string{"penstock.yaml: no such file"}, "lint") // all or none
}

// lint reports all errors of all files.
func TestLint(t *testing.T) {
	s := newShell(t)
	s.write("good.yaml", copies)
	s.write("bad.yaml", "sources:\n  in: { fiel: {} }\nsinks:\n  out: { from: inn, stdout: }\nmemroy: 1\n")
	s.write("worse.yml", "sources: [\n")
	s.write("good_test.yaml", "tests: []\n")
	s.write("conf.d/1.yaml", "sources:\n  in: { stdin: }\n")
	s.write("conf.d/2.yaml", "sinks:\n  out: { from: in, stdout: }\n")
	s.want(0, []string{"conf.d: ok: 1 source, 0 plugins, 1 sink"}, "lint", "conf.d")
	s.want(1, []string{
		"good.yaml: ok", `bad.yaml:2:`, `did you mean "file"`, "bad.yaml:5:1", `did you mean "memory"`, "worse.yml:", "conf.d/1.yaml:",
		"good_test.yaml: left out",
	}, "lint", "*.y*ml", "conf.d/1.yaml")
	s.want(0, []string{"good.yaml: ok", "good_test.yaml: left out: it holds tests, which `penstock test`"}, "lint", "good.yaml", "good_test.yaml")
	s.want(2, []string{"no pipeline among these"}, "lint", "good_test.yaml")
	s.want(0, []string{"good.yaml: ok"}, "lint", "-c", "good.yaml")
	s.want(0, []string{"good.yaml: ok", "conf.d: ok"}, "lint", "-c", "good.yaml", "conf.d")
	s.env["PENSTOCK_CONFIG"] = "good.yaml"
	s.want(0, []string{"good.yaml: ok"}, "lint")
	s.want(0, []string{"conf.d: ok"}, "lint", "conf.d")
	if strings.Contains(s.out.String(), "good.yaml") {
		t.Errorf("the variable adds a file to those named:\n%s", s.out)
	}
	s.env["DIR"] = ""
	s.write("var.yaml", strings.Replace(copies, "in.txt", `"${DIR}${NAME}"`, 1))
	s.want(1, []string{"NAME"}, "lint", "var.yaml")
	s.env["NAME"] = "x"
	s.want(0, []string{"var.yaml: ok"}, "lint", "var.yaml")
}

func TestGraph(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	for format, begin := range map[string]string{"text": "in  (source file)", "dot": "digraph"} {
		s.want(0, nil, "graph", "--format", format)
		if text := s.out.String(); !strings.HasPrefix(text, begin) || !strings.HasSuffix(text, "\n") || strings.HasSuffix(text, "\n\n") {
			t.Errorf("%s: %q", format, text)
		}
	}
	s.env["PENSTOCK_FORMAT"] = "dot"
	s.want(0, []string{"digraph"}, "graph")
	s.want(2, []string{`--format "svg": give text or dot`}, "graph", "--format=svg")
}

// test exits with 3 if a file of tests is wrong, with 1 if a test fails.
func TestTest(t *testing.T) {
	s := newShell(t)
	s.write("penstock.yaml", copies)
	s.write("penstock_test.yaml", "tests:\n  - name: copies\n    input: [ { source: in, text: a } ]\n    expect: { out: [ b ] }\n")
	s.want(3, []string{"penstock_test.yaml:3"}, "test")
	s.write("penstock_test.yaml", "tests:\n  - name: copies\n    input: [ { source: in, payload: a } ]\n    expect: { in: [ b ] }\n")
	s.want(1, []string{"copies"}, "test", "--junit", "report.xml")
	if !strings.Contains(s.read("report.xml"), "<failure") {
		t.Error("no failure in the JUnit file")
	}
	s.want(1, []string{"no/report.xml"}, "test", "--junit", "no/report.xml")
	s.write("penstock_test.yaml", "tests:\n  - name: copies\n    input: [ { source: in, payload: a } ]\n    expect: { in: [ a ] }\n")
	s.want(0, []string{"1 test passed"}, "test", "--junit", "report.xml")
	s.want(1, []string{`no test matches --run "nomatch"`}, "test", "--run", "nomatch")
	s.want(2, []string{"penstock.yaml is a pipeline: its tests stand in penstock_test.yaml"}, "test", "penstock.yaml")
	s.env["PENSTOCK_VERBOSE"] = "true"
	s.want(0, []string{"PASS: copies"}, "test", "penstock_test.yaml")
}
