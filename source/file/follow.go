package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/source"
)

// headSize is how many bytes at its beginning tell a file from another one with the same inode.
const headSize = 256

// GapError says that the file that the cursor points into is gone, so that what was not read of it is lost. It is reported, and the
// source goes on with the present file at 0.
type GapError struct {
	Path   string
	Offset uint64 // up to which the lost file had been settled
	Why    string
}

// Error names the file and the place.
func (e *GapError) Error() string {
	return fmt.Sprintf("file source %s: the file that was being followed is gone (%s); it had been settled up to offset %d, what came "+
		"after that is lost; starting the present file at 0: "+
		"keep rotated files in the same directory until they have been read", e.Path, e.Why, e.Offset)
}

// TruncatedError says that a followed file was cut short or rewritten. The source starts the file at 0. It is reported, unless all that
// had been seen of the file had been read and was whole messages: then the log says it.
type TruncatedError struct {
	Path    string
	Offset  uint64 // up to which it had been read
	Partial int    // bytes of a message without an end that were dropped
}

// Error names the file and the place.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("file source %s: the file was truncated or rewritten after it had been read up to offset %d (%d bytes of an "+
		"unfinished message dropped); starting it at 0", e.Path, e.Offset, e.Partial)
}

// generation is one file in the concatenation. A file that was truncated is another generation.
type generation struct {
	id    identity
	start uint64 // the receipt that offset 0 would have
	head  []byte // up to headSize bytes from the beginning; guarded by Source.mu
}

// tail is a file that is being followed.
type tail struct {
	s       *Source
	in      source.Intake
	f       *os.File
	gen     *generation
	r       *decode.Reader
	info    os.FileInfo // when it was last looked at
	rotated bool        // path names another file by now
}

// follow reads one file after the other.
func (s *Source) follow(ctx context.Context, in source.Intake) error {
	if in.Env().DataDir == "" {
		return fmt.Errorf("file source %s: follow needs a data directory to keep its cursor in: set one", s.cfg.Path)
	}
	t, err := s.resume(ctx, in)
	for err == nil {
		err = t.run(ctx)
		last := t.info
		end := t.position()
		t.close()
		if err == nil {
			t, err = s.next(ctx, in, t.gen, last, end)
		}
	}
	return err
}

// tail starts to follow f at offset. It takes f over.
func (s *Source) tail(in source.Intake, f *os.File, start, offset uint64) (*tail, error) {
	t := &tail{s: s, in: in, f: f}
	info, err := f.Stat()
	if err == nil {
		t.info = info
		err = t.begin(start, offset)
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, fmt.Errorf("file source: %w", err)
	}
	return t, nil
}

// begin makes a generation of the file, as it is now, and a reader at offset.
func (t *tail) begin(start, offset uint64) error {
	id, err := identify(t.f)
	if err != nil {
		return err
	}
	if _, err := t.f.Seek(int64(offset), io.SeekStart); err != nil {
		return err
	}
	t.gen = &generation{id: id, start: start}
	o := t.s.options(t.in, start, offset)
	o.KeepPartial = true
	t.r = decode.NewReader(t.f, t.in, t.s.framing, o)
	t.learn()
	t.s.mu.Lock()
	t.s.generations = append(t.s.generations, t.gen)
	t.s.mu.Unlock()
	return nil
}

func (t *tail) close() {
	t.r.Close()
	_ = t.f.Close() // only read from
}

// position is how far the file has been read.
func (t *tail) position() uint64 { return t.r.Offset() - t.gen.start + uint64(t.r.Buffered()) }

// learn reads the head of the file, as long as it is short.
func (t *tail) learn() {
	if len(t.gen.head) == headSize {
		return
	}
	head := readHead(t.f, headSize)
	t.s.mu.Lock()
	t.gen.head = head
	t.s.mu.Unlock()
}

func readHead(f io.ReaderAt, n int) []byte {
	head := make([]byte, n)
	n, _ = f.ReadAt(head, 0)
	return head[:n]
}

// run follows the file until it has been rotated away and has been quiet for one poll.
func (t *tail) run(ctx context.Context) error {
	quiet, last := false, false
	for {
		if err := t.s.pump(ctx, t.in, t.r, t.learn); err != nil {
			return t.s.located(err, t.gen.start)
		}
		if last {
			return nil
		}
		t.r.Park()
		if err := clock.Sleep(ctx, t.in.Env().Clock, t.s.cfg.Poll); err != nil {
			return err
		}
		grown, err := t.look()
		if err != nil {
			return err
		}
		if t.rotated = t.rotated || t.replaced(); grown || !t.rotated {
			quiet = false
		} else if quiet {
			last = true // nobody writes to it any more: what is left at its end is a message
			t.r.Finish()
		} else {
			quiet = true
		}
	}
}

