package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/penstock-dev/penstock/source"
)

// identity tells a file from others as long as it exists.
type identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// record is what the cursor file says: the file that is being read, and up to which offset all of it is settled.
type record struct {
	Path string `json:"path"` // for humans: it may have been renamed
	identity
	Fingerprint fingerprint `json:"fingerprint"`
	Offset      uint64      `json:"offset"`
}

// fingerprint is of the first bytes of a file, for inodes come again.
type fingerprint struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func fingerprintOf(head []byte) fingerprint {
	sum := sha256.Sum256(head)
	return fingerprint{len(head), hex.EncodeToString(sum[:])}
}

// names reports whether f is the file of the record, and reaches up to its offset. The device is not compared: it may have another number
// after the machine has started again.
func (r record) names(f *os.File) bool {
	id, err := identify(f)
	if err != nil || id.Inode != r.Inode {
		return false
	}
	info, err := f.Stat()
	return err == nil && uint64(info.Size()) >= r.Offset && fingerprintOf(readHead(f, r.Fingerprint.Bytes)) == r.Fingerprint
}

// cursorFile is where the cursor of a source is kept.
func cursorFile(env source.Env) string {
	return filepath.Join(env.DataDir, "cursors", url.PathEscape(env.Name)+".json")
}

// loadRecord reads the cursor file; have is false if there is none, or none that makes sense.
func loadRecord(env source.Env) (r record, have bool, err error) {
	name := cursorFile(env)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && (r.Fingerprint.Bytes < 0 || r.Fingerprint.Bytes > headSize || r.Offset > 1<<62) {
		err = fmt.Errorf("a fingerprint of %d bytes, offset %d", r.Fingerprint.Bytes, r.Offset)
	}
	if err != nil {
		return record{}, false, fmt.Errorf("file source %q: cursor file %s does not make sense: %w: starting at 0; repair it or delete it",
			env.Name, name, err)
	}
	return r, true, nil
}

// Checkpoint writes down up to where all is settled, if that has changed. It is safe to call at any time. The file is replaced as a
// whole and is durable when Checkpoint has returned nil.
func (s *Source) Checkpoint(context.Context) error {
	if !s.cfg.Follow {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	r, env, ok := s.record()
	if !ok || r == s.written {
		return nil
	}
	if s.written == (record{}) {
		s.displaces(env)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = replaceFile(cursorFile(env), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("file source %q: keeping the cursor: %w: after a restart messages from the last kept one on come again", env.Name, err)
	}
	s.written = r
	return nil
}

// displaces warns if the cursor that is about to be overwritten belongs to another path.
func (s *Source) displaces(env source.Env) {
	was, have, err := loadRecord(env)
	if err != nil || !have || was.Path == s.cfg.Path || env.Logger == nil {
		return
	}
	env.Logger.Warn("the cursor of another file is overwritten, which is read from its beginning if it comes back: give each pipeline a data "+
		"directory of its own, or each source a name of its own", "source", env.Name, "path", s.cfg.Path, "other", was.Path,
		"cursor", cursorFile(env))
}

// record is where the cursor is, and forgets the generations before it; ok is false as long as nothing is settled.
func (s *Source) record() (r record, env source.Env, ok bool) {
	cursor := s.settled.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if cursor == 0 || len(s.generations) == 0 {
		return record{}, s.env, false
	}
	i := len(s.generations) - 1
	for i > 0 && s.generations[i].start > cursor {
		i--
	}
	s.generations = s.generations[i:]
	g := s.generations[0]
	return record{Path: s.cfg.Path, identity: g.id, Fingerprint: fingerprintOf(g.head), Offset: cursor - g.start}, s.env, true
}

// replaceFile writes data to a file beside name, and puts it in name's place when it is durable.
func replaceFile(name string, data []byte) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}
