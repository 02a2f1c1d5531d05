package pipetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/internal/yamltree"
)

// Promise: all that is wrong with a file is reported at once, each with its place and, where it helps, a suggestion.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"everything at once", `env: { A: 1, B: x }
piplines: x
within: soon
tests:
  - name: a
    input:
      - { source: flihgts, payload: a }
      - { payload: }
      - { wait: 10s, payload: a }
      - { wait: 30 }
      - { source: flights }
      - text
    expect:
      lat: [ a ]
      late: a
      all: { any_order: maybe, payloads: [ a ], messages: [ { payload: a, kye: b } ] }
      counts: { setled: 1, dead: -1 }
      dead_letters: [ { plugin: bigg, reason: 1, stream: x }, { attempts: many } ]
  - name: a
    inputs: []
    expect: {}
`, `
a_test.yaml:1:11: env: A: want text, got 1: put it in quotes
a_test.yaml:2:1: the file: unknown key "piplines" (did you mean "pipeline"?)
a_test.yaml:3:9: within: want a duration such as 30s, of at most 10000h0m0s, got the text "soon"
a_test.yaml:7:19: input: the pipeline has no source "flihgts" (did you mean "flights"?)
a_test.yaml:8:20: want a message: text, or a map or list that stands for JSON; an empty one is ""
a_test.yaml:9:9: input: wait stands alone: begin another item for the message, as in - payload: ...
a_test.yaml:10:17: wait: want a duration such as 30s, of at most 10000h0m0s, got 30
a_test.yaml:11:9: input: the key "payload" is missing: add it
a_test.yaml:12:9: input: want a map, got the text "text"
a_test.yaml:14:7: expect: the pipeline has no sink and no stream "lat" (did you mean "late"?)
a_test.yaml:15:13: late: want a list of payloads, or a map with any_order and payloads or messages, got the text "a"
a_test.yaml:16:12: all: want either payloads, or messages with a payload, a key and headers each
a_test.yaml:16:25: any_order: want true or false, got the text "maybe"
a_test.yaml:16:75: message: unknown key "kye" (did you mean "key"?)
a_test.yaml:17:17: counts: unknown count "setled" (did you mean "settled"?)
a_test.yaml:17:34: dead: want a number from 0 up, got -1
a_test.yaml:18:33: dead letter: the pipeline has no plugin "bigg" (did you mean "big"?)
a_test.yaml:18:47: reason: want text, got 1: put it in quotes
a_test.yaml:18:58: dead letter: the pipeline has no stream "x": there are flights, late
a_test.yaml:18:75: attempts: want a number from 0 up, got the text "many"
a_test.yaml:19:5: test: the key "input" is missing: add it
a_test.yaml:19:5: test "a": there is one of that name already, in line 5
a_test.yaml:20:5: test: unknown key "inputs" (did you mean "input"?)`},
		{"empty", "# nothing\n", "\na_test.yaml:1:1: the file is empty: it needs tests"},
		{"null", "~\n", "\na_test.yaml:1:1: the file is empty: it needs tests"},
		{"no tests", "tests: []\n", "\na_test.yaml:1:8: tests: there are none: add one, with a name, input and expect"},
		{"tests missing", "within: 1s\n", "\na_test.yaml:1:1: the file: the key \"tests\" is missing: add it"},
		{"a list", "- a\n", "\na_test.yaml:1:1: the file: want a map, got a list"},
		{"two documents", "tests: []\n---\ntests: []\n", "\na_test.yaml:2:1: a second document begins here: take out the line of ---"},
		{"a key twice", "tests: []\ntests: []\n", "the key \"tests\" is there twice"},
		{"not UTF-8", "tests: \xff\n", "\na_test.yaml:1:1: the file is not UTF-8: save it as UTF-8"},
		{"no YAML", "tests: [\n", "this is not YAML: "},
		{"a tag", "tests: !!set {}\n", "the tag !!set has no meaning here"},
		{"too large", "#" + strings.Repeat("x", yamltree.MaxFile), "the file is larger than 1048576 bytes"},
		{"too deep", "tests: " + strings.Repeat("[", 100_000), "nested more than 32 deep"},
		{"too many", "tests: [" + strings.Repeat("a,", yamltree.MaxNodes+1) + "]", "more than 10000 values and keys"},
		{"billion laughs", "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ntests: [*d,*d]\n", "more than 10000 values and keys"},
		{"an alias in itself", "tests: &a [ *a ]\n", "inside of what it stands for"},
		{"another pipeline", "pipeline: other.yaml\ntests: []\n", "a_test.yaml:1:11: there is no pipeline other.yaml: name the one that is tested"},
		{"no number of JSON", "tests: [ { name: a, input: [ payload: [ .inf ] ], expect: {} } ]\n", "want a number that JSON can hold, got .inf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, ".", "penstock.yaml", strings.NewReplacer("${ADDRESS}", "nowhere", "${THRESHOLD}", "60").Replace(flights))
			write(t, ".", "a_test.yaml", c.text)
			_, err := Run(t.Context(), []string{"a_test.yaml"}, Options{Registry: kinds(nil)})
			var bad *config.Error
			if !errors.As(err, &bad) {
				t.Fatalf("error is %v, want problems", err)
			}
			if want, whole := strings.CutPrefix(c.want, "\n"); whole && err.Error() != want || !strings.Contains(err.Error(), want) {
				t.Errorf("got:\n%v\nwant:\n%v", err, want)
			}
		})
	}
}

// Promise: problems of several files, and of their pipelines, are reported together, and no test is run.
func TestProblemsOfManyFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "penstock.yaml", "sources: { in: { prot: {} } }\n")
	a := write(t, dir, "a_test.yaml", "tests: [ { name: a, input: [], expect: {} } ]\n")
	b := write(t, dir, "b_test.yaml", "tests: none\n")
	results, err := Run(t.Context(), []string{a, b}, Options{Registry: kinds(nil)})
	var bad *config.Error
	if !errors.As(err, &bad) || len(results) != 0 || len(bad.Problems) < 2 {
		t.Fatalf("results are %v, error %v; want two problems", results, err)
	}
	if bad.Problems[0].File != filepath.Join(dir, "penstock.yaml") || bad.Problems[len(bad.Problems)-1].File != b {
		t.Errorf("problems are %v", bad)
	}
	if _, err := Run(t.Context(), []string{filepath.Join(dir, "none")}, Options{Registry: kinds(nil)}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want that the file does not exist", err)
	}
}

// What is written is what comes in: text as it is, numbers as written, keys in their order.
func TestPayloads(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{`"a b"`, "a b"},
		{`'{"a": 1}'`, `{"a": 1}`},
		{`{ z: 1, a: [ 1.50, true, ~, x, "<&>" ] }`, `{"z":1,"a":[1.50,true,null,"x","<&>"]}`},
		{`12345678901234567890123`, `12345678901234567890123`},
		{`[ 0x10, +5, .5 ]`, `[16,5,0.5]`},
		{`{ <<: { a: 1, b: 2 }, b: 3 }`, `{"b":3,"a":1}`},
		{`2001-01-01`, `2001-01-01`},
		{"|-\n      two\n      lines", "two\nlines"},
	} {
		r := newReader("x")
		f := r.parse([]byte("tests:\n- name: a\n  expect: {}\n  input:\n  - payload: " + c.yaml + "\n"))
		if len(r.List()) > 0 || len(f.tests) != 1 || len(f.tests[0].steps) != 1 {
			t.Errorf("%s: problems %v", c.yaml, r.List())
			continue
		}
		if got := string(f.tests[0].steps[0].payload); got != c.want {
			t.Errorf("%s became %s, want %s", c.yaml, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	pipeline := `