// look reports whether there is more to read. It starts over if the file was truncated or rewritten.
func (t *tail) look() (grown bool, err error) {
	info, err := t.f.Stat()
	if err != nil {
		return false, fmt.Errorf("file source: %w", err)
	}
	pos := t.position()
	same := info.Size() == t.info.Size() && info.ModTime().Equal(t.info.ModTime())
	t.info = info
	if uint64(info.Size()) >= pos && (same || bytes.Equal(t.gen.head, readHead(t.f, len(t.gen.head)))) {
		return uint64(info.Size()) > pos, nil
	}
	if e := (&TruncatedError{Path: t.s.cfg.Path, Offset: pos, Partial: t.r.Buffered()}); e.Partial > 0 {
		t.in.Report(e)
	} else { // all that had been seen of it has been read: rotation that copies and truncates does that as it should
		t.in.Env().Logger.Info("the file was truncated or rewritten when all of it had been read; starting it at 0",
			"source", t.in.Env().Name, "path", t.s.cfg.Path, "offset", pos)
	}
	t.r.Close()
	return true, t.begin(t.gen.start+pos, 0)
}

// replaced reports whether path names another file. While it names none, this one is still followed.
func (t *tail) replaced() bool {
	now, err := os.Stat(t.s.cfg.Path)
	return err == nil && !os.SameFile(now, t.info)
}

// next opens the file after one that has been read to its end: one that was rotated away meanwhile, or the present one.
func (s *Source) next(ctx context.Context, in source.Intake, gen *generation, last os.FileInfo, end uint64) (*tail, error) {
	s.finished(last)
	waiting := false
	for {
		if f, found := s.oldestSince(last.ModTime()); found {
			t, err := s.tail(in, f, gen.start+end, 0)
			if err == nil {
				t.rotated = true
			}
			return t, err
		}
		f, err := s.open(s.cfg.Path)
		if err == nil {
			info, err := f.Stat()
			if err == nil && os.SameFile(info, last) && uint64(info.Size()) >= end { // it was moved back
				return s.tail(in, f, gen.start, end)
			}
			return s.tail(in, f, gen.start+end, 0)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("file source: %w", err)
		}
		waiting = s.sayWaiting(in, waiting)
		if err := clock.Sleep(ctx, in.Env().Clock, s.cfg.Poll); err != nil {
			return nil, err
		}
	}
}

// resume opens the file that the cursor points into, or else the present file, at 0. It waits while there is none.
func (s *Source) resume(ctx context.Context, in source.Intake) (*tail, error) {
	rec, have, err := loadRecord(in.Env())
	if err != nil {
		in.Report(err)
	}
	waiting := false
	for {
		f, err := s.open(s.cfg.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("file source: %w", err)
		}
		if err == nil {
			if !have {
				return s.tail(in, f, 0, 0)
			}
			if rec.names(f) {
				return s.tail(in, f, 0, rec.Offset)
			}
		}
		if have {
			if old, found := s.rotatedAway(rec); found {
				if f != nil {
					_ = f.Close() // only read from
				}
				t, err := s.tail(in, old, 0, rec.Offset)
				if err == nil {
					t.rotated = true
				}
				return t, err
			}
		}
		if f != nil {
			in.Report(s.lost(rec, f))
			return s.tail(in, f, 0, 0)
		}
		waiting = s.sayWaiting(in, waiting)
		if err := clock.Sleep(ctx, in.Env().Clock, s.cfg.Poll); err != nil {
			return nil, err
		}
	}
}

// sayWaiting says, once for each wait, that there is no file. It returns true.
func (s *Source) sayWaiting(in source.Intake, said bool) bool {
	if !said {
		in.Env().Logger.Info("waiting for "+s.cfg.Path+": there is no such file yet", "source", in.Env().Name)
	}
	return true
}

// lost says what happened to the file of rec, given the present one.
func (s *Source) lost(rec record, f *os.File) error {
	if id, err := identify(f); err == nil && id.Inode == rec.Inode {
		return &TruncatedError{Path: s.cfg.Path, Offset: rec.Offset}
	}
	return &GapError{Path: s.cfg.Path, Offset: rec.Offset, Why: fmt.Sprintf("no file beside it has inode %d and begins as it did", rec.Inode)}
}
