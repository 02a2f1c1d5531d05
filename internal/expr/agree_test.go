package expr

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/arena"
)

// maker makes expressions and payloads that have to do with each other.
type maker struct{ *rand.Rand }

func pick[T any](r maker, of ...T) T { return of[r.IntN(len(of))] }

var (
	names   = []string{"a", "b", "c", "aa", "é", `q"`, "[0]"}
	strs    = []string{"", "x", "xy", "y", "SEA", "é", "a\nb", `\`, `"`, "😀", "\u0000", "1"}
	numbers = []string{
		"0", "1", "-1", "60", "1.5", "60.0", "9007199254740993", "9007199254740992.0", "9223372036854775807", "-9223372036854775808", "1e3", "-0.0",
	}
)

func (r maker) literal() string {
	switch r.IntN(6) {
	case 0:
		return pick(r, "true", "false", "null")
	case 1, 2:
		return pick(r, strs...)
	case 3:
		return "18446744073709551615u"
	default:
		return pick(r, numbers...)
	}
}

// quoted is a literal as CEL writes it.
func (r maker) quoted() string {
	if r.IntN(2) == 0 {
		return fmt.Sprintf("%q", pick(r, strs...))
	}
	for {
		if l := r.literal(); l != "" && strings.ContainsAny(l[:1], "tfn-0123456789") {
			return l
		}
	}
}

func (r maker) field() string {
	out := "msg"
	for range r.IntN(4) {
		if n := pick(r, names...); r.IntN(2) == 0 && len(n) < 3 && n[0] < 0x80 && n[len(n)-1] != '"' {
			out += "." + n
		} else {
			out += fmt.Sprintf("[%q]", n)
		}
	}
	return out
}

func (r maker) condition(depth int) string {
	if depth > 0 && r.IntN(3) > 0 {
		switch r.IntN(5) {
		case 0:
			return "!(" + r.condition(depth-1) + ")"
		case 1, 2:
			return "(" + r.condition(depth-1) + ") && (" + r.condition(depth-1) + ")"
		default:
			return r.condition(depth-1) + " || " + r.condition(depth-1)
		}
	}
	switch r.IntN(10) {
	case 0:
		return "has(" + r.field() + "." + pick(r, "a", "b", "c") + ")"
	case 1:
		return r.field() + "." + pick(r, "startsWith", "endsWith", "contains") + fmt.Sprintf("(%q)", pick(r, strs...))
	case 2:
		return r.field() + " in [" + r.quoted() + ", " + r.quoted() + "]"
	case 3:
		return r.field()
	case 4:
		return r.quoted() + pick(r, " == ", " < ", " >= ") + r.field()
	case 5:
		return pick(r, `headers["h"]`, `headers.a`, "key", "stream") + pick(r, " == ", " < ", " != ") + fmt.Sprintf("%q", pick(r, strs...))
	case 6:
		return pick(r, "size", "attempt") + pick(r, " == ", " < ", " >= ") + pick(r, "1", "2.5", "20", "3u")
	case 7:
		return pick(r, `"h" in headers`, "has(headers.a)", `"z" in headers`, "true", `key in ["x"]`)
	default:
		return r.field() + pick(r, " == ", " != ", " < ", " <= ", " > ", " >= ") + r.quoted()
	}
}

func (r maker) space() string { return pick(r, "", "", " ", "\n\t") }

func (r maker) str(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case r.IntN(6) == 0 && c < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, c)
		case r.IntN(6) == 0 && c >= 0x10000:
			b.WriteString(`\ud83d\ude00`)
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c < ' ':
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String() + pick(r, "", "", "", `\ud800`, `\n`) + `"`
}

func (r maker) json(depth int) string {
	switch n := r.IntN(10); {
	case depth > 0 && n < 5 || depth == 4:
		var members []string
		for range r.IntN(5) {
			members = append(members, r.space()+r.str(pick(r, names...))+r.space()+":"+r.space()+r.json(depth-1)+r.space())
		}
		return "{" + r.space() + strings.Join(members, ",") + "}"
	case depth > 0 && n == 5:
		return "[" + r.json(depth-1) + "," + r.json(0) + "]"
	case n < 8:
		return pick(r, append(numbers, "1E400", "18446744073709551615", "18446744073709551616", "123456789012345678901234567890", "-0")...)
	case n == 8:
		return pick(r, "true", "false", "null")
	}
	return r.str(pick(r, strs...))
}

// agree holds the fast form of an expression against CEL.
func agree(t *testing.T, source string, in *Input) (fast bool) {
	t.Helper()
	p, err := CompileBool(source)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: %v is no *Error", source, err)
		}
		return false
	}
	if p.cond == nil {
		return false
	}
	yes, failed := p.Bool(in)
	slow := *p
	slow.cond = nil
	want, wantErr := slow.Bool(in)
	if yes != want || (failed == nil) != (wantErr == nil) {
		t.Fatalf("%s\non %s\nfast: %v, %v\nCEL:  %v, %v", source, in.payload, yes, failed, want, wantErr)
	}
	return true
}

func agreeOn(t *testing.T, seed uint64) bool {
	r := maker{rand.New(rand.NewPCG(seed, 1))}
	var in Input
	headers := arena.AppendHeader(arena.AppendHeader(arena.AppendHeader(nil, "h", []byte("x")), "h", []byte("y")), "e", nil)
	depth := 4
	if r.IntN(10) == 0 {
		depth = r.IntN(3)
	}
	in.Set([]byte(r.space()+r.json(depth)+r.space()), []byte(pick(r, strs...)), headers, "in", 2)
	return agree(t, r.condition(2), &in)
}

// Promise: the fast path and CEL give the same answer, and fail for the same messages.
func TestFastAgreesWithCEL(t *testing.T) {
	n := uint64(2000)
	if testing.Short() {
		n = 300
	}
	fast := 0
	for seed := range n {
		if agreeOn(t, seed) {
			fast++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if fast < int(n)/2 {
		t.Errorf("only %d of %d expressions were fast: the test compares too little", fast, n)
	}
}

func FuzzFastAgreesWithCEL(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { agreeOn(t, seed) })
}

// What is no JSON, and any text for an expression: nothing panics, and every error is of a known type.
func FuzzExpression(f *testing.F) {
	f.Add(`msg.a == 1 && msg.b.startsWith("x")`, []byte(`{"a":1,"b":"xy"}`))
	f.Add(`msg.items.exists(i, i.n > 3)`, []byte(`{"items":[{"n":4}]}`))
	f.Add(`{"a": msg.x, "b": [1, 2.5, b"x", duration("1s")]}`, []byte(`{"x":null}`))
	f.Add(`msg`, []byte(`{"a`))
	f.Add(`msg.a.b`, []byte(`{"a":{"b`+"\x00"))
	f.Fuzz(func(t *testing.T, source string, payload []byte) {
		var in Input
		in.Set(payload, nil, nil, "in", 1)
		var bad *Error
		var eval *EvalError
		if p, err := CompileBool(source); err == nil {
			if _, err := p.Bool(&in); err != nil && !errors.As(err, &eval) {
				t.Errorf("%v is no *EvalError", err)
			}
		} else if !errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 {
			t.Errorf("%v is no *Error with a position", err)
		}
		p, err := CompileValue(source)
		if err != nil {
			return
		}
		for _, f := range []func([]byte, *Input) ([]byte, error){p.AppendJSON, p.AppendText} {
			if _, err := f(nil, &in); err != nil && !errors.As(err, &eval) {
				t.Errorf("%v is no *EvalError", err)
			}
		}
	})
}
