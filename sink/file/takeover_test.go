package file

import (
	"context"
	"os"
	"testing"
)

// Promise: truncate empties the file with the first message, or at a Close that had none before it; not by Open, and not by a Close
// whose time is over.
func TestWhenTruncateEmpties(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name  string
		run   func(r *rig)
		holds string
	}{
		{"opened only", func(*rig) {}, "old\n"},
		{"flushed only", func(r *rig) { r.must(r.flush()) }, "old\n"},
		{"closed", func(r *rig) { r.must(r.flush()); r.must(r.Close(t.Context())) }, ""},
		{"closed late", func(r *rig) { r.must(r.Close(over)) }, "old\n"},
		{"written", func(r *rig) { r.must(r.write("new")); r.must(r.flush()) }, "new\n"},
		{"closed twice", func(r *rig) {
			r.must(r.write("new"))
			r.must(r.Close(t.Context()))
			r.must(r.Close(t.Context()))
		}, "new\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, Config{Mode: Truncate})
			r.T = t
			r.must(os.WriteFile(r.path, []byte("old\n"), 0o600))
			r.must(r.Open(t.Context(), r.env()))
			tc.run(r)
			r.holds(r.path, tc.holds)
			r.must(r.Close(t.Context()))
		})
	}
}

// Promise: a sink may be opened while another one still writes and rotates the same file, and takes over when that one is closed.
func TestTakesOverFromAnotherSink(t *testing.T) {
	old := newRig(t, Config{Rotate: Rotate{MaxBytes: 8, Keep: 9}})
	old.mustOpen()
	old.must(old.write("a01", "a02"))
	next := newRig(t, Config{Path: old.path, Rotate: Rotate{MaxBytes: 8, Keep: 9}})
	next.must(next.Open(t.Context(), next.env()))
	old.must(old.write("a03", "a04", "a05"))
	old.must(old.flush())
	old.must(old.Close(t.Context()))
	next.must(next.write("b01", "b02"))
	next.must(next.Close(t.Context()))
	old.holds(old.path+".3", "a01\na02\n")
	old.holds(old.path+".2", "a03\na04\n")
	old.holds(old.path+".1", "a05\nb01\n")
	old.holds(old.path, "b02\n")
}
