package decode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/penstock-dev/penstock/arena"
)

// Defaults of [Options].
const (
	DefaultMaxMessage = 1 << 20
	DefaultMaxBatch   = 256
	DefaultReadSize   = 64 << 10
)

const (
	maxMaxMessage = 1 << 30 // frames are counted in 32 bits
	emptyReads    = 100     // reads without bytes and without error in a row that end in io.ErrNoProgress
	minRead       = 512     // a slab with less room than this is left, unless a frame has begun in it
)

// Memory is where a Reader puts what it reads. source.Intake is one.
type Memory interface {
	Account() *arena.Account
	NewBatch() *arena.Batch
}

// Options of a Reader. The zero value means all defaults.
type Options struct {
	MaxMessage   int             // the largest payload, in bytes; 0 means 1 MiB, the most is 1 GiB
	MaxBatch     int             // the most messages in a batch; 0 means 256
	ReadSize     int             // the most bytes asked for in one Read; 0 means 64 KiB
	Offset       uint64          // where in the stream the input begins
	SkipTooLarge bool            // with Lines: report a line that is too large, skip it and go on
	OnError      func(err error) // is told of what was skipped, an *Error valid for ever; may be nil
	KeepPartial  bool            // the end of input may move: what is left there is no message yet, see Reader.Finish
}

// Reader makes batches of a stream.
//
//	slab   [ lent in batches |  start ─ unread ─ end  |   room   ]   the Reader holds one reference, each batch one
//
// A frame that is split over reads stays where it is while the slab has room; at the slab's end its beginning is copied once to the next
// one. A frame that outgrows a slab moves to a large lease, which grows as bytes arrive and becomes a batch of its own. A Reader holds at
// most one slab, or one large lease of up to MaxMessage and a few bytes (both for as long as the copy takes). Its account needs room for
// that and one slab more, or it waits for ever.
//
// A Reader belongs to one goroutine at a time.
type Reader struct {
	src   io.Reader
	mem   Memory
	frame Framing
	opt   Options
	lines *lines // if too large ones are to be skipped

	slab       *arena.Slab
	buf        []byte // all of slab
	start, end int    // what of buf is unread
	lent       bool   // a batch refers to slab
	large      bool   // slab is a large lease
	carried    bool   // slab is the small one that Park took
	slabSize   int    // 0 until known

	pos      uint64 // of start, in the stream
	seen     int    // unread bytes that have been searched in vain
	need     int    // see progress
	exact    bool
	skipping bool // start is within a line that is too large
	final    bool // nothing follows the unread bytes
	readErr  error
	err      error // for good
	idle     int
	spare    *arena.Batch
}

