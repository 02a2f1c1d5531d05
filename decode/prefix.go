package decode

import (
	"encoding/binary"

	"github.com/penstock-dev/penstock/arena"
)

// U32 is the framing by a length prefix of four bytes, big-endian, which counts the payload only.
func U32() Framing { return prefixed{"u32", 4, u32Length} }

// Varint is the framing by a length prefix in unsigned LEB128, as Protocol Buffers delimit messages: seven bits a byte, lowest first,
// at most ten bytes. It counts the payload only.
func Varint() Framing { return prefixed{"varint", binary.MaxVarintLen64, varintLength} }

// prefixed is a framing by a length before each payload.
type prefixed struct {
	name   string
	most   int // bytes of the longest prefix
	length func(data []byte) (length uint64, size int)
}

func (f prefixed) Name() string  { return f.name }
func (f prefixed) overhead() int { return f.most }

func (f prefixed) split(in span, b *arena.Batch) progress {
	frames, receipts := b.Frames, b.Receipts
	p := progress{need: 1}
	for range in.limit {
		rest := in.data[p.used:]
		length, size := f.length(rest)
		end := size + int(min(length, uint64(in.max)))
		if size > 0 && length <= uint64(in.max) && end <= len(rest) {
			frames = append(frames, arena.Frame{Off: in.base + uint32(p.used+size), Len: uint32(length)})
			p.used += end
			receipts = append(receipts, in.pos+uint64(p.used))
			continue
		}
		switch {
		case size < 0:
			p.err = f.refuse(in, p.used, 0, ErrBadLength)
		case size > 0 && length > uint64(in.max):
			p.err = f.refuse(in, p.used, length, ErrTooLarge)
		case in.final && len(rest) > 0:
			p.err = f.refuse(in, p.used, length, ErrTruncated)
		case size > 0:
			p.need, p.exact = end, true
		case f.most == 4:
			p.need = 4
		default:
			p.need = len(rest) + 1
		}
		break
	}
	b.Frames, b.Receipts = frames, receipts
	return p
}

func (f prefixed) refuse(in span, at int, length uint64, why error) *Error {
	return &Error{Framing: f.name, Offset: in.pos + uint64(at), Length: length, Max: in.max, Err: why}
}

// u32Length reads a prefix; size 0 means that it is not all there.
func u32Length(data []byte) (length uint64, size int) {
	if len(data) < 4 {
		return 0, 0
	}
	return uint64(binary.BigEndian.Uint32(data)), 4
}

// varintLength reads a prefix; size 0 means that it is not all there, a negative one that it does not fit 64 bits.
func varintLength(data []byte) (length uint64, size int) {
	for i, c := range data[:min(len(data), binary.MaxVarintLen64)] {
		if i == binary.MaxVarintLen64-1 && c > 1 {
			return 0, -1
		}
		length |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return length, i + 1
		}
	}
	return 0, 0
}
