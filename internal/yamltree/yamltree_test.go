package yamltree_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/internal/yamltree"
)

func environment(name string) (string, bool) {
	v, ok := map[string]string{"N": "7", "WORD": "a: b", "EMPTY": ""}[name]
	return v, ok
}

func advice() yamltree.Advice {
	return yamltree.Advice{TooLarge: "part it", TooMany: ": part it", Empty: "write something", Second: "take it out"}
}

// parse is the value of a text, and what is wrong with it, a problem in a line.
func parse(text string, o yamltree.Options) (*yamltree.Value, string) {
	p := yamltree.NewProblems("x")
	v := yamltree.Parse("x", []byte(text), p, o)
	if err := p.Err(); err != nil {
		return v, err.Error()
	}
	return v, ""
}

// show writes a value in one line: shape, text and place.
func show(v *yamltree.Value) string {
	var in []string
	switch v.Shape {
	case yamltree.List:
		for _, item := range v.Items {
			in = append(in, show(item))
		}
		return "[" + strings.Join(in, " ") + "]"
	case yamltree.Map:
		for _, e := range v.Entries {
			in = append(in, fmt.Sprintf("%s@%d:%d=%s", e.Key, e.Pos.Line, e.Pos.Column, show(e.Value)))
		}
		return "{" + strings.Join(in, " ") + "}"
	case yamltree.Broken:
		return "broken"
	}
	return fmt.Sprintf("%s@%d:%d", v.What(), v.Pos.Line, v.Pos.Column)
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{a: 1, b: [x, true, ~, 1.5]}", `{a@1:2=the number 1@1:5 b@1:8=[the text "x"@1:12 true@1:15 nothing@1:21 the number 1.5@1:24]}`},
		{"a: &a {x: 1}\nb: {<<: *a, y: 2}", `{a@1:1={x@1:8=the number 1@1:11} b@2:1={y@2:13=the number 2@2:16 x@1:8=the number 1@1:11}}`},
		{"a: &a {x: 1}\nb: {<<: [{x: 2}, *a], z: 3}", `{a@1:1={x@1:8=the number 1@1:11} b@2:1={z@2:23=the number 3@2:26 x@2:11=the number 2@2:14}}`},
		{"2001-01-01", `the text "2001-01-01"@1:1`},
		{"\xef\xbb\xbfa:", "{a@1:1=nothing@1:3}"},
		{"${N}", `the number "${N}"@1:1`},
		{"'${N}'", `the text "${N}"@1:1`},
		{"${WORD}", `the text "${WORD}"@1:1`},
		{"[${EMPTY:-true}]", "x:1:3: this is not YAML"},
		{"- ${EMPTY:-true}\n- ${EMPTY}", `["${EMPTY:-true}"@1:3 nothing@2:3]`},
	} {
		v, problems := parse(c.text, yamltree.Options{Getenv: environment, Advice: advice()})
		got := problems
		if v != nil && problems == "" {
			got = show(v)
		}
		if got != c.want && (v != nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%q is\n%s, want\n%s", c.text, got, c.want)
		}
	}
}

// Without variables, what looks like one is text.
func TestNoVariables(t *testing.T) {
	v, problems := parse("a: ${N} $${N} ${", yamltree.Options{})
	if problems != "" || v.Entries[0].Value.Text != "${N} $${N} ${" || v.Entries[0].Value.Variable {
		t.Errorf("value is %+v, problems %s", v, problems)
	}
}

