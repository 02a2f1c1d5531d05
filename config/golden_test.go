package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/config"
)

var update = flag.Bool("update", false, "write what is seen to testdata/bad/*.txt")

// Promise: all that is wrong with a file is reported at once, each with file, line and column, and where it helps with a suggestion.
func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = config.Parse(filepath.Base(name), text, options())
			var bad *config.Error
			if !errors.As(err, &bad) {
				t.Fatalf("want an *Error, got %v", err)
			}
			got := err.Error() + "\n"
			if strings.Contains(got, "s3cr3t") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			golden := strings.TrimSuffix(name, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v: run with -update and read what it writes", err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// What is good is taken.
func TestGoodFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		c, err := config.Load(name, options())
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if _, err := c.Pipeline(config.Build{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
