package fsx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrNotRegular says that a path names something that cannot be cut back: a directory, a pipe, a device.
var ErrNotRegular = errors.New("not a regular file")

// ErrNoRecord says that a file does not hold records that end as they should: it is another kind of file.
var ErrNoRecord = errors.New("no end of a record found")

// Log is an append-only file with one owner, that can be cut back to where it was good. One goroutine uses it at a time.
//
//	[ good records ............ | torn bytes ]
//	                            ^ Cut           ^ Size
//
// A cut that fails is remembered: Mend tries it again, and nothing may be written before it has succeeded.
type Log struct {
	f    File
	path string
	size int64 // where the next byte goes
	good int64 // where an outstanding cut goes; -1 if there is none
}

// OpenLog opens path for appending, creates it if it is missing, and takes its lock. It fails with [ErrLocked], [ErrNotRegular], or as
// os.OpenFile does.
func OpenLog(fsys FS, path string, perm fs.FileMode) (*Log, error) {
	for range 3 {
		f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|appendFlag(), perm)
		if err != nil {
			return nil, err
		}
		l := &Log{f: f, path: path, good: -1}
		same, err := l.own(fsys)
		if err == nil && same {
			return l, nil
		}
		err = errors.Join(err, f.Close())
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: it is renamed each time it is opened", ErrLocked)
}

// appendFlag is O_APPEND, so that an operator who empties the file leaves no hole. Windows would not cut such a file back.
func appendFlag() int {
	if RenamesOpen {
		return os.O_APPEND
	}
	return 0
}

// own locks the file. It reports false if the path has come to name another file meanwhile: then the lock is worth nothing.
func (l *Log) own(fsys FS) (bool, error) {
	info, err := l.f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, ErrNotRegular
	}
	if err := l.f.TryLock(); err != nil {
		return false, err
	}
	now, err := fsys.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !os.SameFile(info, now) {
		return false, nil
	}
	l.size, err = l.f.Seek(0, io.SeekEnd)
	return true, err
}

// Moved reports whether the path no longer names this file: somebody has renamed or removed it.
func (l *Log) Moved(fsys FS) bool {
	info, err := l.f.Stat()
	if err != nil {
		return false
	}
	now, err := fsys.Stat(l.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return !os.SameFile(info, now)
}

// Size is where the next byte will be written: the length of the file, torn bytes included.
func (l *Log) Size() int64 { return l.size }

// Good is where the file is good up to: Size, unless a cut is outstanding.
func (l *Log) Good() int64 {
	if l.good >= 0 {
		return l.good
	}
	return l.size
}

// Write appends p. After an error the bytes that it reports as written are in the file.
func (l *Log) Write(p []byte) (int, error) {
	n, err := l.f.Write(p)
	l.size += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Sync is fsync.
func (l *Log) Sync() error { return l.f.Sync() }

// Close closes the file and gives up the lock.
func (l *Log) Close() error { return l.f.Close() }

// Cut cuts the file back to good, an offset up to Size. If that fails, Mend has to succeed before the next Write.
func (l *Log) Cut(good int64) error {
	if good == l.size && l.good < 0 {
		return nil
	}
	l.good = good
	return l.Mend()
}

// Torn reports whether a cut is outstanding.
func (l *Log) Torn() bool { return l.good >= 0 }

// Mend does an outstanding cut. If somebody has shortened the file behind the owner's back, it takes off the torn bytes only.
func (l *Log) Mend() error {
	if l.good < 0 {
		return nil
	}
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	torn := l.size - l.good
	to := max(0, min(l.good, info.Size()-torn))
	if err := l.f.Truncate(to); err != nil {
		return err
	}
	if _, err := l.f.Seek(to, io.SeekStart); err != nil {
		return err
	}
	l.size, l.good = to, -1
	return nil
}

// LastEnd is the offset behind the last delim: the end of the last whole record, 0 if there is none. It reads back from the end; when it
// finds none within limit bytes in a longer file, it fails with [ErrNoRecord].
func (l *Log) LastEnd(delim []byte, limit int64) (int64, error) {
	const step = 64 << 10
	buf := make([]byte, step+len(delim)-1)
	for end := l.size; end > 0; {
		start := max(0, end-step)
		// The window reaches into the one before by a delimiter less one byte, so that none is missed between two.
		window := buf[:min(end-start+int64(len(delim))-1, l.size-start)]
		if _, err := l.f.ReadAt(window, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndex(window, delim); i >= 0 {
			return start + int64(i+len(delim)), nil
		}
		end = start
		if end > 0 && l.size-end > limit {
			return 0, fmt.Errorf("%w in its last %d bytes", ErrNoRecord, l.size-end)
		}
	}
	return 0, nil
}

// Section reads the bytes from off to Size.
func (l *Log) Section(off int64) io.Reader { return io.NewSectionReader(l.f, off, l.size-off) }
