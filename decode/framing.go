// Package decode finds messages in a stream of bytes and leaves them where they were read.
//
//	io.Reader ──> Reader ──> *arena.Batch ──> ...
//	                 └── Framing: where a frame begins and ends
//
// A [Framing] is pure: it looks at bytes and appends frames to a batch, many per call. A [Reader] owns the memory: it leases slabs,
// reads into them, and carries the beginning of a frame from one to the next.
package decode

import (
	"bytes"
	"fmt"

	"github.com/penstock-dev/penstock/arena"
)

// Framing says where messages begin and end. The four of this package are all there are. A Framing holds no state: one value may serve
// any number of readers at once.
type Framing interface {
	// Name is "lines", "u32", "varint" or "whole".
	Name() string

	// split appends the frames of in, and their receipts, to b. It keeps nothing of in.
	split(in span, b *arena.Batch) progress
	// overhead is how many bytes beyond the largest message must be readable to tell that a message is no larger.
	overhead() int
}

// span is what is to be split: unread bytes that start where a frame starts.
type span struct {
	data  []byte
	base  uint32 // where data begins in its slab
	pos   uint64 // where data begins in the stream
	seen  int    // how many bytes at the start of data an earlier call has searched in vain
	final bool   // nothing follows data
	max   int    // the largest payload, in bytes
	limit int    // the most frames to append
}

// progress is what came of a split.
type progress struct {
	used  int    // bytes of data that the appended frames take up, delimiters and prefixes too
	need  int    // bytes, from used on, without which another call is useless; 1 where the limit ended the call
	exact bool   // need is the whole of the next frame
	err   *Error // why the stream cannot go on at used
}

// Parse is the framing called name: "lines" (by newline), "u32", "varint" or "whole". The error lists the names.
func Parse(name string) (Framing, error) {
	switch name {
	case "lines":
		return Lines(nil), nil
	case "u32":
		return U32(), nil
	case "varint":
		return Varint(), nil
	case "whole":
		return Whole(), nil
	}
	return nil, fmt.Errorf("decode: there is no framing %q: give lines, u32, varint or whole", name)
}

// Lines is the framing by a delimiter, which is not part of the message; nil or empty means "\n". What follows the last delimiter is
// a message too if it is not empty. Two delimiters in a row have an empty message between them. Where the delimiter is "\n", one "\r"
// at the end of a message is cut. delim is copied.
func Lines(delim []byte) Framing {
	if len(delim) == 0 {
		delim = []byte{'\n'}
	}
	return lines{delim: bytes.Clone(delim), text: string(delim) == "\n"}
}

type lines struct {
	delim []byte
	text  bool // the delimiter is a newline: cut "\r"
}

func (lines) Name() string { return "lines" }

func (l lines) overhead() int {
	if l.text {
		return len(l.delim) + 1
	}
	return len(l.delim)
}

// find is the place of the first delimiter in data, or negative.
func (l lines) find(data []byte) int {
	if len(l.delim) == 1 {
		return bytes.IndexByte(data, l.delim[0])
	}
	return bytes.Index(data, l.delim)
}

// cut is the length of line without the "\r" that is not part of it.
func (l lines) cut(line []byte) int {
	if n := len(line); l.text && n > 0 && line[n-1] == '\r' {
		return n - 1
	}
	return len(line)
}

func (l lines) split(in span, b *arena.Batch) progress {
	frames, receipts := b.Frames, b.Receipts
	p := progress{need: 1}
	from := max(0, in.seen-len(l.delim)+1)
	for range in.limit {
		rest := in.data[p.used:]
		i := l.find(rest[from:])
		if i < 0 && (!in.final || len(rest) == 0) {
			p.need = len(rest) + 1
			if len(rest) >= in.max+l.overhead() {
				p.err = l.tooLarge(in, p.used)
			}
			break
		}
		end := len(rest)
		next := end
		if i >= 0 {
			end, next = from+i, from+i+len(l.delim)
		}
		from = 0
		n := l.cut(rest[:end])
		if n > in.max {
			p.err = l.tooLarge(in, p.used)
			break
		}
		frames = append(frames, arena.Frame{Off: in.base + uint32(p.used), Len: uint32(n)})
		p.used += next
		receipts = append(receipts, in.pos+uint64(p.used))
	}
	b.Frames, b.Receipts = frames, receipts
	return p
}

func (l lines) tooLarge(in span, at int) *Error {
	return &Error{Framing: "lines", Offset: in.pos + uint64(at), Length: uint64(in.max) + 1, Max: in.max, Err: ErrTooLarge}
}

// skip is how much of data belongs to a line that nobody wants; done says that the line ends there.
func (l lines) skip(data []byte, final bool) (n int, done bool) {
	if i := l.find(data); i >= 0 {
		return i + len(l.delim), true
	}
	if final {
		return len(data), true
	}
	return max(0, len(data)-len(l.delim)+1), false // the end may be the beginning of a delimiter
}

// Whole is the framing of an input that is one message: all bytes up to its end. An empty input has no message.
func Whole() Framing { return whole{} }

type whole struct{}

func (whole) Name() string  { return "whole" }
func (whole) overhead() int { return 1 }

func (whole) split(in span, b *arena.Batch) progress {
	n := len(in.data)
	switch {
	case n > in.max:
		return progress{err: &Error{Framing: "whole", Offset: in.pos, Length: uint64(in.max) + 1, Max: in.max, Err: ErrTooLarge}}
	case !in.final || n == 0:
		return progress{need: n + 1}
	}
	b.Frames = append(b.Frames, arena.Frame{Off: in.base, Len: uint32(n)})
	b.Receipts = append(b.Receipts, in.pos+uint64(n))
	return progress{used: n, need: 1}
}
