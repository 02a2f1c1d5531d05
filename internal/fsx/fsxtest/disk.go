// Package fsxtest has a file system that fails on demand. Its files are real ones; what goes wrong is not.
package fsxtest

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/penstock-dev/penstock/internal/fsx"
)

// Op is an operation that can be made to fail.
type Op string

// The operations. OpWrite fails whole; see [Disk.Room] for short writes.
const (
	OpOpen     Op = "open"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpRename   Op = "rename"
	OpSyncDir  Op = "syncdir"
	OpClose    Op = "close"
)

// Disk is a file system like [fsx.OS] until it is told otherwise. Its methods may be called concurrently. It does:
//
//   - run full after so many bytes (Room): the write that meets the end is short, what is cut off makes room again
//   - fail any operation with any error (Fail)
//   - call a function before an operation (Before)
//   - remember the operations in order, with the file's base name: "write letters.ndjson 12"
//
// It does not forget what was not synced: tests look at the order of operations instead.
type Disk struct {
	mu     sync.Mutex
	room   int64 // -1: no end
	fails  map[Op]error
	before map[Op]func()
	log    []string
}

var _ fsx.FS = (*Disk)(nil)

// New is a Disk where nothing fails.
func New() *Disk { return &Disk{room: -1, fails: map[Op]error{}, before: map[Op]func(){}} }

// Room lets n more bytes be written; negative: as many as one likes.
func (d *Disk) Room(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = n
}

// Fail makes op fail with err from now on; nil makes it work again.
func (d *Disk) Fail(op Op, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails[op] = err
}

// Before has f called before each op; nil ends that. f must not change the Disk.
func (d *Disk) Before(op Op, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before[op] = f
}

// Log is what has been done so far. It belongs to the caller.
func (d *Disk) Log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Count is how often op was done.
func (d *Disk) Count(op Op) (n int) {
	for _, line := range d.Log() {
		name, _, _ := strings.Cut(line, " ")
		if name == string(op) {
			n++
		}
	}
	return n
}

// step runs what comes before op, and notes op or answers its failure.
func (d *Disk) step(op Op, name string, arg any) error {
	d.mu.Lock()
	before := d.before[op]
	d.mu.Unlock()
	if before != nil {
		before()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fails[op]; err != nil {
		return &fs.PathError{Op: string(op), Path: name, Err: err}
	}
	d.log = append(d.log, fmt.Sprint(op, " ", filepath.Base(name), " ", arg))
	return nil
}

// OpenFile opens a real file.
func (d *Disk) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	if err := d.step(OpOpen, name, ""); err != nil {
		return nil, err
	}
	f, err := fsx.OS{}.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &file{File: f, disk: d, name: name}, nil
}

// Stat never fails on demand.
func (d *Disk) Stat(name string) (fs.FileInfo, error) { return fsx.OS{}.Stat(name) }

// Rename renames.
func (d *Disk) Rename(from, to string) error {
	if err := d.step(OpRename, from, filepath.Base(to)); err != nil {
		return err
	}
	return fsx.OS{}.Rename(from, to)
}

// MkdirAll never fails on demand.
func (d *Disk) MkdirAll(dir string, perm fs.FileMode) error { return fsx.OS{}.MkdirAll(dir, perm) }

// SyncDir syncs.
func (d *Disk) SyncDir(dir string) error {
	if err := d.step(OpSyncDir, dir, ""); err != nil {
		return err
	}
	return fsx.OS{}.SyncDir(dir)
}

type file struct {
	fsx.File
	disk *Disk
	name string
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.disk.step(OpWrite, f.name, len(p)); err != nil {
		return 0, err
	}
	q := f.disk.take(p)
	n, err := f.File.Write(q)
	if err == nil && n < len(p) {
		err = &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	return n, err
}

// take is as much of p as there is room for.
func (d *Disk) take(p []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room < 0 {
		return p
	}
	n := min(int64(len(p)), d.room)
	d.room -= n
	return p[:n]
}

func (f *file) Truncate(size int64) error {
	if err := f.disk.step(OpTruncate, f.name, size); err != nil {
		return err
	}
	info, err := f.File.Stat()
	if err != nil {
		return err
	}
	f.disk.mu.Lock()
	if f.disk.room >= 0 {
		f.disk.room += max(0, info.Size()-size)
	}
	f.disk.mu.Unlock()
	return f.File.Truncate(size)
}

func (f *file) Sync() error {
	if err := f.disk.step(OpSync, f.name, ""); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *file) Close() error {
	err := f.disk.step(OpClose, f.name, "")
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}
