// Package datadir gives the directory that a process keeps its state in to one process at a time: two would overwrite each other's cursors
// and dead letters.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/penstock-dev/penstock/internal/fsx"
)

const (
	dirPerm  = 0o700 // as that of the dead letters, which may hold what is secret
	filePerm = 0o600
	lockName = "lock"
	maxPID   = 20 // digits
)

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("in use")

// Lock is a directory that is this process's until Close, or until the process ends.
type Lock struct{ f fsx.File }

// Take makes dir if it is missing, looks whether files can be made in it, and locks it: by a lock on the file "lock", which holds the
// number of the process. Where the file system has no locks, it does without. It fails with [ErrInUse], or as the file system does; the
// error says what to do.
func Take(dir string) (*Lock, error) {
	if err := fsx.Mkdir(fsx.OS{}, dir, dirPerm); err != nil {
		return nil, unusable(dir, err)
	}
	f, err := fsx.OS{}.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, unusable(dir, err)
	}
	err = f.TryLock()
	if errors.Is(err, fsx.ErrLocked) {
		err = fmt.Errorf("data directory %s: %w by %s: stop that one, or give this one a directory of its own (data, or --data)",
			dir, ErrInUse, owner(f))
	} else {
		if err == nil {
			err = writable(dir)
		}
		if err != nil {
			err = unusable(dir, err)
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	if f.Truncate(0) == nil { // a number that cannot be written, on a full disk, is missed by nobody but who reads the error above
		_, _ = f.Write([]byte(strconv.Itoa(os.Getpid()) + "\n"))
	}
	return &Lock{f}, nil
}

// Close lets others have the directory. The file stays: taking it away could take it from somebody who has just opened it.
func (l *Lock) Close() error { return l.f.Close() }

// owner says who has locked f.
func owner(f io.ReaderAt) string {
	buf := make([]byte, maxPID)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "another process"
	}
	var pid int
	if _, err := fmt.Sscanf(string(buf[:n]), "%d\n", &pid); err != nil {
		return "another process"
	}
	return fmt.Sprintf("the process with pid %d", pid)
}

// writable makes a file in dir, and takes it away.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func unusable(dir string, err error) error {
	return fmt.Errorf("data directory %s cannot be used: %w: let this user write there, or name another one (data, or --data)", dir, err)
}
