package expr

import (
	"encoding/json"
	"errors"
	"testing"
)

func change(t testing.TB) *Rewrite {
	t.Helper()
	p, err := CompileValue("size")
	if err != nil {
		t.Fatal(err)
	}
	r := new(Rewrite)
	set := errors.Join(r.Set([]string{"a", "b"}, p), r.Set([]string{"é"}, p))
	if err := errors.Join(set, r.Remove([]string{"c"}), r.Remove([]string{"a", "d"})); err != nil {
		t.Fatal(err)
	}
	return r
}

// Promise: two changes of one place are refused, whichever comes first.
func TestRewriteConflicts(t *testing.T) {
	for _, path := range [][]string{nil, {""}, {"x", ""}, {"a"}, {"a", "b"}, {"a", "b", "c"}, {"c"}, {"c", "d"}, {"a", "d"}} {
		r := change(t)
		if r.Remove(path) == nil || r.Set(path, nil) == nil {
			t.Errorf("%q was taken", path)
		}
	}
}

// Any payload: it is refused with what was there left alone, or the result is JSON with the changes in it, and a second time changes nothing
// but what is set.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte(`{"a":{"d":1,"b":{}},"c":2,"c":3,"x":1.50}`))
	f.Add([]byte(`{"\u0061":[1],"\u00e9":null}`))
	f.Add([]byte(" {} "))
	f.Add([]byte(`{"a":{"b":1},"a":{"b":2}}`))
	r := change(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		var in Input
		in.Set(payload, nil, nil, "", 1)
		out, err := r.Append([]byte("_"), &in)
		if err != nil {
			var e *EvalError
			if string(out) != "_" || !errors.As(err, &e) {
				t.Errorf("%q, %v", out, err)
			}
			return
		}
		out = out[1:]
		var fields map[string]any
		if err := json.Unmarshal(out, &fields); err != nil && json.Valid(out) {
			return // a number that no float can hold
		} else if err != nil {
			t.Fatalf("%q gives %q: %v", payload, out, err)
		}
		a, _ := fields["a"].(map[string]any)
		_, c := fields["c"]
		_, d := a["d"]
		if n := float64(len(payload)); a["b"] != n || fields["é"] != n || c || d {
			t.Errorf("%q gives %q", payload, out)
		}
		in.Set(out, nil, nil, "", 1)
		if _, err := r.Append(nil, &in); err != nil {
			t.Errorf("a second time: %v", err)
		}
	})
}
