package arena

import "fmt"

// Ref names a span of bytes in an arena. It is a small comparable value that may be kept for ever, copied, and used as a map key.
// It owns nothing: [Arena.Resolve] yields its bytes while the message that they belong to lives, and nothing after that, because
// the slab's generation has moved on. The zero Ref names nothing.
//
//	gen   44 bits   generation of the slab at the time the Ref was made
//	slot  32 bits   index of the slab
//	off   32 bits   first byte within the slab
//	n     32 bits   length
type Ref struct {
	gen  uint64
	slot uint32
	off  uint32
	n    uint32
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Len is the length in bytes of the span that r names.
func (r Ref) Len() int { return int(r.n) }

// String shows r as slot.generation[offset:end], for logs.
func (r Ref) String() string {
	return fmt.Sprintf("%d.%d[%d:%d]", r.slot, r.gen, r.off, uint64(r.off)+uint64(r.n))
}
