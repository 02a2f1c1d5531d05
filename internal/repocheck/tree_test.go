package repocheck

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// modulePath is the main module's; import paths below it are ours.
const modulePath = "github.com/penstock-dev/penstock"

// tree is what the checks look at. Paths in it are relative to root and have slashes.
type tree struct {
	root     string
	fset     *token.FileSet
	files    []goFile
	markdown []string
	modules  []string // folders with a go.mod, "." first
}

// goFile is one Go file, of whatever build tag.
type goFile struct {
	path   string
	module string // the folder of its module, "." for the main one
	lines  int
	syntax *ast.File
}

func (f goFile) dir() string     { return path.Dir(f.path) }
func (f goFile) test() bool      { return strings.HasSuffix(f.path, "_test.go") }
func (f goFile) generated() bool { return ast.IsGenerated(f.syntax) }

// load reads the tree at root. Hidden folders, testdata, and what git ignores at the top are left out.
func load(root string) (*tree, error) {
	tr := &tree{root: root, fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && skipped(rel) {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case d.Name() == "go.mod":
			tr.modules = append(tr.modules, path.Dir(rel))
		case strings.HasSuffix(rel, ".md"):
			tr.markdown = append(tr.markdown, rel)
		case strings.HasSuffix(rel, ".go"):
			return tr.addGo(rel)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the tree at %s: %w", root, err)
	}
	slices.Sort(tr.modules)
	for i := range tr.files {
		tr.files[i].module = tr.moduleOf(tr.files[i].path)
	}
	return tr, nil
}

// skipped says whether a folder is none of ours to check.
func skipped(rel string) bool {
	base := path.Base(rel)
	return rel == "bin" || rel == "data" || rel == "examples/flights/out" || base == "testdata" || base == "node_modules" ||
		strings.HasPrefix(base, "_") || (strings.HasPrefix(base, ".") && base != ".github")
}

func (tr *tree) addGo(rel string) error {
	src, err := os.ReadFile(filepath.Join(tr.root, rel))
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(tr.fset, rel, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	tr.files = append(tr.files, goFile{path: rel, lines: strings.Count(string(src), "\n"), syntax: syntax})
	return nil
}

// moduleOf is the folder of the innermost module that holds name.
func (tr *tree) moduleOf(name string) string {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if slices.Contains(tr.modules, dir) {
			return dir
		}
	}
	return "."
}

// packages is the folders of the main module that hold Go files, sorted.
func (tr *tree) packages() []string {
	var dirs []string
	for _, f := range tr.files {
		if f.module == "." {
			dirs = append(dirs, f.dir())
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func (tr *tree) exists(rel string) bool {
	_, err := os.Stat(filepath.Join(tr.root, filepath.FromSlash(rel)))
	return err == nil
}

// read is the text of a file, and a finding instead if it is not there.
func (tr *tree) read(rel, what string) (text string, findings []string) {
	b, err := os.ReadFile(filepath.Join(tr.root, filepath.FromSlash(rel)))
	if err != nil {
		return "", []string{fmt.Sprintf("%s: is missing: %s", rel, what)}
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n"), nil
}

// line is the place of a node as file:line.
func (tr *tree) line(n ast.Node) string {
	p := tr.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// repository loads the tree that this test belongs to.
func repository(t *testing.T) *tree {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(tr.modules, ".") {
		t.Fatalf("no go.mod in %s: this test belongs two folders below the root of the module", root)
	}
	return tr
}

// scratch makes a tree of the files given, as path and text by turns.
func scratch(t *testing.T, pathText ...string) *tree {
	t.Helper()
	root := t.TempDir()
	for i := 0; i < len(pathText); i += 2 {
		name := filepath.Join(root, filepath.FromSlash(pathText[i]))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(pathText[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// report fails the test once for each finding.
func report(t *testing.T, findings []string) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

// mustFind checks that findings are those wanted: as many, each holding the text at its place.
func mustFind(t *testing.T, findings []string, want ...string) {
	t.Helper()
	if len(findings) != len(want) {
		t.Fatalf("%d findings, want %d:\n%s", len(findings), len(want), strings.Join(findings, "\n"))
	}
	for i, w := range want {
		if !strings.Contains(findings[i], w) {
			t.Errorf("finding %d is %q, want it to say %q", i, findings[i], w)
		}
	}
}
