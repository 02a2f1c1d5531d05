package pipetest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/standard"
)

// The example of the guide does what the guide says, and so does its failure.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/test-a-pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(begins string) string {
		t.Helper()
		_, rest, found := strings.Cut(string(text), begins)
		inner, _, closed := strings.Cut(rest, "```")
		if !found || !closed {
			t.Fatalf("the guide has no block that begins with %q", begins)
		}
		return inner
	}
	real := func(o *Options) { o.Registry = standard.Kinds() }
	pipeline, tests := block("```yaml\n# penstock.yaml\n"), "# penstock_test.yaml\n"+block("```yaml\n# penstock_test.yaml\n")
	if got := mustRun(t, nil, pipeline, tests, real); strings.Contains(got, "FAIL") || !strings.Contains(got, "3 tests passed") {
		t.Errorf("it does not pass:\n%s", got)
	}
	other := strings.Replace(strings.Replace(tests, "- { flight: AS1, origin: SEA, delay: 75 }", "- { flight: AS1, origin: SEA, delay: 76 }", 1),
		"flight: AS1, origin: SEA, delay: 80", "flight: AS2, origin: SEA, delay: 80", 1)
	got := mustRun(t, nil, pipeline, other, real, func(o *Options) { o.Run = regexp.MustCompile("raises one") })
	want := regexp.MustCompile(`(?m) \(\d\.\d\ds\)$|\t\d\.\d+s$`).ReplaceAllString(block("```text\n"), "")
	if strings.ReplaceAll(got, "FAIL ", "FAIL\t") != strings.ReplaceAll(want, "FAIL ", "FAIL\t") {
		t.Errorf("it fails like this:\n%s\nand the guide says:\n%s", got, want)
	}
}
