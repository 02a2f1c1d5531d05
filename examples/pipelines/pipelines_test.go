// Package pipelines_test holds the example pipelines to what they say.
package pipelines_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/cli"
	"github.com/penstock-dev/penstock/standard"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command runs a command line of the standard binary, which sees these variables and no others.
func command(t *testing.T, env map[string]string, args ...string) (code int, output string) {
	t.Helper()
	var out bytes.Buffer
	app := cli.App{Kinds: standard.Kinds(), Name: "penstock", Stdout: &out, Stderr: &out, Getenv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
	code = app.Run(t.Context(), args)
	return code, out.String()
}

// Promise: the example pipelines are as the program wants them, without a variable set.
func TestLint(t *testing.T) {
	if code, out := command(t, nil, "lint", "*.yaml"); code != cli.ExitOK {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// Promise: each example pipeline has tests, and they pass.
func TestPipelines(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no pipelines here: %v", err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.yaml") {
			continue
		}
		test := strings.TrimSuffix(f, ".yaml") + "_test.yaml"
		if _, err := os.Stat(test); err != nil {
			t.Errorf("%s has no tests: %v", f, err)
		}
	}
	if code, out := command(t, nil, "test"); code != cli.ExitOK {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// Promise: the job runs to its end on real files, twice with the same output.
func TestJob(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.ndjson"), filepath.Join(dir, "out.ndjson")
	sales := `{"id":1,"quantity":2,"price":499.5}` + "\n" + `{"id":2,"quantity":4,"price":250.5,"comment":"urgent"}` + "\n"
	if err := os.WriteFile(in, []byte(sales), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		code, log := command(t, map[string]string{"IN": in, "OUT": out}, "run", "-c", "job.yaml", "--until-idle", "--listen", "off",
			"--data", filepath.Join(dir, "data"))
		if code != cli.ExitOK {
			t.Fatalf("exit code %d:\n%s", code, log)
		}
		got, err := os.ReadFile(out)
		if want := `{"id":2,"quantity":4,"price":250.5,"country":"unknown","total":1002}` + "\n"; err != nil || string(got) != want {
			t.Errorf("output is %q (%v), want %q", got, err, want)
		}
	}
}
