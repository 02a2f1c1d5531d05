package file

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/internal/fsx"
	"github.com/penstock-dev/penstock/internal/fsx/fsxtest"
)

func (r *rig) gone(path string) {
	r.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		r.Errorf("%s is there: %v", path, err)
	}
}

// No file grows beyond MaxBytes, messages are never parted, and Keep old files stay.
func TestRotateBySize(t *testing.T) {
	r := newRig(t, Config{Rotate: Rotate{MaxBytes: 8, Keep: 2}})
	r.mustOpen()
	r.must(r.write("aaa", "bbb", "ccc", "ddd"))
	r.must(r.write("eee", "a message that is too large", "fff"))
	r.must(r.flush())
	r.holds(r.path, "fff\n")
	r.holds(r.path+".1", "a message that is too large\n")
	r.holds(r.path+".2", "eee\n")
	r.gone(r.path + ".3")
	for p, err := range r.fate {
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if len(r.fate) != 7 {
		t.Errorf("%d messages done, want 7", len(r.fate))
	}
}

func TestRotateByAge(t *testing.T) {
	r := newRig(t, Config{Rotate: Rotate{MaxAge: time.Hour}})
	r.mustOpen()
	r.clock.Advance(2 * time.Hour) // an empty file is not rotated
	r.must(r.write("aaa"))
	r.clock.Advance(time.Minute)
	r.must(r.write("bbb")) // the file is older than an hour
	r.clock.Advance(59 * time.Minute)
	r.must(r.write("ccc"))
	r.must(r.Close(t.Context()))
	r.holds(r.path+".1", "aaa\n")
	r.holds(r.path, "bbb\nccc\n")
	r.gone(r.path + ".2")
}

// What is rotated away is synced before, and the new names after, where fsync was asked for.
func TestRotationSyncs(t *testing.T) {
	r := newRig(t, Config{Sync: SyncFlush, Rotate: Rotate{MaxBytes: 4}})
	r.mustOpen()
	before := len(r.disk.Log())
	r.must(r.write("aaa", "bbb"))
	got := strings.Join(r.disk.Log()[before:], ", ")
	if !strings.HasPrefix(got, "write out 4, sync out , rename out out.1, close out , open out , syncdir ") {
		t.Errorf("a rotation does: %s", got)
	}
}

// A rename that fails fails messages, loses none, pushes out no old file, and is done when it can be.
func TestRotationThatFails(t *testing.T) {
	r := newRig(t, Config{Rotate: Rotate{MaxBytes: 4, Keep: 3}})
	r.mustOpen()
	r.must(r.write("aaa", "bbb"))
	r.disk.Fail(fsxtest.OpRename, syscall.EACCES)
	for range 5 {
		if err := r.write("ccc"); !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("write: %v, want the error of the rename", err)
		}
	}
	r.disk.Fail(fsxtest.OpRename, nil)
	r.must(r.write("ccc"))
	r.must(r.flush())
	r.holds(r.path, "ccc\n")
	r.holds(r.path+".1", "bbb\n")
	r.holds(r.path+".2", "aaa\n")
	r.gone(r.path + ".3")
}

// The new file cannot be opened: messages fail until it can.
func TestRotationWithoutANewFile(t *testing.T) {
	r := newRig(t, Config{Mode: Truncate, Rotate: Rotate{MaxBytes: 4}})
	r.mustOpen()
	r.must(r.write("aaa"))
	r.disk.Fail(fsxtest.OpOpen, syscall.EMFILE)
	for range 2 {
		if err := r.write("bbb"); !errors.Is(err, syscall.EMFILE) {
			t.Fatalf("write: %v", err)
		}
		r.must(r.flush())
	}
	r.disk.Fail(fsxtest.OpOpen, nil)
	r.must(r.write("bbb"))
	r.must(r.Close(t.Context()))
	r.holds(r.path, "bbb\n")
	r.holds(r.path+".1", "aaa\n")
}

// Promise: a file that another program renames or removes gets a follower within a second, and no message is lost or there twice.
func TestRotatedByOthers(t *testing.T) {
	if !fsx.RenamesOpen {
		t.Skip("nobody renames a file that is open")
	}
	r := newRig(t, Config{Mode: Truncate})
	r.mustOpen()
	r.must(r.write("a"))
	r.must(os.Rename(r.path, r.path+".moved"))
	r.must(r.write("b")) // too early to look again
	r.clock.Advance(time.Second)
	r.must(r.write("c"))
	r.must(r.flush())
	r.holds(r.path+".moved", "a\nb\n")
	r.holds(r.path, "c\n")
	r.clock.Advance(time.Second)
	r.must(r.write("d")) // it is there: nothing happens
	r.must(r.flush())
	r.holds(r.path, "c\nd\n")
	r.must(os.Remove(r.path))
	r.must(os.WriteFile(r.path, []byte("of another program\n"), 0o600))
	r.clock.Advance(time.Second)
	r.must(r.write("e"))
	r.must(r.Close(t.Context()))
	r.holds(r.path, "of another program\ne\n")
	for p, err := range r.fate {
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if len(r.fate) != 5 {
		t.Errorf("%d messages done, want 5", len(r.fate))
	}
}

// A follower that cannot be opened is tried again; nothing is written to the file that is gone.
func TestRotatedByOthersToNowhere(t *testing.T) {
	if !fsx.RenamesOpen {
		t.Skip("nobody renames a file that is open")
	}
	r := newRig(t, Config{})
	r.mustOpen()
	r.must(r.write("a"))
	r.must(os.Rename(r.path, r.path+".1"))
	r.must(os.Mkdir(r.path, 0o700))
	r.clock.Advance(time.Second)
	for _, p := range []string{"b", "c"} {
		if err := r.write(p); err == nil || r.fate[p] == nil {
			t.Errorf("%s was written to a directory", p)
		}
	}
	r.must(r.flush())
	r.must(os.Remove(r.path))
	r.must(r.write("d"))
	r.must(r.Close(t.Context()))
	r.holds(r.path+".1", "a\n")
	r.holds(r.path, "d\n")
}