sources: { a: { port: { address: x } }, b: { port: { address: x } } }
sinks: { counts: { from: [ a, b ], port: { address: x } }, dead_letters: { from: a, port: { address: x } } }
`
	_, err := runFiles(t, nil, pipeline, `tests:
  - name: names that stand for two things
    input: [ payload: a ]
    expect: { dead_letters: [], counts: { dead: 0 } }
`)
	for _, want := range []string{
		"_test.yaml:3:14: input: the source is missing: there are a, b", ":4:15: expect: dead_letters stands for", "counts stands for",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestDefaultsOfAFile(t *testing.T) {
	r := newReader("x")
	f := r.parse([]byte("within: 5m\n" +
		"tests: [ { name: a, input: [], expect: {} }, { name: b, within: 1m, input: [], expect: { dead_letters: [] } } ]"))
	if len(r.List()) > 0 || f.pipeline == "" || f.tests[0].within != 5*time.Minute || f.tests[1].within != time.Minute {
		t.Errorf("file is %+v, problems %v", f, r.List())
	}
	if f.tests[0].dead != nil || f.tests[1].dead == nil || !reflect.DeepEqual(f.tests[1].at, yamltree.Pos{File: "x", Line: 2, Column: 46}) {
		t.Errorf("tests are %+v and %+v", f.tests[0], f.tests[1])
	}
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[2]}`, ` {"b" : [ 2.0 ], "a": 1e0}`, true},
		{`9007199254740993`, `9007199254740992`, false},
		{`1e400`, `1e400 `, true},
		{`-0`, `0`, true},
		{`"é"`, "\"\\u00e9\"", true},
		{`a`, `a `, false},
		{`{}`, `{}}`, false},
		{`{} {}`, `{}`, false},
		{`"a"`, `a`, false},
		{``, ``, true},
	} {
		if same := formOf([]byte(c.a)) == formOf([]byte(c.b)); same != c.same {
			t.Errorf("%s and %s: same %v, want %v", c.a, c.b, same, c.same)
		}
	}
}

