package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock/internal/fsx"
)

// minSearch is how many bytes at least are searched for the end of the last message.
const minSearch = 16 << 20

// probe opens the file as the first Write will, looks at it, and lets it go. It takes no lock: another sink may be writing the file.
func (s *Sink) probe() error {
	f, err := s.fs.OpenFile(s.cfg.Path, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fsx.ErrNotRegular
	case s.cfg.Mode == Append && info.Size() > s.limit:
		err = s.hasRecord(f, info.Size())
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// hasRecord looks for the end of a message in the last bytes of a file of that size.
func (s *Sink) hasRecord(r io.ReaderAt, size int64) error {
	const step = 64 << 10
	buf := make([]byte, step+len(s.delim)-1)
	for end := size; size-end <= s.limit; end -= step {
		start := max(0, end-step)
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-start)], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if start == 0 || n == 0 || bytes.Contains(buf[:n], s.delim) { // n is 0 where the file has been emptied meanwhile
			return nil
		}
	}
	return fmt.Errorf("%w in its last %d bytes", fsx.ErrNoRecord, s.limit)
}

// begin takes the file for the first time. Its age counts from Open.
func (s *Sink) begin() error {
	born := s.born
	if err := s.open(s.cfg.Mode); err != nil {
		return err
	}
	s.begun, s.born = true, born
	return nil
}

// open opens and locks the file, and makes it end with a whole message.
func (s *Sink) open(mode Mode) error {
	log, err := fsx.OpenLog(s.fs, s.cfg.Path, filePerm)
	if err != nil {
		return s.openError(err)
	}
	if mode == Truncate {
		err = log.Cut(0)
	} else {
		err = s.trim(log)
	}
	if err == nil && s.cfg.Sync != SyncNone {
		err = s.fs.SyncDir(filepath.Dir(s.cfg.Path))
	}
	if err != nil {
		return errors.Join(s.openError(err), log.Close())
	}
	s.log, s.done, s.born, s.dirty = log, log.Size(), s.clock.Now(), true
	s.looked = s.born
	return nil
}

func (s *Sink) openError(err error) error {
	e := &Error{Op: "open", Path: s.cfg.Path, Err: err}
	dir := filepath.Dir(s.cfg.Path)
	switch {
	case errors.Is(err, fsx.ErrLocked):
		e.Hint = "another process or sink is writing this file: stop it, or give each a file of its own"
	case errors.Is(err, fsx.ErrNotRegular), errors.Is(err, syscall.EISDIR):
		e.Hint = "the sink needs a plain file, which it can cut back and rename"
	case errors.Is(err, fsx.ErrNoRecord):
		e.Hint = fmt.Sprintf("it does not look like messages that end with %q: move it away, or use mode %q", s.delim, Truncate)
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = fmt.Sprintf("create the directory %s, set create_dir, or change path", dir)
	case errors.Is(err, fs.ErrPermission):
		e.Hint = fmt.Sprintf("give this user leave to write the file and its directory %s", dir)
	}
	return e
}

// trim moves what lies behind the last whole message to path.torn.
func (s *Sink) trim(log *fsx.Log) error {
	end, err := log.LastEnd(s.delim, s.limit)
	if err != nil || end == log.Size() {
		return err
	}
	torn, size := s.cfg.Path+".torn", log.Size()
	if err := s.keep(torn, log.Section(end)); err != nil {
		return err
	}
	if err := log.Cut(end); err != nil {
		return err
	}
	s.slog.Warn("file sink: the file ended within a message, as after a crash; the torn bytes were moved away",
		"path", s.cfg.Path, "offset", end, "bytes", size-end, "to", torn)
	return nil
}

// keep appends what r holds to the file called name, ended by a delimiter, and syncs it.
func (s *Sink) keep(name string, r io.Reader) error {
	f, err := s.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, filePerm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		_, err = f.Write(s.delim)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// rotate finishes the file, renames it to path.1, and starts a new one. If a rename fails the sink goes on with the file that it has
// and tries again at the next message; what was given before has been settled.
func (s *Sink) rotate() error {
	if err := s.flush(s.cfg.Sync != SyncNone); err != nil {
		return err
	}
	if !fsx.RenamesOpen {
		if err := s.shut(); err != nil {
			return err
		}
	}
	if err := s.shift(); err != nil {
		e := &Error{Op: "rotate", Path: s.cfg.Path, Offset: s.done, Err: err, Hint: "the directory must let this user rename files"}
		if s.log == nil {
			return errors.Join(e, s.open(Append))
		}
		return e
	}
	if s.log != nil {
		if err := s.shut(); err != nil {
			return err
		}
	}
	return s.open(Append)
}

// lookEvery is how often the sink looks whether its file has been renamed or removed.
const lookEvery = time.Second

// follow starts a file of the path's name if the one that the sink has is not there any more: another program rotates it. What was given
// before goes to the old one.
func (s *Sink) follow() error {
	now := s.clock.Now()
	if now.Sub(s.looked) < lookEvery {
		return nil
	}
	s.looked = now
	if !s.log.Moved(s.fs) {
		return nil
	}
	s.slog.Info("the file was renamed or removed; the sink starts another one", "path", s.cfg.Path)
	if err := s.flush(s.cfg.Sync != SyncNone); err != nil {
		return err
	}
	if err := s.shut(); err != nil {
		return err
	}
	return s.open(Append)
}

// shut closes the file within a rotation.
func (s *Sink) shut() error {
	err := s.log.Close()
	s.log = nil
	if err != nil {
		return &Error{Op: "close", Path: s.cfg.Path, Offset: s.done, Err: err}
	}
	return nil
}

// shift renames path.1 to path.2 and so on, up to the first gap, then path to path.1. So a rotation that failed in the middle can be
// done again without pushing out one file more.
func (s *Sink) shift() error {
	old := func(i int) string { return fmt.Sprintf("%s.%d", s.cfg.Path, i) }
	last := 1
	for last < s.cfg.Rotate.Keep {
		_, err := s.fs.Stat(old(last))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		last++
	}
	for i := last; i > 1; i-- {
		if err := s.fs.Rename(old(i-1), old(i)); err != nil {
			return err
		}
	}
	return s.fs.Rename(s.cfg.Path, old(1))
}
