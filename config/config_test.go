package config_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
)

// Every type of setting is read, and every common key reaches the runtime.
func TestEverythingIsRead(t *testing.T) {
	c, err := config.Load("testdata/good/everything.yaml", options())
	if err != nil {
		t.Fatal(err)
	}
	want := quay{
		Path: "/var/in/in.ndjson", Follow: true, Count: 16, Port: 9000, Ratio: 0.5, Poll: 1500 * time.Millisecond, Buffer: 1 << 20,
		Rate: kind.Rate{N: 100, Per: time.Second}, Token: "s3cr3t: {x}", Mode: "truncate", TLS: &kind.ServerTLS{Cert: "a.pem", Key: "a.key"},
		Tags: []string{"x", "12345"}, Levels: []int{1, 2}, Headers: map[string]kind.Secret{"authorization": "s3cr3t: {x}", "x-a": "b"},
		Routes: []route{{To: "b", When: "a > 1"}, {To: "c"}}, Backoff: backoff{First: time.Second, Max: 2 * time.Second},
		Anything: map[string]any{"a": []any{int64(1), 2.5, true, nil, "x"}},
	}
	if got := c.Sources[0].Settings; !reflect.DeepEqual(got, want) {
		t.Errorf("settings are\n%#v\nwant\n%#v", got, want)
	}
	if c.Listen != "" || c.Token.Reveal() != "s3cr3t: {x}" || c.Memory != 512<<20 ||
		c.Log != (config.Log{Level: "debug", Format: "json"}) || c.Tracing.Sample != 0.01 {
		t.Errorf("keys at the top: %+v", c.FileKeys)
	}
	if got := c.Sinks[0].Settings.(shelf).Path; got != "out${x}.ndjson" {
		t.Errorf("escaped variable became %q", got)
	}
	p, err := c.Pipeline(config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Memory != 512<<20 || p.MaxMessage != 2<<20 || p.Data != "/var/in" || p.Drain != 10*time.Second {
		t.Errorf("pipeline: %+v", p)
	}
	key := p.Sources[0].Key([]byte(`{"user":{"e-mail":[{"x":"me"}]}}`))
	if s := p.Sources[0]; s.Limit != 1000 || string(key) != "me" || p.Sources[1].Limit != 100_000 || p.Sources[1].Key != nil {
		t.Errorf("sources: %+v, key %q", p.Sources, key)
	}
	g := p.Plugins[0]
	if g.Workers != 4 || g.Version != "2" || g.ByKey || g.Timeout >= 0 || g.Retry.Attempts != -1 || g.Retry.Backoff != time.Minute ||
		g.Retry.Max != time.Minute || g.Mailbox.Bytes != 64<<20 || !g.Mailbox.DropOldest || len(g.From) != 2 || g.Emits[0] != "c" {
		t.Errorf("plugin: %+v", g)
	}
	if s := p.Sinks[0]; s.Flush != 200*time.Millisecond || s.Retry.Attempts != 3 || s.Retry.Max != 30*time.Second {
		t.Errorf("sink: %+v", s)
	}
}

// What is not written has its default; settings of one entry are not those of another.
func TestDefaults(t *testing.T) {
	c := parse(t, "sources:\n  in: { quay: { path: a, tags: [x] } }\n  too: { quay: { path: b } }\n"+
		"plugins:\n  p: { native: delays, from: [in, too], mode: pool, config: { threshold: 60 } }\nsinks:\n  out: { from: in, shelf: { path: x } }\n")
	if got := c.Sources[1].Settings.(quay); got.Tags[0] != "a" || got.Poll != 250*time.Millisecond || got.TLS != nil {
		t.Errorf("defaults: %+v", got)
	}
	if c.Listen != "127.0.0.1:7070" || c.Memory != 256<<20 || c.Log.Level != "info" {
		t.Errorf("defaults at the top: %+v", c.FileKeys)
	}
	p, err := c.Pipeline(config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Plugins[0].Workers < 1 || p.Plugins[0].Timeout != 30*time.Second || p.Sinks[0].Retry.Attempts != -1 {
		t.Errorf("pipeline: %+v", p)
	}
	if got := p.Plugins[0].Config; !reflect.DeepEqual(got, map[string]any{"threshold": int64(60)}) {
		t.Errorf("config: %#v", got)
	}
}

// Promise: what a variable holds is one value. It cannot bring keys, lists or maps along, whatever it says.
func TestVariableIsOneValue(t *testing.T) {
	for _, held := range []string{"x\ny: z", "{a: b}", "[a]", "*a", "&a b", "- x", "a: b", "# x", "|", "!!int 5", "${TOKEN}", "\"", "'", "", "~"} {
		o := options()
		o.Getenv = func(string) (string, bool) { return held, true }
		for _, written := range []string{"${V}", `"${V}"`, "'${V}'"} {
			c, err := config.Parse("p.yaml", []byte(around("\n      path: "+written+"\n      anything: "+written)), o)
			if err != nil {
				t.Errorf("%q as %s: %v", held, written, err)
				continue
			}
			s := c.Sources[0].Settings.(quay)
			if s.Path != held {
				t.Errorf("%q as %s became %q", held, written, s.Path)
			}
			if _, isText := s.Anything.(string); !isText && (written != "${V}" || s.Anything != nil) {
				t.Errorf("%q as %s became %#v", held, written, s.Anything)
			}
		}
	}
}

func TestInterpolation(t *testing.T) {
	tests := map[string]string{ // in the file -> seen
		`"${WORD}"`: "hello", `a${WORD}b${DIR}`: "ahellob/var/in", `"${NONE:-x y}"`: "x y", `"${EMPTY:-x}"`: "x", `"${EMPTY}"`: "",
		`"$${WORD}"`: "${WORD}", `"$$${WORD}"`: "$${WORD}", `"$WORD $ {x} }"`: "$WORD $ {x} }", `"${NONE:-}"`: "", `"${NONE:-a:-b}"`: "a:-b",
		"${DIGITS}": "12345", "${YES}": "true",
	}
	for written, want := range tests {
		c := parse(t, around("\n      path: "+written))
		if got := c.Sources[0].Settings.(quay).Path; got != want {
			t.Errorf("%s became %q, want %q", written, got, want)
		}
	}
	// Keys are taken as they are.
	if got := problems(t, around("{ path: x, \"${WORD}\": 1 }")); len(got) != 1 || !strings.Contains(got[0].Message, `unknown key "${WORD}"`) {
		t.Errorf("a variable in a key: %v", got)
	}
}

// Promise: the identity of an entry depends on what it is, and on nothing else.
func TestIdentity(t *testing.T) {
	const settings = "{ path: x, token: one1, headers: { a: b, c: d }, anything: { n: 60, m: 1 } }"
	base := parse(t, around(settings)).Sources[0].Identity()
	same := []string{
		around("# comment\n      path: x # comment\n      anything: { m: 1, n: 60.0 }\n      headers: { c: d, a: b }\n      token: one1"),
		around("{ path: x, token: one1, headers: { a: b, c: d }, anything: { n: 60, m: 1 }, poll: 250ms, mode: append }"),
		"log: { level: debug }\n\n" + around(strings.TrimSuffix(settings, "}")+", poll: 0.25s, buffer: 65536 }"),
		strings.Replace(around(settings), "    quay", "    limit: 5\n    quay", 1),
		strings.Replace(around(settings), "    quay", "    key: $.a\n    quay", 1), // which a reload changes in place
	}
	for _, text := range same {
		if got := parse(t, text).Sources[0].Identity(); got != base {
			t.Errorf("this is the same source, but has another identity:\n%s", text)
		}
	}
	other := []string{
		around("{ path: x, token: two2, headers: { a: b, c: d }, anything: { n: 60, m: 1 } }"),
		around("{ path: x, token: one1, headers: { a: b, c: e }, anything: { n: 60, m: 1 } }"),
		around("{ path: x, token: one1, headers: { a: b, c: d }, anything: { n: 61, m: 1 } }"),
		around("{ path: x, token: one1, headers: { a: b, c: d }, anything: { n: 60, m: 1 }, poll: 1s }"),
		around("{ path: x, token: one1, headers: { a: b, c: d }, anything: { n: 60, m: 1 }, tls: { cert: a, key: b } }"),
		strings.Replace(around(settings), "    quay", "    frame: u32\n    quay", 1),
		around("{ path: y }"),
	}
	seen := map[string]bool{base: true}
	for _, text := range other {
		id := parse(t, text).Sources[0].Identity()
		if seen[id] || strings.Contains(id, "one1") {
			t.Errorf("this is another source, but its identity is known:\n%s", text)
		}
		seen[id] = true
	}
	plugins := func(p string) string {
		return parse(t, "sources:\n  in: { stdin: }\nplugins:\n  p: { from: in, "+p+" }\n").Plugins[0].Identity()
	}
	if plugins("native: delays") != plugins("native: delays, timeout: 3s, mode: pool, version: '1'") {
		t.Error("how a plugin is run changed its identity")
	}
	if plugins("native: delays") == plugins("native: airports") || plugins("native: delays") == plugins("native: delays, version: '2'") ||
		plugins("native: delays") == plugins("native: delays, config: { a: 1 }") {
		t.Error("what a plugin is did not change its identity")
	}
}

// Promise: the files of a directory are one pipeline; tests beside them are left out.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := config.Load(dir, options()); err == nil || !strings.Contains(err.Error(), "no file that ends in") {
		t.Errorf("empty directory: %v", err)
	}
	write("b.yml", "sinks:\n  out: { from: in, stdout: }\n")
	write("a.yaml", "data: here\nsources:\n  in: { stdin: }\n")
	write("late_test.yaml", "this is: no pipeline\n")
	write(".hidden.yaml", "nor: this\n")
	write("README.md", "nor this")
	c, err := config.Load(dir, options())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Files) != 2 || c.Data != "here" || c.Sinks[0].Pos.File != filepath.Join(dir, "b.yml") || c.Sinks[0].Pos.Line != 2 {
		t.Errorf("read %+v", c)
	}
	write("c.yaml", "data: there\nsources:\n  in: { stdin: }\nplugins:\n  p: { native: delays, from: inn }\n")
	_, err = config.Load(dir, options())
	a, third := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "c.yaml")
	want := third + ":1:1: data is set already, at " + a + ":1:1\n" +
		third + `:3:3: source "in": there is one of that name already, at ` + a + ":3:3\n" +
		third + `:5:30: plugin "p": nobody makes the stream "inn" (did you mean "in"?)`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := config.Load(filepath.Join(dir, "missing"), options()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// What cannot be built is reported where it stands, and the listener and name reach who is built.
func TestPipelineProblems(t *testing.T) {
	c := parse(t, "sources:\n  in: { stdin: }\nplugins:\n"+
		"  p: { filter: { where: nonsense }, from: in }\n  q: { filter: { where: nonsense }, from: in }\n")
	_, err := c.Pipeline(config.Build{})
	var bad *config.Error
	if !errors.As(err, &bad) || len(bad.Problems) != 2 || bad.Problems[1].Line != 5 || !strings.Contains(err.Error(), errBuild.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestListenReachesSources(t *testing.T) {
	o := options()
	o.Registry = kind.NewRegistry()
	var got kind.Env
	registerEnv(o.Registry, &got)
	c, err := config.Parse("p.yaml", []byte("sources:\n  in: { env: , frame: u32 }\nsinks:\n  out: { env: , from: in }\n"), o)
	if err != nil {
		t.Fatal(err)
	}
	want := errors.New("listened")
	listen := func(context.Context, string, string) (net.Listener, error) { return nil, want }
	if _, err := c.Pipeline(config.Build{Listen: listen}); err != nil {
		t.Fatal(err)
	}
	if _, err := got.Listen(t.Context(), "tcp", ""); got.Name != "in" || got.Frame != "u32" || !errors.Is(err, want) {
		t.Errorf("env is %+v", got)
	}
}

func TestKeyPath(t *testing.T) {
	good := map[string]string{"$.a": "a", "$.a.b-c_1": "a|b-c_1", "$['a.b'].c": "a.b|c", "$.legs[0].from": "legs|[0]|from", "$['x y']": "x y"}
	for in, want := range good {
		var k config.KeyPath
		if err := k.UnmarshalText([]byte(in)); err != nil || strings.Join(k.Path(), "|") != want || k.String() != in {
			t.Errorf("%s: %v, %q, %s", in, err, k.Path(), k)
		}
	}
	for _, in := range []string{
		"", "$", "a", "$a", "$.", "$..a", "$.a.", "$[", "$[x]", "$[00]", "$['']", "$['a", "$.a b", "$[-1]",
		"$.a" + strings.Repeat(".a", 16),
	} {
		var k config.KeyPath
		if err := k.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q was taken as %q", in, k.Path())
		}
	}
}

func TestGraph(t *testing.T) {
	c, err := config.Load("testdata/good/flights.yaml", options())
	if err != nil {
		t.Fatal(err)
	}
	const want = `flights  (source quay)
├── delays  (plugin native delays, by key)
│   └── emits late
│       └── late  (sink shelf)
└── big  (plugin filter)
    ├── emits big
    │   └── big  (sink stdout)
    └── emits huge
        └── big  (sink stdout)
`
	if got := c.Text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	dot := c.DOT()
	for _, want := range []string{
		`"source/flights" [label="flights\nsource quay", shape=cds];`, `"source/flights" -> "plugin/delays" [label="flights"];`,
		`"plugin/delays" -> "sink/late" [label="late"];`, `"plugin/big" -> "sink/big" [label="huge"];`,
	} {
		if !strings.Contains(dot, want) {
			t.Errorf("%s is not in\n%s", want, dot)
		}
	}
	again := parse(t, "sources:\n  a: { stdin: }\n  b: { stdin: }\nplugins:\n  p: { native: delays, from: [a, x], emits: y }\n"+
		"  q: { native: delays, from: a, emits: x, mode: pool, workers: 3 }\n"+
		"sinks:\n  out: { from: [b, y], stdout: }\n").Text()
	if strings.Count(again, "see above") != 1 || !strings.Contains(again, "pool of 3") {
		t.Errorf("got\n%s", again)
	}
}
