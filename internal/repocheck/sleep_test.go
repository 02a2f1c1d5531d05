package repocheck

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// checkSleeps finds waits for a length of real time: time.Sleep, and a bare <-time.After. They are allowed inside a bubble of
// testing/synctest, where time is virtual, in functions that call synctest.Wait, which works nowhere else, and with a comment
// "// sleep: reason" on the line or the one above.
func checkSleeps(tr *tree) []string {
	var out []string
	for _, f := range tr.files {
		excused := sleepComments(tr, f)
		var inspect func(n ast.Node) bool
		inspect = func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return !bubbled(n)
			case *ast.CommClause: // <-time.After as a case of a select bounds a wait
				for _, s := range n.Body {
					ast.Inspect(s, inspect)
				}
				return false
			case *ast.CallExpr:
				if calls(n, "synctest", "Test") {
					return false
				}
				if calls(n, "time", "Sleep") && !excused[tr.fset.Position(n.Pos()).Line] {
					out = append(out, sleepFinding(tr, n, "time.Sleep"))
				}
			case *ast.UnaryExpr:
				call, ok := n.X.(*ast.CallExpr)
				if ok && n.Op == token.ARROW && calls(call, "time", "After") && !excused[tr.fset.Position(n.Pos()).Line] {
					out = append(out, sleepFinding(tr, n, "<-time.After"))
				}
			}
			return true
		}
		ast.Inspect(f.syntax, inspect)
	}
	return out
}

// bubbled says whether a function works inside a bubble only.
func bubbled(d *ast.FuncDecl) bool {
	found := false
	ast.Inspect(d, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return !found
		}
		found = found || calls(call, "synctest", "Wait")
		return !found && !calls(call, "synctest", "Test") // a bubble inside says nothing about what is around it
	})
	return found
}

func sleepFinding(tr *tree, n ast.Node, what string) string {
	return fmt.Sprintf("%s: %s: what sleeps is slow or flaky; wait for the event, use an injected clock or testing/synctest, "+
		"or say why it must be in a comment \"// sleep: reason\"", tr.line(n), what)
}

// calls says whether call is pkg.name(...).
func calls(call *ast.CallExpr, pkg, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// sleepComments is the lines of f that a "// sleep: reason" covers: its own, and the one after the comment's end.
func sleepComments(tr *tree, f goFile) map[int]bool {
	lines := map[int]bool{}
	for _, group := range f.syntax.Comments {
		for _, c := range group.List {
			if reason, ok := strings.CutPrefix(c.Text, "// sleep:"); ok && strings.TrimSpace(reason) != "" {
				lines[tr.fset.Position(c.Pos()).Line] = true
				lines[tr.fset.Position(group.End()).Line+1] = true
			}
		}
	}
	return lines
}

// Promise: no test waits for a length of real time.
func TestNoSleeps(t *testing.T) {
	report(t, checkSleeps(repository(t)))
}

func TestSleepsAreFound(t *testing.T) {
	tr := scratch(t,
		"go.mod", "module x\n",
		"a_test.go", `package a

func TestA(t *testing.T) {
	time.Sleep(1)
	time.Sleep(1) // sleep: the kernel's clock is what is tested
	// sleep: the kernel's clock
	// is what is tested
	time.Sleep(1)
	time.Sleep(1) // sleep:
	synctest.Test(t, func(t *testing.T) { time.Sleep(1) })
	<-time.After(1)
	select {
	case <-time.After(1):
		time.Sleep(1)
	}
	synctest.Test(t, func(t *testing.T) { synctest.Wait() })
}

func help() {
	time.Sleep(1)
	synctest.Wait()
}
`)
	mustFind(t, checkSleeps(tr), "a_test.go:4: time.Sleep", "a_test.go:9: time.Sleep", "a_test.go:11: <-time.After", "a_test.go:14: time.Sleep")
}
