package file

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// siblings calls yield with each other regular file of the directory, until it returns false.
func (s *Source) siblings(yield func(path string, info os.FileInfo) bool) {
	dir, base := filepath.Split(s.cfg.Path)
	if dir == "" {
		dir = "."
	}
	entries, _ := os.ReadDir(dir) // what cannot be listed cannot be found; it will be reported as a gap
	for _, e := range entries {
		if e.Name() == base || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil && !yield(filepath.Join(dir, e.Name()), info) {
			return
		}
	}
}

// rotatedAway opens the file of rec, whatever its name in the directory is by now.
func (s *Source) rotatedAway(rec record) (found *os.File, ok bool) {
	s.siblings(func(path string, _ os.FileInfo) bool {
		f, err := s.open(path)
		if err != nil {
			return true
		}
		if ok = rec.names(f); ok {
			found = f
		} else {
			_ = f.Close() // only read from
		}
		return !ok
	})
	return found, ok
}

// oldestSince opens the oldest rotated file that was written to since t and that has not been read: rotated twice between two looks, a
// file never shows under its first name.
func (s *Source) oldestSince(t time.Time) (*os.File, bool) {
	present, err := os.Stat(s.cfg.Path)
	if err != nil {
		present = nil
	}
	var oldest os.FileInfo
	var at string
	s.siblings(func(path string, info os.FileInfo) bool {
		switch {
		case !rotatedName(filepath.Base(s.cfg.Path), filepath.Base(path)), info.ModTime().Before(t), s.wasRead(info):
		case present != nil && os.SameFile(info, present):
		case oldest == nil || info.ModTime().Before(oldest.ModTime()):
			oldest, at = info, path
		}
		return true
	})
	if oldest == nil {
		return nil, false
	}
	f, err := s.open(at)
	return f, err == nil
}

// rotatedName reports whether name is base with a number or a date behind it, as those who rotate files name them; not compressed.
func rotatedName(base, name string) bool {
	suffix, ok := strings.CutPrefix(name, base)
	return ok && len(suffix) > 1 && (suffix[0] == '.' || suffix[0] == '-') && strings.Trim(suffix[1:], "0123456789-_.:TZ") == ""
}

// keptFinished is how many files that have been read are remembered.
const keptFinished = 64

// finished remembers a file that has been read to its end.
func (s *Source) finished(info os.FileInfo) {
	s.done = append(s.done, info)
	if len(s.done) > keptFinished {
		s.done = s.done[1:]
	}
}

// wasRead reports whether a file has been read to its end and has not changed. Size and time are compared too, for inodes come again.
func (s *Source) wasRead(info os.FileInfo) bool {
	for _, d := range s.done {
		if os.SameFile(d, info) && d.Size() == info.Size() && d.ModTime().Equal(info.ModTime()) {
			return true
		}
	}
	return false
}
