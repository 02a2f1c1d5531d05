package fsx_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock/internal/fsx"
	"github.com/penstock-dev/penstock/internal/fsx/fsxtest"
)

func openLog(t *testing.T, fsys fsx.FS, path string) *fsx.Log {
	t.Helper()
	l, err := fsx.OpenLog(fsys, path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The lock belongs to the file that the path names: one taken on a file that has been renamed meanwhile is worth nothing.
func TestOpenLogLocksWhatThePathNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, &renamer{FS: fsx.OS{}, path: path}, path)
	defer l.Close()
	if l.Size() != 0 {
		t.Errorf("the log has %d bytes: it is the old file", l.Size())
	}
	if _, err := fsx.OpenLog(fsx.OS{}, path, 0o600); !errors.Is(err, fsx.ErrLocked) {
		t.Errorf("second OpenLog: %v, want ErrLocked", err)
	}
}

// renamer renames the file once after it has been opened, as a rotation by another process would.
type renamer struct {
	fsx.FS
	path string
	done bool
}

func (r *renamer) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	f, err := r.FS.OpenFile(name, flag, perm)
	if !r.done && err == nil {
		r.done = true
		err = os.Rename(r.path, r.path+".1")
	}
	return f, err
}

func TestOpenLogRefusesWhatItCannotCut(t *testing.T) {
	if _, err := fsx.OpenLog(fsx.OS{}, os.DevNull, 0o600); !errors.Is(err, fsx.ErrNotRegular) {
		t.Errorf("a device: %v, want ErrNotRegular", err)
	}
}

// A cut that fails is remembered, with the offset that is good.
func TestCutIsRemembered(t *testing.T) {
	disk := fsxtest.New()
	l := openLog(t, disk, filepath.Join(t.TempDir(), "log"))
	defer l.Close()
	if _, err := l.Write([]byte("good|torn")); err != nil {
		t.Fatal(err)
	}
	disk.Fail(fsxtest.OpTruncate, syscall.EIO)
	if err := l.Cut(5); !errors.Is(err, syscall.EIO) || !l.Torn() || l.Good() != 5 || l.Size() != 9 {
		t.Errorf("Cut: %v, torn %v, good %d, size %d", err, l.Torn(), l.Good(), l.Size())
	}
	disk.Fail(fsxtest.OpTruncate, nil)
	if err := l.Mend(); err != nil || l.Torn() || l.Good() != 5 || l.Size() != 5 {
		t.Errorf("Mend: %v, torn %v, good %d, size %d", err, l.Torn(), l.Good(), l.Size())
	}
}
