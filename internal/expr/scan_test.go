package expr

import (
	"encoding/json"
	"strings"
	"testing"
)

// The end of a string is found wherever it lies, with escapes at any distance before it.
func TestStringEnd(t *testing.T) {
	const rest = `","b":"c"}` // another quote is not far
	for n := range 3 * shortString {
		for at := range n + 1 {
			plain := []string{strings.Repeat("x", at), strings.Repeat("y", n-at)}
			for _, escape := range []string{"", `\"`, `\\`, `\\\"`, `\"\"`} {
				text := `"` + strings.Join(plain, escape)
				if got := stringEnd([]byte("  "+text+rest), 2); got != 2+len(text)+1 {
					t.Fatalf("%s: %d, want %d", text+rest, got, 2+len(text)+1)
				}
				if got := stringEnd([]byte(text), 0); got != -1 {
					t.Fatalf("%s: %d for a string without an end", text, got)
				}
			}
		}
	}
}

// A member is found by its name, whether that is written with escapes or without, and by no other.
func TestLookup(t *testing.T) {
	for _, tt := range []struct {
		payload, name string
		want          string // the value; empty if it is missing
	}{
		{`{"a":1,"ab":2,"abc":3}`, "ab", "2"},
		{`{"\u0061b":1,"ab":2}`, "ab", "1"},
		{`{"a\\b":1}`, `a\b`, "1"},
		{`{"a\b":1}`, `a\b`, ""},
		{`{"a\b":1}`, "a\b", "1"},
		{`{"a\"":1,"a":2}`, "a", "2"},
		{`{"a\"":1,"a":2}`, `a"`, "1"},
		{`{"":1,"a":2}`, "", "1"},
		{`{"a":{"":1},"":2}`, "", "2"},
		{`{"delay":66 , "distance" : 1750}`, "distance", "1750"},
		{`{}`, "a", ""},
	} {
		if !json.Valid([]byte(tt.payload)) {
			t.Fatalf("%s is no JSON", tt.payload)
		}
		from, to, f := lookup([]byte(tt.payload), 0, tt.name)
		got := ""
		if f == there {
			got = tt.payload[from:to]
		}
		if got != tt.want || f == broken {
			t.Errorf("%q in %s is %q (%d), want %q", tt.name, tt.payload, got, f, tt.want)
		}
	}
}
