package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/cli"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines counts the lines of a file.
func lines(t *testing.T, path string) map[string]int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for line := range strings.Lines(string(b)) {
		out[strings.TrimSuffix(line, "\n")]++
	}
	return out
}

// command runs a command line of the example, with an output directory of its own.
func command(t *testing.T, out string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	env := map[string]string{"FLIGHTS_DIR": ".", "OUT_DIR": out}
	getenv := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	app := cli.App{Kinds: kinds(), Name: "flights", Stdout: &o, Stderr: &e, Getenv: getenv}
	code = app.Run(t.Context(), args)
	return code, o.String(), e.String()
}

// Promise: the example gives what is known of its input, twice in a row, and retries make no duplicates.
func TestKnownFacts(t *testing.T) {
	out := t.TempDir()
	input := lines(t, "flights.ndjson")
	distance := regexp.MustCompile(`"distance":\s*(\d+)`)
	for range 2 {
		code, stdout, stderr := command(t, out, "run", "-c", "penstock.yaml", "--until-idle", "--summary", "json", "--listen", "off")
		if code != cli.ExitOK {
			t.Fatalf("exit code %d:\n%s", code, stderr)
		}
		var s penstock.Summary
		if err := json.Unmarshal([]byte(stdout), &s); err != nil {
			t.Fatalf("%v: %s", err, stdout)
		}
		if s.Accepted != 20_000 || s.Settled != 20_000 || s.Retried == 0 || s.Dead+s.Dropped+s.Returned != 0 {
			t.Errorf("summary %+v", s)
		}
		knownAirports(t, filepath.Join(out, "airports.ndjson"))
		total := 0
		for line, n := range lines(t, filepath.Join(out, "late.ndjson")) {
			if total += n; n != input[line] {
				t.Errorf("%d times, and %d times in the input: %s", n, input[line], line)
			}
		}
		if total != 1089 {
			t.Errorf("%d late lines", total)
		}
		long := lines(t, filepath.Join(out, "long.ndjson"))
		for line, n := range input {
			want := 0
			if m := distance.FindStringSubmatch(line); m != nil && (len(m[1]) > 4 || len(m[1]) == 4 && m[1] > "2000") {
				want = n
			}
			if long[line] != want {
				t.Errorf("%d times among the long ones, want %d: %s", long[line], want, line)
			}
		}
	}
}

func knownAirports(t *testing.T, path string) {
	t.Helper()
	most, count, last := airport{}, 0, int64(1<<62)
	for line := range lines(t, path) {
		var a airport
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		if count++; a.Departures > most.Departures {
			most = a
		}
		last = min(last, a.Delay)
	}
	if count != 220 || most.Code != "DFW" || most.Departures != 1103 {
		t.Errorf("%d airports, most departures from %+v", count, most)
	}
}

// Promise: the example's own tests pass, its file is right, and its plugin is explained.
func TestCommands(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"test .", "ok"},
		{"lint penstock.yaml", "1 source, 3 plugins, 3 sinks"},
		{"explain delays", "threshold"},
		{"graph -c penstock.yaml", "longhaul"},
	} {
		code, stdout, stderr := command(t, t.TempDir(), strings.Fields(c.args)...)
		if code != cli.ExitOK || !strings.Contains(stdout, c.want) {
			t.Errorf("%s: exit code %d, want %q in\n%s%s", c.args, code, c.want, stdout, stderr)
		}
	}
}

// Promise: a path that is wrong is said before any output is written.
func TestMissingInput(t *testing.T) {
	out := t.TempDir()
	app := cli.App{Kinds: kinds(), Name: "flights", Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, Getenv: func(name string) (string, bool) {
		v, ok := map[string]string{"FLIGHTS_DIR": "nowhere", "OUT_DIR": out}[name]
		return v, ok
	}}
	code := app.Run(t.Context(), []string{"run", "-c", "penstock.yaml", "--until-idle", "--listen", "off"})
	if text := app.Stderr.(*bytes.Buffer).String(); code != cli.ExitFailed || !strings.Contains(text, "nowhere") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 1 || entries[0].Name() != "data" { // that is where the lock is
		t.Errorf("%v was written: %v", entries, err)
	}
}
