package file

import (
	"os"
	"path/filepath"
	"testing"
)

// Promise: a source that overwrites the cursor of another file says so, once.
func TestCursorOfAnotherFile(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb\nc\n")
		r.start()
		r.expect("a", "b", "c")
		r.settle(1)
		r.finish()
		r.start() // its own
		r.expect("b", "c")
		r.settle(1)
		r.finish()
		r.said(0, "level=WARN")
		mine := r.path
		r.path = filepath.Join(filepath.Dir(mine), "other", "in")
		r.cfg.Path = r.path
		if err := os.Mkdir(filepath.Dir(r.path), 0o700); err != nil {
			r.Fatal(err)
		}
		add(r, r.path, "x\ny\n")
		r.start()
		r.expect("x", "y")
		r.settle(1)
		r.polls(3)
		r.settle(1)
		r.finish()
		r.said(1, "level=WARN msg=\"the cursor of another file is overwritten")
		r.said(1, "other="+mine)
	})
}
