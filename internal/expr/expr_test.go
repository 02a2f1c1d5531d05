package expr

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/arena"
)

// on is an Input of a payload.
func on(payload string) *Input {
	in := new(Input)
	in.Set([]byte(payload), []byte("k"), arena.AppendHeader(nil, "h", []byte("v")), "in", 2)
	return in
}

// Promise: conditions give what CEL says, by whichever way; those that compare fields with literals go the fast one.
func TestBool(t *testing.T) {
	const payload = `{"delay":60,"price":1.50,"big":18446744073709551615,"origin":"S\u0045A","ok":true,"none":null,
		"crew":{"n":3,"names":["a","b"]},"dup":1,"dup":2,"a.b":1}`
	for _, c := range []struct {
		source string
		want   string // true, false, or a part of the error
		fast   bool
	}{
		{`msg.delay >= 60 && msg.origin == "SEA"`, "true", true},
		{`60 < msg.delay`, "false", true},
		{`msg.delay == 60.0 && msg.price == 1.5 && msg.price > 1`, "true", true},
		{`msg.big == 18446744073709551615u && msg.big > 9223372036854775807`, "true", true},
		{`msg["a.b"] == 1 && msg["crew"].n in [1, 2, 3]`, "true", true},
		{`msg.none == null && msg.crew != null && msg.crew != 3 && msg.origin != 3`, "true", true},
		{`msg.dup == 1`, "true", true},
		{`msg.dup + 0 == 1`, "true", false},
		{`has(msg.crew.n) && !has(msg.crew.x) && !has(msg.delay.x)`, "true", true},
		{`has(msg.crew.names.x)`, "msg.crew.names is not an object", true},
		{`has(msg.x.y)`, "no such key: x", true},
		{`msg.ok`, "true", true},
		{`!msg.ok || msg.origin.startsWith("S") && msg.origin.endsWith("EA") && msg.origin.contains("E")`, "true", true},
		{`msg.delay`, "msg.delay is not true or false", true},
		{`msg.crew.names[0]`, "of type string, not true or false", false},
		{`msg.origin > 5`, "msg.origin is not a number, which > needs here", true},
		{`msg.x == 1 && msg.ok`, "no such key: x: msg has no such field", true},
		{`msg.x == 1 || msg.ok`, "true", true},
		{`msg.crew.x.y == 1`, "no such key: x: msg.crew has no such field", true},
		{`msg.delay.x == 1`, "no such key: x", true},
		{`key == "k" && headers.h == "v" && headers["h"].size() == 1 && stream == "in" && attempt == 2 && size > 100`, "true", false},
		{`key == "k" && headers["h"] == "v" && "h" in headers && stream == "in" && attempt == 2 && size > 100.5`, "true", true},
		{`headers["x"] == "v"`, "no such key: x: the message has no header", true},
		{`headers.x + "" == "v"`, "no such key: x", false},
		{`msg.crew.names.exists(n, n == "b") && msg.?x.orValue(7) == 7`, "true", false},
		{`msg.origin == msg.crew.names[0]`, "false", false},
		{`msg.crew.names == ["a", "b"]`, "true", false},
		{`msg.price * 2.0 == 3.0 && msg.delay % 7 == 4`, "true", false},
	} {
		p, err := CompileBool(c.source)
		if err != nil {
			t.Errorf("%s: %v", c.source, err)
			continue
		}
		yes, err := p.Bool(on(payload))
		var eval *EvalError
		switch got := fmt.Sprint(yes); {
		case err != nil && (!strings.Contains(err.Error(), c.want) || !errors.As(err, &eval)), err == nil && got != c.want:
			t.Errorf("%s: got %v, %v, want %s", c.source, yes, err, c.want)
		}
		if p.Fast() != c.fast {
			t.Errorf("%s: fast is %v", c.source, p.Fast())
		}
	}
}