func TestMatching(t *testing.T) {
	// The first could have either; only the best choice leaves one for the second.
	table := [][]bool{{true, true}, {true, false}, {false, false}}
	got := matching(3, 2, func(i, j int) bool { return table[i][j] })
	if !reflect.DeepEqual(got, []int{1, 0, -1}) {
		t.Errorf("matching is %v", got)
	}
	a, b := "abcdefg", "xbdefgg"
	if got := inOrder(len(a), len(b), func(i, j int) bool { return a[i] == b[j] }); !reflect.DeepEqual(got, []int{-1, 1, -1, 2, 3, 4, 6}) {
		t.Errorf("in order: %v", got)
	}
	if got := inOrder(3000, 3000, func(i, j int) bool { return i == j && i%2 == 1 }); got[1] != 1 || got[2] != -1 {
		t.Errorf("in order, with too much to compare: %v", got[:4])
	}
}

// FuzzParse: no file of tests makes the parser panic or take long, and every problem has a place.
func FuzzParse(f *testing.F) {
	f.Add([]byte("tests: [ { name: a, input: [ { payload: { a: 1 } }, wait: 1s ], expect: { out: [ a ], counts: { dead: 1 } } } ]"))
	f.Add([]byte("tests: &a [ *a, <<: *a ]\nenv: { A: b }\n---\n"))
	f.Add([]byte("a: &a [x]\ntests: [ { <<: *a, expect: { o: { any_order: true, messages: [ { payload: 0x1, key: k, headers: { a: b } } ] } } } ]"))
	f.Add([]byte("tests: [ { name: a, expect: { dead_letters: [ { plugin: p, reason: r, payload: [ 1_0, .5, ~ ] } ] } } ]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newReader("x")
		file := r.parse(text)
		for _, p := range r.List() {
			if p.Line < 1 || p.Column < 1 || p.Message == "" || strings.ContainsAny(p.Message, "\n\r") {
				t.Errorf("problem without a place, or with more than a line: %+v", p)
			}
		}
		if len(r.List()) == 0 && len(file.tests) == 0 {
			t.Error("a file without tests is taken")
		}
		for _, test := range file.tests {
			for _, s := range test.steps {
				if len(r.List()) == 0 && s.wait == 0 && s.payload == nil && fmt.Sprint(s.at) != "" {
					t.Errorf("a step that does nothing in line %d", s.at.Line)
				}
			}
		}
	})
}