// NewReader makes a Reader. It leases nothing yet. Close releases what it will have leased; r is not closed.
func NewReader(r io.Reader, mem Memory, f Framing, o Options) *Reader {
	o.MaxMessage = min(orDefault(o.MaxMessage, DefaultMaxMessage), maxMaxMessage)
	o.MaxBatch = orDefault(o.MaxBatch, DefaultMaxBatch)
	o.ReadSize = orDefault(o.ReadSize, DefaultReadSize)
	d := &Reader{src: r, mem: mem, frame: f, opt: o, pos: o.Offset, need: 1}
	if l, ok := f.(lines); ok && o.SkipTooLarge {
		d.lines = &l
	}
	return d
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// Next is the next batch: at least one message, at most MaxBatch. Their receipts are the offsets in the stream just behind each frame,
// its delimiter included. The caller owns the batch, which holds a reference to its slab.
//
// Next reads only when it has no whole frame left, and asks for no more once it has one. It blocks while the input does (ctx does not end
// a Read: close the input, or set a deadline) and while the account has no room (ctx ends that).
//
// It fails with io.EOF at the end, an *Error if the stream is broken, which is final, an error that wraps the input's, or ctx's. After the
// last two, Next may be called again: nothing has been lost. Frames that came before an error come before it.
func (r *Reader) Next(ctx context.Context) (*arena.Batch, error) {
	for r.err == nil {
		if r.large && r.start > 0 { // the large lease has become a batch: what was read too much goes to a slab
			if err := r.move(ctx); err != nil {
				return nil, err
			}
		}
		if b := r.take(); b != nil {
			return b, nil
		}
		switch err := r.readErr; {
		case r.err != nil:
		case r.final:
			r.drop()
			r.err = io.EOF
		case err == nil:
			if err := r.fill(ctx); err != nil {
				return nil, err
			}
		case errors.Is(err, io.EOF) && r.opt.KeepPartial:
			r.readErr = nil
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			r.readErr, r.final = nil, true
		default:
			r.readErr = nil
			return nil, fmt.Errorf("decode %s: reading at offset %d: %w", r.frame.Name(), r.pos+uint64(r.end-r.start), err)
		}
	}
	return nil, r.err
}

// Offset is where in the stream the first byte lies that is in no batch yet.
func (r *Reader) Offset() uint64 { return r.pos }

// Buffered is how many bytes have been read and are in no batch yet.
func (r *Reader) Buffered() int { return r.end - r.start }

// Finish says that the end of input will not move any more: from now on KeepPartial is off.
func (r *Reader) Finish() { r.opt.KeepPartial = false }

// Close releases all that the Reader holds. Batches that it has given live on. Next fails afterwards.
func (r *Reader) Close() {
	r.drop()
	if r.spare != nil {
		r.spare.Free()
		r.spare = nil
	}
	r.start, r.end = 0, 0
	r.err = fmt.Errorf("decode %s: reader: %w", r.frame.Name(), fs.ErrClosed)
}

// take splits what is unread; nil if there is no whole frame, or r.err is set.
func (r *Reader) take() *arena.Batch {
	for r.end-r.start >= r.need || r.final {
		if r.skipping && !r.skip() {
			return nil
		}
		b := r.batch()
		limit := r.opt.MaxBatch
		if r.large {
			limit = 1
		}
		p := r.frame.split(span{
			data: r.buf[r.start:r.end], base: uint32(r.start), pos: r.pos, seen: r.seen, final: r.final, max: r.opt.MaxMessage, limit: limit,
		}, b)
		r.advance(p.used)
		r.need, r.exact = p.need, p.exact
		if p.need > 1 {
			r.seen = r.end - r.start
		}
		if p.err != nil {
			r.fail(p.err)
		}
		if len(b.Frames) > 0 {
			r.slab.Retain()
			b.Slab, r.lent, r.spare = r.slab, true, nil
			return b
		}
		if !r.skipping {
			return nil
		}
	}
	return nil
}

func (r *Reader) batch() *arena.Batch {
	if r.spare == nil {
		r.spare = r.mem.NewBatch()
	}
	return r.spare
}

func (r *Reader) advance(n int) {
	r.start += n
	r.pos += uint64(n)
	r.seen, r.need, r.exact = 0, 1, false
}

func (r *Reader) fail(err *Error) {
	if r.lines == nil || !errors.Is(err, ErrTooLarge) {
		r.err = err
		return
	}
	r.skipping, r.need = true, 1
	if r.opt.OnError != nil {
		r.opt.OnError(err)
	}
}

// skip goes to the end of a line that is too large; it reports false if that has not been read yet.
func (r *Reader) skip() bool {
	n, done := r.lines.skip(r.buf[r.start:r.end], r.final)
	r.advance(n)
	r.skipping = !done
	if !done {
		r.need = r.end - r.start + 1
	}
	return done
}

// fill reads once.
func (r *Reader) fill(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("decode %s: at offset %d: %w", r.frame.Name(), r.pos, context.Cause(ctx))
	}
	for again := false; !again || r.end == len(r.buf); again = true {
		if err := r.makeRoom(ctx); err != nil {
			return err
		}
	}
	most := min(len(r.buf), r.end+r.opt.ReadSize)
	if r.large {
		most = min(most, r.end+r.slabSize) // what is read too much fits a slab
		if r.exact {
			most = min(most, r.start+r.need)
		}
	}
	n, err := r.src.Read(r.buf[r.end:most])
	if n < 0 || n > most-r.end {
		return fmt.Errorf("decode %s: broken input: %T.Read says it read %d of at most %d bytes", r.frame.Name(), r.src, n, most-r.end)
	}
	r.end += n
	r.readErr = err
	if n > 0 || err != nil {
		r.idle = 0
	} else if r.idle++; r.idle >= emptyReads {
		r.idle, r.readErr = 0, io.ErrNoProgress
	}
	return nil
}