// Promise: what is wrong with an expression is said with its place.
func TestErrors(t *testing.T) {
	for source, want := range map[string]string{
		"":               "line 1, column 1: the expression is empty",
		" \n":            "line 1, column 1: the expression is empty",
		"msg.a = 1":      "line 1, column 7: Syntax error",
		"true &&\n  é.b": "line 2, column 3: Syntax error",
		"msg.é":          "line 1, column 5: Syntax error",
		"key == 5":       "line 1, column 5: == does not take (string, int): convert one of them with string(), int() or double()",
		"!key":           "line 1, column 1: ! does not take (string)",
		"foo(msg)":       "line 1, column 4: undeclared reference to 'foo': there are msg, key",
		"a + b == c": "line 1, column 1: undeclared reference to 'a': there are msg, key, headers, stream, attempt and size, " +
			"and the functions of CEL (and 2 more)",
		"[1]":                    "line 1, column 1: the expression gives a value of type list(int)",
		"\xff":                   "line 1, column 1: the expression is not UTF-8",
		strings.Repeat("(", 5e3): "line 1, column",
		strings.Repeat("x", 2e4): "line 1, column 1: the expression has 20000 bytes: at most 16384",
	} {
		_, err := CompileBool(source)
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.50q: got %v, want %s", source, err, want)
		}
	}
}

// Promise: what is right in other languages is met with what to write here, and no list of tokens.
func TestHints(t *testing.T) {
	for source, want := range map[string]string{
		"msg.a = 1":                    "1, column 7: Syntax error: = is no operator: did you mean ==?",
		"msg.a === 1":                  "1, column 7: Syntax error: === is no operator: did you mean ==?",
		"msg.a <> 1":                   "1, column 7: Syntax error: <> is no operator: did you mean !=?",
		"msg.a & msg.b":                "1, column 7: Syntax error: & is no operator: did you mean &&?",
		"msg.a == ' and = ' and msg.b": "1, column 20: Syntax error: write && for and",
		"msg.a // or\nOR msg.b":        "2, column 1: Syntax error: write || for OR",
		"not msg.a":                    "1, column 1: Syntax error: write ! for not",
		"not(msg.a)":                   "1, column 4: undeclared reference to 'not': write ! for not",
		"$.x == 1":                     "1, column 1: Syntax error: there is no $: write msg.x for $.x",
		"msg.or in ('a', 'b')":         `1, column 11: Syntax error: a list stands in brackets: in ["a", "b"]`,
		"msg.a &&":                     "1, column 9: Syntax error: the expression ends after &&",
		"msg.a == \n":                  "1, column 9: Syntax error: the expression ends after ==",
		"msg.a in":                     "1, column 9: Syntax error: the expression ends after in",
		"msg.é ==":                     "1, column 9: Syntax error: the expression ends after ==",
		"msg.a == 'x\\'":               "1, column 10: Syntax error: the text has no end: add the closing '",
		"msg.é": `1, column 5: Syntax error: 'é' cannot stand here: a field with other letters than a to z goes in brackets, ` +
			`as in msg["é"] (and 1 more)`,
		"msg.a b":      "1, column 7: Syntax error: 'b' cannot stand here",
		"(msg.a == 1":  "1, column 12: Syntax error: missing ')' at the end",
		"msg.a == (":   "1, column 11: Syntax error: the expression ends too early",
		"key + 1 == 2": "1, column 5: + does not take (string, int): convert one of them with string(), int() or double()",
	} {
		if _, err := CompileBool(source); err == nil || err.Error() != "line "+want {
			t.Errorf("%q: got %v, want %s", source, err, want)
		}
	}
	p, err := CompileBool("msg.n * 1.5 > 2.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Bool(on(`{"n":10}`)); err == nil || !strings.Contains(err.Error(), "double(msg.n)") {
		t.Errorf("an int times a double: %v", err)
	}
}

// Hints do not depend on what is in the expression.
func FuzzHint(f *testing.F) {
	f.Add("msg.a = 'b\\")
	f.Fuzz(func(t *testing.T, source string) {
		if at, help, ok := hint(source); at < 0 || at > len(source) || ok != (help != "") {
			t.Errorf("%q: %d, %q, %v", source, at, help, ok)
		}
	})
}

