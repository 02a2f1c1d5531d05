// Package stdout is the sink that writes messages to the standard output, each followed by a delimiter.
//
// A message is done when the operating system has all of it. A write that falls short leaves the beginning of a message behind; its rest
// goes out before anything else, so that who reads never sees two messages merged. That message has failed and comes again, whole.
package stdout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
)

const (
	bufferSize   = 64 << 10
	maxDelimiter = 64
)

// Config is the settings of a sink.
type Config struct {
	// W is where messages go; nil means the standard output of the process. Write may be called with any number of bytes.
	W io.Writer
	// Delimiter ends each message; empty means a newline. At most 64 bytes. Payloads are written as they are: one that contains the
	// delimiter reads back as two.
	Delimiter string
}

// Error is a write that failed. Messages that fail with it can be tried again. errors.Is sees the cause, for example syscall.EPIPE.
type Error struct {
	Hint string // what to do about it; may be empty
	Err  error
}

// Error names the cause, and what to do.
func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("stdout sink: write: %v", e.Err)
	}
	return fmt.Sprintf("stdout sink: write: %v: %s", e.Err, e.Hint)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Sink writes to the standard output. Its methods are called one at a time, as [sink.Sink] says.
type Sink struct {
	w       io.Writer
	owned   io.Closer // what Open has opened
	delim   []byte
	buf     []byte // messages that are not written; its capacity is fixed
	pending []span // the messages that are in buf, or before it in the same write
	rest    []byte // of a message that was written in part
	now     func() time.Time
	gone    atomic.Pointer[sink.Status] // what Status says; nil while somebody may be reading
}

// span is the messages lo to hi-1 of a batch.
type span struct {
	batch  *sink.Batch
	lo, hi int
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Reporter = (*Sink)(nil)
)

// Closed is the state of a sink whose reader has gone: nothing can be written any more.
const Closed = "closed"

// Status says whether the reader has gone; else nothing.
func (s *Sink) Status() sink.Status {
	if st := s.gone.Load(); st != nil {
		return *st
	}
	return sink.Status{}
}

// New makes a sink. It fails if cfg makes no sense.
func New(cfg Config) (*Sink, error) {
	if len(cfg.Delimiter) > maxDelimiter {
		return nil, fmt.Errorf("stdout sink: config: delimiter has %d bytes: at most %d", len(cfg.Delimiter), maxDelimiter)
	}
	if cfg.Delimiter == "" {
		cfg.Delimiter = "\n"
	}
	return &Sink{w: cfg.W, delim: []byte(cfg.Delimiter)}, nil
}

// Open takes the standard output, unless there is a writer.
func (s *Sink) Open(_ context.Context, env sink.Env) error {
	if s.now = time.Now; env.Clock != nil {
		s.now = env.Clock.Now
	}
	if s.w == nil {
		f, err := openStdout()
		if err != nil {
			return fmt.Errorf("stdout sink: open: %w", err)
		}
		s.w, s.owned = f, f
	}
	s.buf = make([]byte, 0, bufferSize)
	return nil
}