// Promise: what is wrong with a file has its place, and says what to do.
func TestProblemsOfFiles(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "x:1:1: the file is empty: write something"},
		{"# only this\n", "x:1:1: the file is empty: write something"},
		{"---\n", "x:1:4: the file is empty: write something"},
		{"a: 1\n---\nb: 2\n", "x:2:1: a second document begins here: take it out"},
		{"a: \xff", "x:1:4: byte 0xff is not UTF-8: save the file as UTF-8"},
		{"\xff\xfea\x00", "x:1:1: the file is in UTF-16: save it as UTF-8"},
		{"a: é\x01", `x:1:5: control character 0x01: take it out, or write it in double quotes as "\x01"`},
		{"a: !!set {}", "x:1:4: the tag !!set has no meaning here: take it out"},
		{"a: !!seq b", "x:1:4: the tag !!seq has no meaning here: take it out"},
		{"a: &a [*a]", "x:1:8: the alias *a is inside of what it stands for"},
		{"a: 1\na: 2\n", `x:2:1: the key "a" is there twice; the first is in line 1`},
		{"? [a]\n: b\n", "x:1:3: a key must be a word"},
		{"<<: 1\n", "x:1:5: << merges a map or a list of maps, not the number 1"},
		{"a:\n\tb: 1\n", "x:2:1: this is not YAML: while scanning for the next token: found character that cannot start any token: " +
			"indent with spaces, not with tabs"},
		{"a: ${NONE}", "x:1:4: the variable NONE is not set: set it, or give a default as in ${NONE:-default}"},
		{"a: x ${N", "x:1:6: ${ without a }: write ${NAME}, or $${ for the two characters themselves"},
		{strings.Repeat("#", yamltree.MaxFile+1), "x:1:1: the file is larger than 1048576 bytes: part it"},
		{strings.Repeat("[", 100_000), "x:1:33: maps and lists are nested more than 32 deep"},
		{
			"[" + strings.Repeat("a,", yamltree.MaxNodes) + "]",
			"x:1:20000: the file has more than 10000 values and keys, with each alias counted as what it stands for: part it",
		},
	} {
		if _, got := parse(c.text, yamltree.Options{Getenv: environment, Advice: advice()}); got != c.want {
			t.Errorf("%.60q: got\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
	own := advice()
	own.NotUTF8 = "no UTF-8"
	if _, got := parse("a: \xff", yamltree.Options{Advice: own}); got != "x:1:1: no UTF-8" {
		t.Errorf("got %s", got)
	}
}

// A file that is too large is an Error, one that cannot be read is what the system says.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"fits": yamltree.MaxFile, "larger": yamltree.MaxFile + 1} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := yamltree.ReadFile(path, advice())
		var bad *yamltree.Error
		switch {
		case name == "fits" && (err != nil || len(text) != size):
			t.Errorf("%s: %d bytes, error %v", name, len(text), err)
		case name == "larger" && (!errors.As(err, &bad) || err.Error() != path+":1:1: the file is larger than 1048576 bytes: part it"):
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := yamltree.ReadFile(filepath.Join(dir, "none"), advice()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

// Problems come out in the order of files and places, each once, and no more than a person reads.
func TestProblems(t *testing.T) {
	p := yamltree.NewProblems("b", "a")
	if p.Err() != nil || p.Count() != 0 || len(p.List()) != 0 {
		t.Error("problems without any")
	}
	p.Add(yamltree.Pos{File: "a", Line: 1, Column: 2}, "third\nline")
	p.Add(yamltree.Pos{File: "b", Line: 2, Column: 1}, "second")
	p.Add(yamltree.Pos{File: "b"}, "first")
	p.Add(yamltree.Pos{File: "b"}, "first")
	if got := p.Err().Error(); got != "b:1:1: first\nb:2:1: second\na:1:2: third line" {
		t.Errorf("got %s", got)
	}
	for i := range 300 {
		if p.Full() {
			p.Skip()
			continue
		}
		p.Add(yamltree.Pos{File: "a", Line: i + 2}, "one of many")
	}
	list := p.List()
	if p.Count() != 303 || len(list) != 201 || list[200].Message != "103 more problems are not shown: mend these first" {
		t.Errorf("%d problems, %d of them listed, the last is %v", p.Count(), len(list), list[len(list)-1])
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"0x10": "16 16", "1_000": "1000 1000", "1.5": "1.5 false", ".inf": "false false", "a": "false false", "99999999999999999999": "1e+20 false",
	} {
		v, _ := parse(text, yamltree.Options{})
		got := []any{false, false}
		if f, ok := v.Number(); ok {
			got[0] = f
		}
		if n, ok := v.Integer(); ok {
			got[1] = n
		}
		if got := fmt.Sprint(got...); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

// FuzzParse looks for texts that panic, that pass a bound, or that are refused without a place.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"---\n", "# a\n\"b", "a: &a [1, *a]\n", "a: &a {b: c}\nd: {<<: [*a, *a], e: *a}\n", "\xef\xbb\xbfa: ${N}\r\nb: '$${N} ${NONE:-x}'\r\n",
		"? [a]\n: !!set {b}\n", "a: |-\n  x\n  ${N}\n", "\"\\x24{1}\"",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p := yamltree.NewProblems("x")
		v := yamltree.Parse("x", text, p, yamltree.Options{Getenv: environment, Advice: advice()})
		if v == nil && p.Err() == nil {
			t.Error("no value, and no reason")
		}
		lines := 1
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(text), end)
		}
		for _, problem := range p.List() {
			if problem.File != "x" || problem.Line < 1 || problem.Line > lines || problem.Column < 1 || problem.Message == "" ||
				strings.ContainsAny(problem.Message, "\r\n") {
				t.Errorf("problem %+v in %d lines", problem, lines)
			}
		}
		if v != nil {
			walk(t, v, lines, 0, p)
		}
	})
}

// walk checks that all values stand in the file, not too deep, and that those that are broken have been reported.
func walk(t *testing.T, v *yamltree.Value, lines, depth int, p *yamltree.Problems) {
	if v.Pos.File != "x" || v.Pos.Line < 1 || v.Pos.Line > lines || v.Pos.Column < 1 || depth > yamltree.MaxDepth+1 {
		t.Errorf("value %+v at depth %d in %d lines", v, depth, lines)
	}
	if v.Shape == yamltree.Broken && p.Count() == 0 {
		t.Errorf("%v is broken, and nobody says so", v.Pos)
	}
	for _, item := range v.Items {
		walk(t, item, lines, depth+1, p)
	}
	for _, e := range v.Entries {
		walk(t, e.Value, lines, depth+1, p)
	}
}
