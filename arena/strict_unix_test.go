//go:build unix

package arena

import (
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"
)

func newStrict(t *testing.T) *Arena {
	t.Helper()
	a, err := New(Config{Budget: 100 * testSlab, SlabSize: testSlab, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// faultIn runs use and names the function in which it faulted, or "".
func faultIn(use func()) (function string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if _, ok := r.(interface{ Addr() uintptr }); !ok {
			panic(r)
		}
		var pcs [32]uintptr
		frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if function != "" && !strings.HasPrefix(f.Function, "runtime.") {
				function = f.Function
				return
			}
			if f.Function == "runtime.sigpanic" {
				function = "?"
			}
		}
	}()
	use()
	return ""
}

var sink byte // so that reads are not removed

//go:noinline
func readAt(b []byte, i int) { sink = b[i] }

//go:noinline
func writeAt(b []byte, i int) { b[i] = 1 }

//go:noinline
func readPast(b []byte) { sink = b[:len(b):cap(b)][len(b)-1] }

// Promise: in strict mode a use after release fails at the line that did it.
func TestStrictFaultsWhereItIsUsed(t *testing.T) {
	a := newStrict(t)
	msg := []byte(strings.Repeat("x", 5000) + "end")
	for _, n := range []int{1, 100, 4095, 4096, 4097, 5003} {
		p, err := a.StrictCopy(msg[len(msg)-n:])
		if err != nil {
			t.Fatal(err)
		}
		q, err := a.StrictCopy(msg) // the next copy stays
		if err != nil {
			t.Fatal(err)
		}
		b := p.Bytes()
		if string(b) != string(msg[len(msg)-n:]) || cap(b) != n {
			t.Fatalf("copy of %d bytes: %d bytes, capacity %d", n, len(b), cap(b))
		}
		if f := faultIn(func() { readAt(b, 0); readAt(b, n-1) }); f != "" {
			t.Errorf("reading a copy of %d bytes faulted in %s", n, f)
		}
		if f := faultIn(func() { writeAt(b, n-1) }); !strings.HasSuffix(f, "arena.writeAt") {
			t.Errorf("writing to a lent message of %d bytes: fault in %q, want one in writeAt", n, f)
		}
		p.Revoke()
		p.Revoke() // does nothing
		if f := faultIn(func() { readAt(b, n-1) }); !strings.HasSuffix(f, "arena.readAt") {
			t.Errorf("reading %d bytes after release: fault in %q, want one in readAt", n, f)
		}
		if f := faultIn(func() { readPast(p.Bytes()) }); !strings.HasSuffix(f, "arena.readPast") {
			t.Errorf("asking a revoked page for its bytes: fault in %q", f)
		}
		if string(q.Bytes()) != string(msg) {
			t.Error("revoking one copy harmed another")
		}
		q.Revoke()
	}
}

func TestStrictGuardPage(t *testing.T) {
	a := newStrict(t)
	p, err := a.StrictCopy([]byte("abc"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Revoke()
	past := unsafe.Slice(&p.Bytes()[0], 4)
	if f := faultIn(func() { readAt(past, 3) }); !strings.HasSuffix(f, "arena.readAt") {
		t.Errorf("reading past the end: fault in %q", f)
	}
}

func TestStrictErrors(t *testing.T) {
	loose := newArena(t, 100)
	if _, err := loose.StrictCopy(nil); !errors.Is(err, ErrNotStrict) {
		t.Errorf("copy without strict mode: %v", err)
	}
	a := newStrict(t)
	p, err := a.StrictCopy(nil)
	if err != nil || len(p.Bytes()) != 0 {
		t.Fatalf("an empty copy: %v", err)
	}
	a.Close()
	p.Revoke() // late, and harmless
	if _, err := a.StrictCopy(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("copy after close: %v", err)
	}
}

// Regions that have been gone through are left, with the copies that live in them, and unmapped when none do.
func TestStrictRegions(t *testing.T) {
	s, err := newStrictSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.reserve(8 * s.pageSize); err != nil { // small from here on
		t.Fatal(err)
	}
	old, err := s.copy([]byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		p, err := s.copy([]byte("new"))
		if err != nil {
			t.Fatal(err)
		}
		p.Revoke()
	}
	if string(old.Bytes()) != "old" {
		t.Error("a copy was lost with its region")
	}
	if len(s.past) > 2 {
		t.Errorf("%d regions kept", len(s.past))
	}
	p, err := s.copy(make([]byte, 100*s.pageSize)) // larger than a region
	if err != nil {
		t.Fatal(err)
	}
	p.Revoke()
	old.Revoke()
}
