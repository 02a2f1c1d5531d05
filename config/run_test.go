package config_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	sinkfile "github.com/penstock-dev/penstock/sink/file"
	sourcefile "github.com/penstock-dev/penstock/source/file"
)

// copies emits what it gets to the stream called late.
type copies struct{}

func (copies) Handle(_ context.Context, m *plugin.Message) error { return m.Emit("late", m.Payload()) }

// withFiles is the test's kinds and those for files.
func withFiles() *kind.Registry {
	reg := registry()
	reg.Add(sourcefile.Kind())
	reg.Add(sinkfile.Kind())
	reg.Add(kind.Native("copies", func() (plugin.Handler, error) { return copies{}, nil }))
	return reg
}

// A file runs: from one file to another, by way of a plugin.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.txt"), filepath.Join(dir, "out.txt")
	if err := os.WriteFile(in, []byte("a;b;c;"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := `
data: "${DIR}/data"
sources:
  in: { file: { path: "${DIR}/in.txt" }, frame: lines, delimiter: ";" }
plugins:
  p: { native: copies, from: in, emits: late }
sinks:
  late: { from: late, file: { path: "${DIR}/out.txt", mode: truncate } }
`
	o := config.Options{Registry: withFiles(), Getenv: func(string) (string, bool) { return dir, true }}
	c, err := config.Parse("penstock.yaml", []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Pipeline(config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := penstock.New(p)
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.Run(t.Context())
	if err != nil || s.Settled != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "a\nb\nc\n" {
		t.Errorf("out has %q, %v", got, err)
	}
}

// Promise: the examples of the guide are files that can be run, and the schema takes them.
func TestGuide(t *testing.T) {
	page, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	schema := compiled(t, withFiles())
	o := config.Options{Registry: withFiles(), Getenv: func(string) (string, bool) { return "", false }}
	n := 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(m[1], "sources:") {
			continue
		}
		n++
		c, err := config.Parse("example.yaml", []byte(m[1]), o)
		if err != nil {
			t.Errorf("%v, in:\n%s", err, m[1])
			continue
		}
		if _, err := c.Pipeline(config.Build{}); err != nil {
			t.Errorf("%v, in:\n%s", err, m[1])
		}
		if err := refused(t, schema, []byte(m[1])); err != nil {
			t.Errorf("the schema says %v, in:\n%s", err, m[1])
		}
	}
	if n < 3 {
		t.Errorf("there are %d examples only", n)
	}
}
