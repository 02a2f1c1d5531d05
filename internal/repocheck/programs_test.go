package repocheck

import (
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var goBlock = regexp.MustCompile("(?ms)^```go\n((?://[^\n]*\n)*package .*?)^```$")

// programs is the Go files that stand whole in a Markdown text, by the names that they are to be saved under.
func programs(text string) map[string]string {
	out := map[string]string{}
	for _, m := range goBlock.FindAllStringSubmatch(text, -1) {
		name := "main.go"
		if strings.Contains(m[1], "func Test") {
			name = "main_test.go"
		}
		out[name] = m[1]
	}
	return out
}

// checkProgram vets the program in a document, and runs its tests, in a module of its own in the folder dir.
func checkProgram(tr *tree, page, dir string) error {
	text, missing := tr.read(page, "it has a program for those who begin")
	if missing != nil {
		return fmt.Errorf("%s", missing[0])
	}
	files := programs(text)
	if files["main.go"] == "" {
		return fmt.Errorf("%s: has no program in a block of Go", page)
	}
	for name, program := range files {
		formatted, err := format.Source([]byte(program))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", page, name, err)
		}
		if string(formatted) != program {
			return fmt.Errorf("%s: %s is not as gofmt has it", page, name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(program), 0o600); err != nil {
			return err
		}
	}
	if err := writeModule(tr, dir); err != nil {
		return err
	}
	for _, command := range []string{"vet", "test"} {
		cmd := exec.Command("go", command, "-mod=mod", ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: go %s of its program: %w\n%s", page, command, err, out)
		}
	}
	return nil
}

// writeModule makes dir a module beside the main one, with all that this one needs, so that nothing has to be fetched.
func writeModule(tr *tree, dir string) error {
	mod, err := os.ReadFile(filepath.Join(tr.root, "go.mod"))
	if err != nil {
		return err
	}
	_, needs, _ := strings.Cut(string(mod), "\n")
	text := fmt.Sprintf("module example.com/program\n%s\nrequire %s v0.0.0\n\nreplace %s => %s\n", needs, modulePath, modulePath,
		strconv.Quote(tr.root))
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(tr.root, "go.sum"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600)
}

// Promise: the programs that documents tell people to save compile, and their tests pass.
func TestDocumentedPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles and links")
	}
	for _, page := range []string{"README.md", "docs/embed.md"} {
		if err := checkProgram(repository(t), page, t.TempDir()); err != nil {
			t.Error(err)
		}
	}
}

func TestBrokenProgramsAreFound(t *testing.T) {
	const program = "```go\n// Command x.\npackage main\n\nfunc main() {}\n```\n"
	for text, want := range map[string]string{
		"no program":                                             "has no program",
		"```go\nfunc part() {}\n```\n":                           "has no program",
		"```go\npackage main\nfunc main( {}\n```":                "main.go:",
		"```go\npackage main\nfunc main() { }\n```":              "not as gofmt has it",
		program + "```go\npackage main\n\nfunc TestX() {\n```\n": "main_test.go:",
	} {
		tr := scratch(t, "go.mod", "module x\n", "README.md", text)
		if err := checkProgram(tr, "README.md", t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("in %q it finds %v, want %q", text, err, want)
		}
	}
}
