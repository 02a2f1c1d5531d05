package repocheck

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Budgets of code that is neither a test nor generated.
const (
	maxFunctionLines = 70
	maxFileLines     = 500
)

// exceptions is what may break a rule of this file: the finding's name, and why. An exception that nothing needs any more is a finding.
func exceptions() map[string]string {
	return map[string]string{
		"internal/mutate/on.go:active": "only under the tag penstock_mutate: which planted bug is on, for the tests of the simulator alone",
	}
}

// finding is a breach of a rule; name is what exceptions() knows it by.
type finding struct{ name, text string }

// unexcused leaves out what has a reason, and adds reasons that excuse nothing.
func unexcused(found []finding, reasons map[string]string) []string {
	var out []string
	used := map[string]bool{}
	for _, f := range found {
		if reasons[f.name] != "" {
			used[f.name] = true
			continue
		}
		out = append(out, fmt.Sprintf("%s (if it must be, add %q with a reason to exceptions() in internal/repocheck/code_test.go)", f.text, f.name))
	}
	for name := range reasons {
		if !used[name] {
			out = append(out, fmt.Sprintf("exceptions() excuses %q, which is no longer needed: take it out", name))
		}
	}
	return out
}

// checkCode applies the rules to all code that is neither a test nor generated.
func checkCode(tr *tree) []finding {
	out := packageComments(tr)
	for _, f := range tr.files {
		if f.test() || f.generated() {
			continue
		}
		if f.lines > maxFileLines {
			out = append(out, finding{f.path, fmt.Sprintf("%s: %d lines, more than %d: part it by what its pieces do",
				f.path, f.lines, maxFileLines)})
		}
		for _, decl := range f.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				out = append(out, checkFunc(tr, f, d)...)
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					out = append(out, checkVars(tr, f, d)...)
				}
			}
		}
	}
	return out
}

// packageComments finds packages that nobody has described.
func packageComments(tr *tree) []finding {
	var order []string
	described := map[string]bool{}
	for _, f := range tr.files {
		dir := f.dir()
		if _, seen := described[dir]; !seen {
			described[dir] = false
			order = append(order, dir)
		}
		if strings.TrimSpace(f.syntax.Doc.Text()) != "" {
			described[dir] = true
		}
	}
	var out []finding
	for _, dir := range order {
		if !described[dir] {
			out = append(out, finding{dir, dir + ": this package has no package comment: say what it is for, above one of its package clauses"})
		}
	}
	return out
}

func checkFunc(tr *tree, f goFile, d *ast.FuncDecl) []finding {
	var out []finding
	name := d.Name.Name
	if d.Recv != nil && len(d.Recv.List) == 1 {
		name = receiver(d.Recv.List[0].Type) + "." + name
	}
	key := f.path + ":" + name
	lines := tr.fset.Position(d.End()).Line - tr.fset.Position(d.Pos()).Line + 1
	if lines > maxFunctionLines {
		out = append(out, finding{key, fmt.Sprintf("%s: %s has %d lines, more than %d: part it", tr.line(d), name, lines, maxFunctionLines)})
	}
	if name == "init" {
		out = append(out, finding{key, tr.line(d) + ": init() changes the process that imports this: let the caller pass what it needs"})
	}
	return out
}

// receiver is the name of a receiver's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// checkVars finds variables of a package that could change: all but errors, arrays, compiled expressions, types without fields and
// proofs (var _ I = T{}).
func checkVars(tr *tree, f goFile, d *ast.GenDecl) []finding {
	if d.Doc != nil && hasEmbed(d.Doc) {
		return nil
	}
	var out []finding
	for _, s := range d.Specs {
		spec, ok := s.(*ast.ValueSpec)
		if !ok || spec.Doc != nil && hasEmbed(spec.Doc) {
			continue
		}
		for i, name := range spec.Names {
			if name.Name == "_" || empty(spec.Type) || i < len(spec.Values) && constant(name.Name, spec.Values[i]) {
				continue
			}
			out = append(out, finding{f.path + ":" + name.Name, fmt.Sprintf("%s: the package variable %s could change, and all users of the "+
				"process share it: pass it, make it a field, a constant or an array [...]T{...}, or return it from a function",
				tr.line(name), name.Name)})
		}
	}
	return out
}

func hasEmbed(doc *ast.CommentGroup) bool {
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// empty says whether a variable of this type has nothing that could change.
func empty(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.StructType:
		return e.Fields.NumFields() == 0
	case *ast.SelectorExpr: // lend.Key, the proof that the caller is part of Penstock
		pkg, ok := e.X.(*ast.Ident)
		return ok && pkg.Name == "lend" && e.Sel.Name == "Key"
	}
	return false
}

// constant says whether a variable of this value is one in name only.
func constant(name string, value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.CompositeLit: // an array table
		array, ok := v.Type.(*ast.ArrayType)
		return ok && array.Len != nil
	case *ast.SelectorExpr: // another package's error under a name of ours
		return strings.HasPrefix(name, "Err") && strings.HasPrefix(v.Sel.Name, "Err")
	case *ast.CallExpr:
		fn, ok := v.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := fn.X.(*ast.Ident)
		if !ok {
			return false
		}
		switch pkg.Name + "." + fn.Sel.Name {
		case "errors.New", "fmt.Errorf", "regexp.MustCompile":
			return true
		}
	}
	return false
}

// Promises: every package says what it is for; functions have at most 70 lines and files 500; no init() and no variable that all users
// of the process share.
func TestCode(t *testing.T) {
	report(t, unexcused(checkCode(repository(t)), exceptions()))
}

func TestBreachesAreFound(t *testing.T) {
	long := "func (b *box[T]) long() {\n" + strings.Repeat("\n", maxFunctionLines) + "}\n"
	tr := scratch(t,
		"go.mod", "module x\n",
		"a/a.go", "//go:build linux\n\npackage a\n\nfunc init() {}\n\n"+long+"type box[T any] struct{}\n",
		"b/a.go", "// Package b is good.\npackage b\n\nimport \"errors\"\n\nvar _ any = 1\n\nvar names = [...]string{\"a\"}\n\n"+
			"var ErrA = errors.New(\"a\")\n\nvar (\n\tcache = map[string]int{}\n\tcount int\n\tkey lend.Key\n)\n",
		"b/long.go", "package b\n"+strings.Repeat("\n", maxFileLines),
		"b/long_test.go", "package b\n"+strings.Repeat("\n", maxFileLines),
		"b/made.go", "// Code generated by x. DO NOT EDIT.\n\npackage b\n"+strings.Repeat("\n", maxFileLines),
	)
	reasons := map[string]string{"b/a.go:count": "tried", "c/gone.go:x": "old"}
	mustFind(t, unexcused(checkCode(tr), reasons),
		"a: this package has no package comment",
		"a/a.go:5: init() changes the process",
		"a/a.go:7: box.long has 72 lines, more than 70",
		"b/a.go:13: the package variable cache could change",
		"b/long.go: 501 lines, more than 500",
		`exceptions() excuses "c/gone.go:x", which is no longer needed`,
	)
}
