// Package file is the sink that writes messages to a file, each followed by a delimiter.
//
//	messages ──> buffer ──────write(2)──> path     small ones are gathered
//	         └─────────large──write(2)──>          large ones go from where they lie
//
// A message is done when write(2) has taken all of it, or after the fsync where that was asked for. When a write falls short (a full
// disk) the file is cut back to the end of the last whole message: messages before that are done, those behind it fail with an [Error]
// and can be tried again without leaving a torn line or a duplicate.
//
// The file is opened and locked by the first Write, and held up to Close. If somebody renames or removes it, what comes a second later goes
// to a file of its name again. Open only looks whether that can be done, so that a sink may be
// opened on a file that another one still writes, and takes over when that one has been closed.
//
// A crash can leave the beginning of a message at the end of the file. Its message was never done and will come again. [Append] moves
// such bytes to path.torn and cuts them off, so that they neither merge with the next message nor are lost.
package file

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/fsx"
	"github.com/penstock-dev/penstock/sink"
)

const (
	filePerm = 0o644 // before umask
	dirPerm  = 0o755
)

// Sink writes to one file, or to a row of them. Its methods are called one at a time, as [sink.Sink] says.
//
//	[ done ............ | in the file, not synced | torn ]   buf: [ m m m ]
//	                    ^ done                            ^ log.Size
//	                      pending: the messages from here on, in order
type Sink struct {
	cfg   Config
	delim []byte
	fs    fsx.FS
	clock clock.Clock
	slog  *slog.Logger
	limit int64 // how far back the end of a record is looked for

	opened  bool     // Open has succeeded, and Close has not been called
	begun   bool     // the file has been taken since Open, and emptied where that was asked for
	log     *fsx.Log // nil before the first Write, after Close, and when a rotation could not open the new file
	born    time.Time
	looked  time.Time // when the path was last seen to name the file
	buf     []byte    // not yet written; its capacity is fixed
	pending []span
	done    int64 // the offset up to which everything is done
	dirty   bool  // something has been written since the last fsync
}

// span is the messages lo to hi-1 of a batch.
type span struct {
	batch  *sink.Batch
	lo, hi int
}

var _ sink.Sink = (*Sink)(nil)

// New makes a sink; it touches no file before Open. It fails if cfg makes no sense.
func New(cfg Config) (*Sink, error) { return newSink(cfg, fsx.OS{}) }

func newSink(cfg Config, fsys fsx.FS) (*Sink, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, delim: []byte(cfg.Delimiter), fs: fsys}, nil
}

// Open looks whether the file can be written, creating it if it is missing, and holds nothing of it. It fails with an [Error]; that is
// fs.ErrNotExist if the directory is missing.
func (s *Sink) Open(_ context.Context, env sink.Env) error {
	s.clock, s.slog = env.Clock, env.Logger
	if s.clock == nil {
		s.clock = clock.System{}
	}
	if s.slog == nil {
		s.slog = slog.New(slog.DiscardHandler)
	}
	s.slog = s.slog.With("sink", env.Name)
	s.limit = int64(max(env.MaxBytes, minSearch) + len(s.delim))
	if env.Takeover {
		s.cfg.Mode = Append
	}
	if s.cfg.CreateDir {
		if err := s.fs.MkdirAll(filepath.Dir(s.cfg.Path), dirPerm); err != nil {
			return s.openError(err)
		}
	}
	if err := s.probe(); err != nil {
		return s.openError(err)
	}
	s.buf = make([]byte, 0, s.cfg.Buffer)
	s.opened, s.begun, s.born = true, false, s.clock.Now()
	return nil
}