// Write takes the messages of b. Those that fill the buffer, and large ones, are written; the rest waits for Flush. It fails with an
// [Error], and has then settled all messages that were given before.
func (s *Sink) Write(_ context.Context, b *sink.Batch) error {
	for i := range b.Len() {
		p := b.Payload(i)
		need := len(p) + len(s.delim)
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
		if !large {
			s.buf = append(append(s.buf, p...), s.delim...)
			continue
		}
		if n, err := s.w.Write(p); err != nil || n < len(p) {
			return s.failed(n, err)
		}
		s.buf = append(s.buf, s.delim...)
		if err := s.drainFrom(len(p)); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes out what is in the buffer. It fails with an [Error], and has then settled all messages.
func (s *Sink) Flush(context.Context) error { return s.drain() }

// Close writes out what is in the buffer.
func (s *Sink) Close(context.Context) error {
	err := s.drain()
	if s.owned != nil {
		err = errors.Join(err, s.owned.Close())
		s.w, s.owned = nil, nil
	}
	return err
}

// drain writes the buffer out, after what is left of a message that was written in part.
func (s *Sink) drain() error {
	if len(s.rest) > 0 {
		n, err := s.w.Write(s.rest)
		s.rest = s.rest[:copy(s.rest, s.rest[n:])]
		if len(s.rest) > 0 {
			return s.failed(0, err)
		}
	}
	return s.drainFrom(0)
}

// drainFrom writes the buffer out; before bytes of the pending messages have been written without it.
func (s *Sink) drainFrom(before int) error {
	if len(s.buf) == 0 {
		return nil
	}
	if n, err := s.w.Write(s.buf); err != nil || n < len(s.buf) {
		return s.failed(before+n, err)
	}
	s.settle(0, len(s.pending), nil)
	s.forget()
	return nil
}

func (s *Sink) settle(from, to int, err error) {
	for _, p := range s.pending[from:to] {
		p.batch.Done(p.lo, p.hi, err)
	}
}

func (s *Sink) forget() {
	clear(s.pending) // let go of the batches
	s.pending, s.buf = s.pending[:0], s.buf[:0]
}

// failed settles what is pending after a write that ended n bytes behind the first pending message's beginning: what is out as a whole
// is done, the rest fails. It keeps the rest of a message that is out in part.
func (s *Sink) failed(n int, cause error) error {
	if cause == nil {
		cause = io.ErrShortWrite
	}
	e := explain(cause)
	if errors.Is(cause, syscall.EPIPE) && s.gone.Load() == nil {
		s.gone.Store(&sink.Status{State: Closed, Detail: e.Error(), Since: s.now()})
	}
	for _, p := range s.pending {
		i := p.lo
		for ; i < p.hi; i++ {
			need := len(p.batch.Payload(i)) + len(s.delim)
			if n < need {
				break
			}
			n -= need
		}
		p.batch.Done(p.lo, i, nil)
		if i < p.hi {
			if n > 0 {
				s.keep(p.batch.Payload(i), n)
			}
			n = 0
			p.batch.Done(i, p.hi, e)
		}
	}
	s.forget()
	return e
}

// keep copies what follows the first n bytes of a message and its delimiter.
func (s *Sink) keep(p []byte, n int) {
	if n < len(p) {
		s.rest = append(append(s.rest[:0], p[n:]...), s.delim...)
		return
	}
	s.rest = append(s.rest[:0], s.delim[n-len(p):]...)
}

func explain(cause error) *Error {
	e := &Error{Err: cause}
	switch {
	case errors.Is(cause, syscall.EPIPE):
		e.Hint = "who read the standard output has closed the pipe or ended; nothing more can be written to it"
	case errors.Is(cause, syscall.ENOSPC):
		e.Hint = "the disk that the standard output goes to is full: make room, and the messages are tried again"
	}
	return e
}

// Settings is what a pipeline's file says about a stdout sink.
type Settings struct {
	Delimiter string `yaml:"delimiter" jsonschema_description:"What ends each message, at most 64 bytes."`
}

// Check says what is wrong with the settings.
func (s Settings) Check() []kind.Problem {
	if len(s.Delimiter) > maxDelimiter {
		return []kind.Problem{{Field: "delimiter", Message: fmt.Sprintf("delimiter has %d bytes: at most %d", len(s.Delimiter), maxDelimiter)}}
	}
	return nil
}

// Claims is the standard output: two sinks would write into each other's messages.
func (Settings) Claims() []string { return []string{"stdout"} }

var (
	_ kind.Checked = Settings{}
	_ kind.Claimer = Settings{}
)

// Kind describes the stdout sink to pipelines that are written in YAML.
func Kind() kind.Kind {
	return kind.Sink(kind.About{
		Name:    "stdout",
		Summary: "Writes messages to the standard output, each followed by a delimiter.",
		Doc:     "A message is settled when the operating system has it. A reader that is slow slows the pipeline.",
		Example: "from: late\nstdout: {}\n",
	}, Settings{Delimiter: "\n"}, func(s Settings, _ kind.Env) (sink.Sink, error) { return New(Config{Delimiter: s.Delimiter}) })
}