// Promise: an expression that takes too long, and a payload that is too much to decode, are given up with an error that says so.
func TestBounds(t *testing.T) {
	list := `{"l":[` + strings.Repeat("1,", 2999) + `1],"s":"` + strings.Repeat("s", 1<<20) + `"}`
	for _, c := range []struct{ source, payload, want string }{
		{`msg.l.all(a, msg.l.all(b, a == b))`, list, "takes more than 1000000 steps"},
		{strings.Repeat("msg.s + ", 90) + `"" == ""`, list, "takes more than 1000000 steps"},
		{`msg.a + 1 == 2`, `{"a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "}", "more than 256 objects and arrays"},
		{`msg.a + 1 == 2`, `{"a":"` + strings.Repeat("x", MaxDecode) + `"}`, "an expression like this one reads at most 4194304"},
		{`msg.a + 1 == 2`, `{"a":1,}`, "the payload is not JSON: offset 8"},
		{`msg.a + 1 == 2`, ``, "the payload is not JSON"},
		{`msg.a == 2`, ``, "the payload is not JSON"},
		{`msg.a == 2`, `{"a"`, "the payload is not JSON"},
		{`msg.a == 2`, `plain text`, "the payload is not JSON"},
		{`msg.a == 2`, `{"a":x}`, "the payload is not JSON"},
		{`msg.a == 2`, `{"a":01}`, "the payload is not JSON"},
		{`msg.a == 2`, `{"a":1.}`, "the payload is not JSON"},
		{`msg.a == 2`, `{"b":"\"`, "the payload is not JSON"},
		{`msg.a == 2`, `{"b":[{}`, "the payload is not JSON"},
	} {
		p, err := CompileBool(c.source)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Bool(on(c.payload)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s on %.40s: %v, want %s", c.source, c.payload, err, c.want)
		}
	}
}

func TestValues(t *testing.T) {
	const payload = `{"n":1.50,"s":"a\u0062\"","nil":null,"o":{"z":1,"a":[true]},"big":123456789012345678901234567890}`
	for _, c := range []struct{ source, json, text string }{
		{`msg.n`, `1.50`, `1.50`},
		{`msg.n * 1.0`, `1.5`, `1.5`},
		{`msg.s`, `"a\u0062\""`, `ab"`},
		{`msg.s + "c"`, `"ab\"c"`, `ab"c`},
		{`msg.nil`, `null`, ``},
		{`[msg.nil][0]`, `null`, ``},
		{`msg.o`, `{"z":1,"a":[true]}`, `{"z":1,"a":[true]}`},
		{`[msg.o]`, `[{"a":[true],"z":1}]`, `[{"a":[true],"z":1}]`},
		{`msg.big`, `123456789012345678901234567890`, `123456789012345678901234567890`},
		{`key`, `"k"`, `k`},
		{`headers["h"]`, `"v"`, `v`},
		{`headers`, `{"h":"v"}`, `{"h":"v"}`},
		{`size`, fmt.Sprint(len(payload)), fmt.Sprint(len(payload))},
		{`18446744073709551615u`, `18446744073709551615`, `18446744073709551615`},
		{`b"\xff"`, `"/w=="`, "\xff"},
		{`duration("90s")`, `"1m30s"`, `"1m30s"`},
		{`{1: 2, 0: 1e300}`, `{"0":1e+300,"1":2}`, `{"0":1e+300,"1":2}`},
		{`msg.?x`, `null`, `null`},
		{`msg.?s.value() + string(7)`, `"ab\"7"`, `ab"7`},
		{`msg.x`, "", ""},
		{`headers["x"]`, "", ""},
		{`0.0 / 0.0`, "", ""},
		{`type(1)`, "", ""},
	} {
		p, err := CompileValue(c.source)
		if err != nil {
			t.Errorf("%s: %v", c.source, err)
			continue
		}
		for _, x := range []struct {
			f    func([]byte, *Input) ([]byte, error)
			want string
		}{{p.AppendJSON, c.json}, {p.AppendText, c.text}} {
			got, err := x.f([]byte("_"), on(payload))
			if (err == nil) != (c.json != "") || string(got) != "_"+x.want {
				t.Errorf("%s: got %s, %v, want %s", c.source, got, err, x.want)
			}
		}
	}
}

// Promise: an Input that goes on to another message shows nothing of the one before.
func TestInputIsReused(t *testing.T) {
	p, err := CompileBool(`msg.a + 0 == 1 && headers.h + "" == "v" && key + stream == "kin"`)
	if err != nil {
		t.Fatal(err)
	}
	in := on(`{"a":1}`)
	for range 2 {
		if yes, err := p.Bool(in); !yes || err != nil {
			t.Error(yes, err)
		}
	}
	in.Set([]byte(`{"a":2}`), nil, nil, "", 1)
	if yes, err := p.Bool(in); yes || err != nil {
		t.Error(yes, err)
	}
	in.Set([]byte(`{"a":1}`), []byte("k"), nil, "in", 1)
	if _, err := p.Bool(in); err == nil {
		t.Error("headers of another message")
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := CompileBool(`msg.delay >= 60 && msg.origin == "SEA"`); err != nil {
			b.Fatal(err)
		}
	}
}
