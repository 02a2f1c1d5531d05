package repocheck

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fileMap is the paths in the first column of every table of ARCHITECTURE.md whose first column is called "path".
func fileMap(text string) []string {
	var out []string
	inMap, inTable := false, false
	for _, l := range mdLines(text) {
		row := strings.TrimSpace(l.text)
		if l.fenced || !strings.HasPrefix(row, "|") {
			inMap, inTable = false, false
			continue
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		if !inTable {
			inTable = true
			inMap = strings.EqualFold(strings.TrimSpace(first), "path")
			continue
		}
		if inMap {
			for _, span := range codeSpan.FindAllString(first, -1) {
				out = append(out, path.Clean(strings.Trim(span, "`")))
			}
		}
	}
	return out
}

// checkFileMap holds ARCHITECTURE.md's file map against the tree: what it names is there, and every package is named. A path may be a
// pattern of path.Match; a module other than the main one is named by its folder.
func checkFileMap(tr *tree) []string {
	text, out := tr.read("ARCHITECTURE.md", "it tells where a message goes, and has the file map")
	if out != nil {
		return out
	}
	paths := fileMap(text)
	if len(paths) == 0 {
		return []string{"ARCHITECTURE.md: has no file map: add a table whose first column is called \"path\" and holds `paths` in backticks"}
	}
	named := map[string]bool{}
	for _, p := range paths {
		matches, err := filepath.Glob(filepath.Join(tr.root, filepath.FromSlash(p)))
		if err != nil || len(matches) == 0 {
			out = append(out, fmt.Sprintf("ARCHITECTURE.md: the file map names %s, which is not there: mend or remove the row", p))
		}
		for _, m := range matches {
			if rel, err := filepath.Rel(tr.root, m); err == nil {
				rel = filepath.ToSlash(rel)
				named[rel] = true
				if strings.HasSuffix(rel, ".go") && path.Dir(rel) == "." {
					named["."] = true // the root package is named by its files
				}
			}
		}
	}
	for _, dir := range slices.Concat(tr.packages(), tr.modules) {
		if !named[dir] && !slices.ContainsFunc(tr.modules, func(m string) bool { return named[m] && strings.HasPrefix(dir, m+"/") }) &&
			!(dir == "." && !slices.Contains(tr.packages(), ".")) {
			out = append(out, fmt.Sprintf("ARCHITECTURE.md: the file map does not name %s: add a row that says what it is for", dir))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Promise: the file map of ARCHITECTURE.md is what the folders are.
func TestFileMap(t *testing.T) {
	report(t, checkFileMap(repository(t)))
}

func TestFileMapGapsAreFound(t *testing.T) {
	files := []string{
		"go.mod", "module x\n", "x.go", "package x\n", "a/a.go", "package a\n", "a/b/b.go", "package b\n", "c/c.go", "package c\n",
		"bench/go.mod", "module bench\n", "bench/deep/b.go", "package deep\n",
	}
	with := func(doc string) *tree { return scratch(t, append(slices.Clone(files), "ARCHITECTURE.md", doc)...) }
	mustFind(t, checkFileMap(scratch(t, files...)), "ARCHITECTURE.md: is missing")
	mustFind(t, checkFileMap(with("# A\n\n| other | table |\n|---|---|\n| `gone` | x |\n")), "has no file map")
	mustFind(t, checkFileMap(with("| path | what |\n|---|---|\n| `a/`, `gone.go` | x |\n| `a/*` | y |\n")),
		"does not name .:", "does not name bench", "does not name c:", "names gone.go")
	mustFind(t, checkFileMap(with("| path | what |\n|---|---|\n| `x.go` | x |\n| `a`, `a/b`, `c` | y |\n| `bench` | z |\n")))
}

// goMod is what `go mod edit -json` says of a module file.
type goMod struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Tool []struct{ Path string }
}

func readGoMod(t *testing.T, name string) goMod {
	t.Helper()
	out, err := exec.Command("go", "mod", "edit", "-json", name).Output()
	if err != nil {
		t.Fatalf("go mod edit -json %s: %v", name, err)
	}
	var mod goMod
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatalf("go mod edit -json %s: %v", name, err)
	}
	return mod
}

// checkDependencies holds docs/dependencies.md against go.mod and tools.mod. An entry is a heading that is the module's path in
// backticks, with text below it.
func checkDependencies(tr *tree, mod, tools goMod) []string {
	const page = "docs/dependencies.md"
	text, out := tr.read(page, "it has an entry with reasons for each direct dependency in go.mod")
	if out != nil {
		return out
	}
	entries := map[string]int{} // module -> lines of text
	var order []string
	current := ""
	for _, l := range mdLines(text) {
		if m := heading.FindStringSubmatch(l.text); m != nil && !l.fenced {
			current = ""
			if span := codeSpan.FindString(m[1]); span != "" && span == m[1] {
				current = strings.Trim(span, "`")
				order = append(order, current)
				entries[current] = 0
			}
		} else if current != "" && strings.TrimSpace(l.text) != "" {
			entries[current]++
		}
	}
	known := map[string]bool{}
	for _, r := range mod.Require {
		known[r.Path] = true
		if n, ok := entries[r.Path]; !r.Indirect && (!ok || n == 0) {
			out = append(out, fmt.Sprintf("%s: %s is in go.mod without an entry: add a heading `%s` and, below it, what it is for and "+
				"why it is worth having", page, r.Path, r.Path))
		}
	}
	for _, e := range order {
		isTool := slices.ContainsFunc(tools.Tool, func(t struct{ Path string }) bool {
			return t.Path == e || strings.HasPrefix(t.Path, e+"/")
		})
		if !known[e] && !isTool {
			out = append(out, fmt.Sprintf("%s: has an entry for %s, which neither go.mod nor tools.mod has: take it out", page, e))
		}
	}
	return out
}

// Promise: each direct dependency has its reasons written down.
func TestDependencies(t *testing.T) {
	tr := repository(t)
	mod := readGoMod(t, filepath.Join(tr.root, "go.mod"))
	tools := readGoMod(t, filepath.Join(tr.root, "tools.mod"))
	report(t, checkDependencies(tr, mod, tools))
}

func TestMissingReasonsAreFound(t *testing.T) {
	var mod, tools goMod
	const modJSON = `{"Require": [{"Path": "example.com/a"}, {"Path": "example.com/b"}, {"Path": "example.com/c"},
		{"Path": "example.com/d", "Indirect": true}]}`
	if err := json.Unmarshal([]byte(modJSON), &mod); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"Tool": [{"Path": "example.com/tool/v2/cmd/tool"}]}`), &tools); err != nil {
		t.Fatal(err)
	}
	tr := scratch(t, "go.mod", "module x\n", "docs/dependencies.md",
		"# D\n\n## `example.com/a`\n\nReasons.\n\n## `example.com/b`\n\n## `example.com/tool/v2`\n\nx\n\n## `example.com/gone`\n\nx\n")
	mustFind(t, checkDependencies(tr, mod, tools), "example.com/b is in go.mod", "example.com/c is in go.mod", "entry for example.com/gone")
}

var (
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
	makeCommand = regexp.MustCompile(`(?:^|[\s$&;])make ([a-z][a-z0-9-]*)`)
)

// checkCommands holds the commands that documents name against the Makefile: the README's first is `make demo`, its second `make test`,
// and every target named in any document exists.
func checkCommands(tr *tree) []string {
	makefile, out := tr.read("Makefile", "the README's commands are its targets")
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}
	readme, missing := tr.read("README.md", "its first command is `make demo`, its second `make test`, each in a code block")
	out = append(out, missing...)
	for i, want := range []string{"demo", "test"} {
		blocks := fencedTargets(readme)
		switch {
		case missing != nil:
		case i >= len(blocks):
			out = append(out, fmt.Sprintf("README.md: names no %q in a code block: the first commands are `make demo`, then `make test`",
				"make "+want))
		case blocks[i] != want:
			out = append(out, fmt.Sprintf("README.md: make command number %d in its code blocks is \"make %s\", want \"make %s\"",
				i+1, blocks[i], want))
		}
		if !slices.Contains(targets, want) {
			out = append(out, fmt.Sprintf("Makefile: has no target %q, which the README promises", want))
		}
	}
	for _, name := range tr.markdown {
		text, _ := tr.read(name, "")
		for _, l := range mdLines(text) {
			for _, target := range namedTargets(l) {
				if !slices.Contains(targets, target) {
					out = append(out, fmt.Sprintf("%s:%d: names `make %s`, which the Makefile does not have", name, l.number, target))
				}
			}
		}
	}
	return out
}

// fencedTargets is the make targets in the code blocks of a text, in order, without repeats.
func fencedTargets(text string) []string {
	var out []string
	for _, l := range mdLines(text) {
		if !l.fenced {
			continue
		}
		for _, t := range namedTargets(l) {
			if !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// namedTargets is the make targets that a line names as code.
func namedTargets(l mdLine) []string {
	code := []string{l.text}
	if !l.fenced {
		code = codeSpan.FindAllString(l.text, -1)
	}
	var out []string
	for _, c := range code {
		command, _, _ := strings.Cut(strings.Trim(c, "`"), "#")
		for _, m := range makeCommand.FindAllStringSubmatch(command, -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// Promise: the commands that the README begins with exist.
func TestCommands(t *testing.T) {
	report(t, checkCommands(repository(t)))
}

func TestMissingCommandsAreFound(t *testing.T) {
	const makefile = "demo: x\n\ttrue\ntest:\n\ttrue\n"
	mustFind(t, checkCommands(scratch(t, "go.mod", "module x\n")),
		"Makefile: is missing", "README.md: is missing", `no target "demo"`, `no target "test"`)
	mustFind(t, checkCommands(scratch(t, "Makefile", makefile, "README.md", "```\n$ make test\n```\nThen `make gone`.\n")),
		`make command number 1 in its code blocks is "make test", want "make demo"`, `names no "make test"`, "README.md:4: names `make gone`")
	mustFind(t, checkCommands(scratch(t, "Makefile", makefile, "README.md",
		"```sh\ncd x && make demo   # make sure\n```\n\n```\nmake test\n```\n")))
}
