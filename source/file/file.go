// Package file is the source that reads a file: once from the beginning to the end, or following it as it grows, across rotation and
// truncation, with its place kept over restarts.
//
//	path      [ a b c ]──renamed──> path.1 [ a b c d ]       path [ e f ...
//	receipts    1 2 3                              4                5 6      as if the files were one after the other
//
// A receipt is the offset just behind a message in the concatenation of all files read in this run, so that receipts rise across
// rotation and the runtime's one contiguous prefix covers the tail of the old file before anything of the new one. (Epochs would not do:
// a new one revokes the old, and the tail of the rotated file could never be settled.)
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
)

// DefaultPoll is how often a followed file is looked at when all of it has been read.
const DefaultPoll = 250 * time.Millisecond

// Config says what to read.
type Config struct {
	Path       string
	Follow     bool          // wait for more at the end, and go on there after a restart
	Framing    string        // lines, u32, varint or whole; empty means lines
	Delimiter  string        // of lines; empty means a newline
	Poll       time.Duration // with Follow: how often to look for more; 0 means 250 ms
	MaxMessage int           // the largest message, in bytes; 0 means what the pipeline says
}

// Source reads a file. Lines that are too large are skipped, reported and counted; a length prefix that makes no sense ends Run.
//
// Without Follow it starts at 0 each time and ends with the file; it keeps no cursor. With Follow it ends with its context only, and
// Checkpoint and Close write down how far all is settled.
type Source struct {
	cfg      Config
	framing  decode.Framing
	tooLarge atomic.Uint64
	settled  atomic.Uint64 // the cursor, as a receipt; 0 until there is one

	mu          sync.Mutex
	env         source.Env    // set by Run
	generations []*generation // oldest first, from the one that the cursor is in

	done []os.FileInfo // files read to their end, as they were then; only Run uses it

	writing sync.Mutex
	written record // what the cursor file says, if this run wrote it
}

var (
	_ source.Source       = (*Source)(nil)
	_ source.Checkpointer = (*Source)(nil)
	_ source.Preparer     = (*Source)(nil)
)

// New checks cfg and makes a Source. It touches no file.
func New(cfg Config) (*Source, error) {
	if cfg.Path == "" {
		return nil, errors.New("file source: path is empty: say which file to read")
	}
	if cfg.Framing == "" {
		cfg.Framing = "lines"
	}
	if cfg.Poll <= 0 {
		cfg.Poll = DefaultPoll
	}
	framing, err := decode.Parse(cfg.Framing)
	if err != nil {
		return nil, fmt.Errorf("file source %s: %w", cfg.Path, err)
	}
	switch {
	case cfg.Follow && cfg.Framing == "whole":
		return nil, fmt.Errorf("file source %s: a followed file has no end, so framing whole finds no message: give lines, u32 or varint",
			cfg.Path)
	case cfg.Delimiter != "" && cfg.Framing != "lines":
		return nil, fmt.Errorf("file source %s: framing %s has no delimiter: leave it out, or give lines", cfg.Path, cfg.Framing)
	case cfg.Delimiter != "":
		framing = decode.Lines([]byte(cfg.Delimiter))
	}
	return &Source{cfg: cfg, framing: framing}, nil
}

// TooLarge is how many lines have been skipped because they were too large.
func (s *Source) TooLarge() uint64 { return s.tooLarge.Load() }

// Run reads the file. Without Follow it returns nil at the end of the file, and an error that wraps fs.ErrNotExist if there is none. With
// Follow it waits for a file that is missing.
func (s *Source) Run(ctx context.Context, in source.Intake) error {
	s.mu.Lock()
	s.env = in.Env()
	s.mu.Unlock()
	var err error
	if s.cfg.Follow {
		err = s.follow(ctx, in)
	} else {
		err = s.once(ctx, in)
	}
	if errors.Is(err, source.ErrStopped) || err != nil && ctx.Err() != nil {
		return nil
	}
	return err
}

// Prepare sees whether the file can be read, so that a pipeline with a wrong path does not start. A file that is followed may come later.
func (s *Source) Prepare(_ context.Context, _ source.Env) error {
	if s.cfg.Follow {
		return nil
	}
	info, err := os.Stat(s.cfg.Path)
	if err == nil && info.Mode().IsRegular() { // opening a pipe would wait for whoever writes to it
		var f *os.File
		if f, err = s.open(s.cfg.Path); err == nil {
			err = f.Close()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file source: %w: check the path, or set follow to wait for it", err)
	}
	if err != nil {
		return fmt.Errorf("file source: %w", err)
	}
	return nil
}

func (s *Source) once(ctx context.Context, in source.Intake) error {
	f, err := s.open(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file source: %w: check the path, or set Follow to wait for it", err)
	}
	if err != nil {
		return fmt.Errorf("file source: %w", err)
	}
	defer f.Close()
	// A pipe may block for ever; this has no effect on other files.
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	r := decode.NewReader(f, in, s.framing, s.options(in, 0, 0))
	defer r.Close()
	if err := s.pump(ctx, in, r, nil); err != nil {
		return s.located(err, 0)
	}
	return nil
}

// open opens a file for reading, but no directory.
func (s *Source) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.IsDir() || s.cfg.Follow && !info.Mode().IsRegular()) {
		err = fmt.Errorf("%s is no regular file (%v): give the path of a file", path, info.Mode().Type())
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, err
	}
	return f, nil
}

// options are those of a reader of a file whose offset 0 has the receipt start, from offset on.
func (s *Source) options(in source.Intake, start, offset uint64) decode.Options {
	env := in.Env()
	o := decode.Options{MaxMessage: s.cfg.MaxMessage, MaxBatch: env.MaxBatch, Offset: start + offset, SkipTooLarge: true}
	if o.MaxMessage == 0 {
		o.MaxMessage = env.MaxBytes
	}
	o.OnError = func(err error) {
		s.tooLarge.Add(1)
		in.Report(s.located(err, start))
	}
	return o
}

// located is err with the path, and with the offset in the file instead of that in the concatenation.
func (s *Source) located(err error, start uint64) error {
	var bad *decode.Error
	if errors.As(err, &bad) && start > 0 {
		here := *bad
		here.Offset -= start
		err = &here
	}
	return fmt.Errorf("file source %s: %w", s.cfg.Path, err)
}

// pump gives all that r has to in. It returns nil at the end of the input. before, if not nil, is called before each batch is given.
func (s *Source) pump(ctx context.Context, in source.Intake, r *decode.Reader, before func()) error {
	for {
		if err := in.Ready(ctx); err != nil {
			return err
		}
		b, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if before != nil {
			before()
		}
		if err := in.Accept(b); err != nil {
			return err
		}
	}
}

// Settle notes the cursor; it touches no file.
func (s *Source) Settle(st source.Settlement) {
	if !st.HasCursor {
		return
	}
	for { // never backwards
		old := s.settled.Load()
		if st.Cursor <= old || s.settled.CompareAndSwap(old, st.Cursor) {
			return
		}
	}
}

// Close writes the cursor down.
func (s *Source) Close(ctx context.Context) error { return s.Checkpoint(ctx) }
