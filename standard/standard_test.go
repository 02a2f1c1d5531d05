package standard_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/standard"
)

// Promise: the reference and the schema in docs are those of the program.
func TestGeneratedFiles(t *testing.T) {
	schema, err := config.Schema(standard.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"reference.md": config.Reference(standard.Kinds()), "penstock.schema.json": schema} {
		path := filepath.Join("..", "docs", name)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v: run make generate", err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the program says: run make generate, and commit what it changes", path)
		}
	}
}

// lineOf is the number of the line that begins at that byte.
func lineOf(text []byte, at int) string {
	return strconv.Itoa(bytes.Count(text[:at], []byte("\n")) + 1)
}

var (
	fence  = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	native = regexp.MustCompile(`native: ([a-z0-9_-]+)`)
)

// Promise: a pipeline that stands whole in a document is one that the program takes.
func TestDocumentedPipelines(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatchIndex(string(text), -1) {
			block := string(text[m[2]:m[3]])
			if !regexp.MustCompile(`(?m)^sources:`).MatchString(block) || !regexp.MustCompile(`(?m)^sinks:`).MatchString(block) {
				continue // a part of one
			}
			kinds, known := standard.Kinds(), map[string]bool{}
			for _, n := range native.FindAllStringSubmatch(block, -1) {
				if !known[n[1]] {
					known[n[1]] = true
					kinds.Add(kind.Native(n[1], nil))
				}
			}
			name := page + ":" + lineOf(text, m[2])
			getenv := func(name string) (string, bool) {
				if strings.Contains(block, "${"+name+":-") {
					return "", false // by its default
				}
				return "60", true
			}
			c, err := config.Parse(name, []byte(block), config.Options{Registry: kinds, Getenv: getenv})
			if err == nil && len(known) == 0 {
				_, err = c.Pipeline(config.Build{})
			}
			if err != nil {
				t.Errorf("the pipeline in %s:\n%v", name, err)
			}
		}
	}
}
