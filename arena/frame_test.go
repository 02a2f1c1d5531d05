package arena

import (
	"bytes"
	"testing"
)

func TestHeader(t *testing.T) {
	var block []byte
	block = AppendHeader(block, "a", []byte("1"))
	block = AppendHeader(block, "", []byte("no name"))
	block = AppendHeader(block, "b", nil)
	block = AppendHeader(block, "a", []byte("2"))
	block = AppendHeader(block, string(make([]byte, 70000)), []byte("long"))
	for _, c := range []struct {
		name string
		want []byte
	}{
		{"a", []byte("1")},
		{"", []byte("no name")},
		{"b", []byte{}},
		{"c", nil},
		{"A", nil},
		{string(make([]byte, 65535)), []byte("long")},
	} {
		if got := Header(block, c.name); !bytes.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("header %.10q is %q, want %q", c.name, got, c.want)
		}
	}
	for n := range 30 {
		Header(block[:n], "z") // cut anywhere: no panic
	}
}

// A block made of any headers gives them back, in order.
func FuzzHeaderRoundTrip(f *testing.F) {
	f.Add("name", []byte("value"), "", []byte(nil))
	f.Add("\x00", []byte{0, 1, 2}, "name", []byte("x"))
	f.Fuzz(func(t *testing.T, n1 string, v1 []byte, n2 string, v2 []byte) {
		n1, n2 = n1[:min(len(n1), 65535)], n2[:min(len(n2), 65535)]
		rest := AppendHeader(AppendHeader(nil, n1, v1), n2, v2)
		var name, value []byte
		var ok bool
		for i, want := range []struct {
			name  string
			value []byte
		}{{n1, v1}, {n2, v2}} {
			name, value, rest, ok = NextHeader(rest)
			if !ok || string(name) != want.name || !bytes.Equal(value, want.value) {
				t.Fatalf("header %d is %q: %q, %v", i, name, value, ok)
			}
		}
		if _, _, _, ok := NextHeader(rest); ok || len(rest) != 0 {
			t.Fatalf("%d bytes left over", len(rest))
		}
	})
}

// Whatever a block holds, reading it ends, and yields parts of it only.
func FuzzHeaderForged(f *testing.F) {
	f.Add([]byte{}, "a")
	f.Add([]byte{0, 1, 0, 0, 0, 1, 'a', 'b'}, "a")
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'a'}, "a")
	f.Fuzz(func(t *testing.T, block []byte, name string) {
		block = block[:len(block):len(block)]
		total := 0
		for n, v, rest, ok := NextHeader(block); ok; n, v, rest, ok = NextHeader(rest) {
			total += headerPrefix + len(n) + len(v)
			if cap(n) != len(n) || cap(v) != len(v) || total+len(rest) != len(block) {
				t.Fatalf("a header of %d and %d bytes with %d to come, in a block of %d", len(n), len(v), len(rest), len(block))
			}
		}
		if v := Header(block, name); v != nil && len(v) > len(block) {
			t.Fatal("a value longer than its block")
		}
	})
}
