// Package fsx is the small part of the file system that Penstock's own files need, as an interface: so that full disks, short writes and
// failing fsyncs can be tested. [OS] is the real one; fsxtest has one that fails on demand. [Log] is an append-only file on top of it.
package fsx

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ErrLocked says that somebody else has the file locked: another process, or another owner in this one.
var ErrLocked = errors.New("locked by another owner")

// RenamesOpen tells whether this system renames a file that is open.
const RenamesOpen = runtime.GOOS != "windows"

// FS is a file system. Its methods may be called concurrently, and fail as those of package os do.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Stat(name string) (fs.FileInfo, error)
	Rename(from, to string) error
	MkdirAll(dir string, perm fs.FileMode) error
	// SyncDir makes entries that were created, renamed or removed in dir durable, where the system has such a call.
	SyncDir(dir string) error
}

// File is an open file. One goroutine uses it at a time.
type File interface {
	io.Writer
	io.ReaderAt
	io.Seeker
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	// TryLock takes the exclusive lock on the file, which ends with Close. It fails with [ErrLocked] if somebody else has it. On systems
	// and network file systems without locks it does nothing.
	TryLock() error
}

// OS is the file system of the machine.
type OS struct{}

var _ FS = OS{}

// OpenFile is os.OpenFile.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Stat is os.Stat.
func (OS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Rename is os.Rename: it replaces what is at to.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// MkdirAll is os.MkdirAll.
func (OS) MkdirAll(dir string, perm fs.FileMode) error { return os.MkdirAll(dir, perm) }

// SyncDir is fsync on the directory; on Windows, which has no such call, nothing.
func (OS) SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

type osFile struct{ *os.File }

// TryLock takes the lock as the system does it.
func (f osFile) TryLock() error {
	err := tryLock(f.File)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// Mkdir makes dir, and whatever is missing above it, durably.
func Mkdir(fsys FS, dir string, perm fs.FileMode) error {
	var missing []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := fsys.Stat(d); !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			break
		}
		missing = append(missing, d)
	}
	if err := fsys.MkdirAll(dir, perm); err != nil {
		return err
	}
	for _, d := range missing {
		if err := fsys.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

// Cause is err without the operation and path that package os puts around it, for messages that name both themselves.
func Cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return le.Err
	}
	return err
}