// Write takes the messages of b. Those that fill the buffer, and large ones, are written; the rest waits for Flush. It fails with an
// [Error], and has then settled all messages that were given before. The first Write opens and locks the file: it fails with [ErrLocked]
// while somebody else writes it.
func (s *Sink) Write(_ context.Context, b *sink.Batch) error {
	if err := s.ready(); err != nil {
		return err
	}
	if err := s.follow(); err != nil {
		return err
	}
	if r := s.cfg.Rotate.MaxAge; r > 0 && s.end() > 0 && s.clock.Now().Sub(s.born) >= r {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	for i := range b.Len() {
		p := b.Payload(i)
		need := len(p) + len(s.delim)
		if m := s.cfg.Rotate.MaxBytes; m > 0 && s.end() > 0 && s.end()+int64(need) > m {
			if err := s.rotate(); err != nil {
				return err
			}
		}
		if err := s.put(b, i, p, need); err != nil {
			return err
		}
	}
	return nil
}

// put appends message i of b, by way of the buffer or around it.
func (s *Sink) put(b *sink.Batch, i int, p []byte, need int) error {
	large := need > cap(s.buf)/4
	if large || len(s.buf)+need > cap(s.buf) {
		if err := s.drain(); err != nil {
			return err
		}
	}
	if k := len(s.pending) - 1; k >= 0 && s.pending[k].batch == b && s.pending[k].hi == i {
		s.pending[k].hi++
	} else {
		s.pending = append(s.pending, span{b, i, i + 1})
	}
	if large {
		s.dirty = true
		if _, err := s.log.Write(p); err != nil {
			return s.fail("write", err)
		}
	} else {
		s.buf = append(s.buf, p...)
	}
	s.buf = append(s.buf, s.delim...)
	return nil
}

// end is where the next message will begin.
func (s *Sink) end() int64 { return s.log.Size() + int64(len(s.buf)) }

// drain writes the buffer out. Then all pending messages are in the file, whole.
func (s *Sink) drain() error {
	if len(s.buf) == 0 {
		return nil
	}
	s.dirty = true
	if _, err := s.log.Write(s.buf); err != nil {
		return s.fail("write", err)
	}
	s.buf = s.buf[:0]
	if s.cfg.Sync != SyncFlush {
		s.settle()
	}
	return nil
}

// Flush writes out what is in the buffer, and calls fsync with [SyncFlush]. It fails with an [Error], and has then settled all messages.
func (s *Sink) Flush(context.Context) error {
	if s.log == nil || s.log.Torn() {
		return nil // nothing is pending: fail has settled it
	}
	return s.flush(s.cfg.Sync == SyncFlush)
}

func (s *Sink) flush(sync bool) error {
	if err := s.drain(); err != nil {
		return err
	}
	if sync && s.dirty {
		if err := s.log.Sync(); err != nil {
			return s.fail("sync", err)
		}
		s.dirty = false
	}
	s.settle()
	return nil
}

// settle makes everything that is pending done.
func (s *Sink) settle() {
	s.done = s.log.Size()
	for _, p := range s.pending {
		p.batch.Done(p.lo, p.hi, nil)
	}
	s.forget()
}

func (s *Sink) forget() {
	clear(s.pending) // let go of the batches
	s.pending = s.pending[:0]
	s.buf = s.buf[:0]
}

// hint says what to do when a write has failed.
func hint(cause error) string {
	const again = "messages that are not in the file are tried again"
	switch {
	case errors.Is(cause, syscall.ENOSPC):
		return "the disk is full: make room; " + again
	case errors.Is(cause, syscall.EFBIG):
		return "the file may not grow any more: raise the limit (ulimit -f), or have it rotated; " + again
	}
	return again
}

// fail settles everything that is pending, after a write or an fsync that failed: what is in the file for sure is done, the file is cut
// back to its end, the rest fails. It returns the error.
func (s *Sink) fail(op string, cause error) error {
	whole, good := 0, s.done
	if op != "sync" {
		whole, good = s.whole()
	}
	cutErr := s.log.Cut(good)
	if s.cfg.Sync == SyncFlush && whole > 0 {
		if err := s.log.Sync(); err != nil {
			// The kernel may have dropped what it could not write, and says so once: only what was synced before can be relied on.
			op, cause, whole, good = "sync", err, 0, s.done
			cutErr = s.log.Cut(good)
		}
	}
	e := &Error{Op: op, Path: s.cfg.Path, Offset: good, Err: cause, Hint: hint(cause)}
	if cutErr != nil {
		s.slog.Warn("file sink: a torn message stays until the file can be cut back; nothing is written before that",
			"path", s.cfg.Path, "offset", good, "error", cutErr)
	}
	for _, p := range s.pending {
		n := min(whole, p.hi-p.lo)
		whole -= n
		p.batch.Done(p.lo, p.lo+n, nil)
		p.batch.Done(p.lo+n, p.hi, e)
	}
	s.forget()
	s.done = good
	if !s.log.Torn() {
		s.done = s.log.Size()
	}
	return e
}

// whole counts the pending messages that are in the file with their delimiter, and says where the last of them ends.
func (s *Sink) whole() (n int, end int64) {
	end = s.done
	for _, p := range s.pending {
		for i := p.lo; i < p.hi; i++ {
			next := end + int64(len(p.batch.Payload(i))+len(s.delim))
			if next > s.log.Size() {
				return n, end
			}
			n, end = n+1, next
		}
	}
	return n, end
}

// ready opens the file, the first time or after a rotation that could not, and takes off a torn message that could not be taken off before.
func (s *Sink) ready() error {
	if !s.begun {
		return s.begin()
	}
	if s.log == nil {
		return s.open(Append)
	}
	if !s.log.Torn() {
		return nil
	}
	if err := s.log.Mend(); err != nil {
		return &Error{Op: "cut", Path: s.cfg.Path, Offset: s.done, Err: err, Hint: "a torn message is at the end of the file; " +
			"nothing is written before it can be cut off"}
	}
	s.done = s.log.Size()
	return nil
}

// Close writes out what is in the buffer, calls fsync unless told never to, and closes the file. It fails with an [Error], and has then
// settled all messages and closed the file nevertheless. With [Truncate] it empties a file that nothing was written to, unless ctx has
// ended or somebody else writes it by now.
func (s *Sink) Close(ctx context.Context) error {
	if s.opened && !s.begun && s.cfg.Mode == Truncate && ctx.Err() == nil {
		if err := s.begin(); err != nil && !errors.Is(err, ErrLocked) {
			return err
		}
	}
	s.opened = false
	if s.log == nil {
		return nil
	}
	err := s.ready()
	if err == nil {
		err = s.flush(s.cfg.Sync != SyncNone)
	}
	if closeErr := s.log.Close(); err == nil && closeErr != nil {
		err = &Error{Op: "close", Path: s.cfg.Path, Offset: s.done, Err: closeErr}
	}
	s.log = nil
	return err
}
