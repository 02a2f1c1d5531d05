package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines are the lines of a file, which must all be different from each other as often as input has them.
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

// Promise: the example gives what is known of its input, twice in a row, and retries make no duplicates.
func TestKnownFacts(t *testing.T) {
	dir := t.TempDir()
	input := lines(t, "flights.ndjson")
	distance := regexp.MustCompile(`"distance":\s*(\d+)`)
	for range 2 {
		counts := &airports{byCode: map[string]*airport{}}
		p, err := pipeline("flights.ndjson", dir, counts)
		if err != nil {
			t.Fatal(err)
		}
		rt, err := penstock.New(p)
		if err != nil {
			t.Fatal(err)
		}
		s, err := rt.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Accepted != 20_000 || s.Settled != 20_000 || s.Retried == 0 || s.Dead+s.Dropped+s.Returned != 0 {
			t.Errorf("summary %+v", s)
		}
		if len(counts.byCode) != 220 {
			t.Errorf("%d airports", len(counts.byCode))
		}
		for code, a := range counts.byCode {
			if most := counts.byCode["DFW"].departures; most != 1103 || code != "DFW" && a.departures >= most {
				t.Errorf("%s has %d departures, DFW %d", code, a.departures, most)
			}
		}
		total := 0
		for line, n := range lines(t, filepath.Join(dir, "late.ndjson")) {
			if total += n; n != input[line] {
				t.Errorf("%d times, and %d times in the input: %s", n, input[line], line)
			}
		}
		if total != 1089 {
			t.Errorf("%d late lines", total)
		}
		long := lines(t, filepath.Join(dir, "long.ndjson"))
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

// Promise: the report shows the totals and the ten worst airports, and a file that is not there is an error that names it.
func TestReport(t *testing.T) {
	var out, progress bytes.Buffer
	if err := run(context.Background(), "flights.ndjson", t.TempDir(), &out, &progress); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"accepted 20000, settled 20000", "220 airports", "longhaul", "DFW"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the report:\n%s", want, out.String())
		}
	}
	if !strings.Contains(progress.String(), "20000 settled") {
		t.Errorf("progress %q", progress.String())
	}
	err := run(context.Background(), "missing.ndjson", t.TempDir(), &out, &progress)
	if err == nil || !strings.Contains(err.Error(), "missing.ndjson") {
		t.Errorf("a file that is not there: %v", err)
	}
}
