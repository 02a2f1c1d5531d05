// Package stdin is the source that reads an input until it ends, such as what is piped into the process.
//
// It cannot be read again: what was read and not settled when the process dies is lost. Over a crash that is at most once.
package stdin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
)

// Config says what to read.
type Config struct {
	Reader     io.Reader // the input; it is not closed
	Framing    string    // lines, u32, varint or whole; empty means lines
	Delimiter  string    // of lines; empty means a newline
	MaxMessage int       // the largest message, in bytes; 0 means what the pipeline says
}

// Source reads an input once. Receipts are offsets just behind a message. Lines that are too large are skipped and reported; a length
// prefix that makes no sense ends Run.
type Source struct {
	cfg     Config
	framing decode.Framing
	taken   *atomic.Bool // whether some source has the input; nil if nobody minds
	has     bool         // this one has it
}

var (
	_ source.Source   = (*Source)(nil)
	_ source.Preparer = (*Source)(nil)
)

// ErrTaken says that another source of the pipeline reads the input, and has a part of a message in hand that it could not pass on.
var ErrTaken = errors.New("stdin source: the standard input is being read: a source of it cannot be changed while the pipeline runs; " +
	"start the pipeline anew")

// Prepare takes the input. It fails with [ErrTaken] where another source has it.
func (s *Source) Prepare(context.Context, source.Env) error {
	if s.taken != nil && !s.taken.CompareAndSwap(false, true) {
		return ErrTaken
	}
	s.has = true
	return nil
}

// New checks cfg and makes a Source. It reads nothing.
func New(cfg Config) (*Source, error) {
	if cfg.Reader == nil {
		return nil, errors.New("stdin source: there is no reader: give one, such as os.Stdin")
	}
	if cfg.Framing == "" {
		cfg.Framing = "lines"
	}
	framing, err := decode.Parse(cfg.Framing)
	if err != nil {
		return nil, fmt.Errorf("stdin source: %w", err)
	}
	if cfg.Delimiter != "" {
		if cfg.Framing != "lines" {
			return nil, fmt.Errorf("stdin source: framing %s has no delimiter: leave it out, or give lines", cfg.Framing)
		}
		framing = decode.Lines([]byte(cfg.Delimiter))
	}
	return &Source{cfg: cfg, framing: framing}, nil
}

// deadliner is a reader whose reads can be ended.
type deadliner interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}

// Run reads to the end of the input. It returns when ctx ends, even where a read cannot be ended: such a read goes on, into memory of its
// own, and what it will have read is lost.
func (s *Source) Run(ctx context.Context, in source.Intake) error {
	env := in.Env()
	src, release := s.input(ctx)
	defer release()
	o := decode.Options{MaxMessage: s.cfg.MaxMessage, MaxBatch: env.MaxBatch, SkipTooLarge: true, OnError: func(err error) {
		in.Report(fmt.Errorf("stdin source: %w", err))
	}}
	if o.MaxMessage == 0 {
		o.MaxMessage = env.MaxBytes
	}
	r := decode.NewReader(src, in, s.framing, o)
	defer r.Close()
	for {
		err := in.Ready(ctx)
		if err == nil {
			err = s.batch(ctx, in, r)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, source.ErrStopped), ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("stdin source: %w", err)
		}
	}
}

func (s *Source) batch(ctx context.Context, in source.Intake, r *decode.Reader) error {
	b, err := r.Next(ctx)
	if err != nil {
		return err
	}
	return in.Accept(b)
}

// input is the reader in a form whose reads end with ctx.
func (s *Source) input(ctx context.Context) (src io.Reader, release func()) {
	r, reopened := reopen(s.cfg.Reader)
	if d, ok := r.(deadliner); ok && d.SetReadDeadline(time.Time{}) == nil {
		stop := context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })
		return d, func() {
			stop()
			if reopened != nil {
				_ = reopened.Close() // only read from
			}
		}
	}
	if reopened != nil {
		_ = reopened.Close() // only read from
	}
	p := &pump{ctx: ctx, asks: make(chan []byte), answers: make(chan answer, 1)}
	go p.run(s.cfg.Reader)
	return p, func() { close(p.asks) }
}

// pump reads in a goroutine of its own, into memory of its own, so that who waits for it need not wait to the end.
type pump struct {
	ctx     context.Context
	asks    chan []byte
	answers chan answer
	buf     []byte
	unread  []byte
	err     error
}

type answer struct {
	n   int
	err error
}

const pumpSize = 64 << 10

func (p *pump) run(r io.Reader) {
	for buf := range p.asks {
		n, err := r.Read(buf)
		p.answers <- answer{n, err}
	}
}

// Read gives what the goroutine has read. The memory of an answer is touched here only after it has come.
func (p *pump) Read(b []byte) (int, error) {
	if len(p.unread) == 0 && p.err == nil {
		if p.buf == nil {
			p.buf = make([]byte, pumpSize)
		}
		select {
		case p.asks <- p.buf:
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		}
		select {
		case a := <-p.answers:
			if a.n < 0 || a.n > len(p.buf) {
				return 0, fmt.Errorf("broken input: it says it read %d of at most %d bytes", a.n, len(p.buf))
			}
			p.unread, p.err = p.buf[:a.n], a.err
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		}
	}
	n := copy(b, p.unread)
	p.unread = p.unread[n:]
	if len(p.unread) > 0 {
		return n, nil
	}
	err := p.err
	p.err = nil
	return n, err
}

// Settle has nobody to tell.
func (s *Source) Settle(source.Settlement) {}

// Close lets another source have the input, which stays open: it is not ours.
func (s *Source) Close(context.Context) error {
	if s.taken != nil && s.has {
		s.taken.Store(false)
	}
	return nil
}
