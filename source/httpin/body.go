package httpin

import (
	"compress/gzip"
	"errors"
	"io"
)

// errSlabFull says that what is left of a slab is the header block's: the reader must go on in another.
var errSlabFull = errors.New("the slab is full")

// maxPiece is the most that is asked for of a chunked body at once: net/http returns no byte of a chunk before it is whole or the buffer
// full, and a body that comes slowly would seem to stand still.
const maxPiece = 32 << 10

// wire is the body as the client sends it, bounded. It counts bytes for the watch, and remembers what ended it.
type wire struct {
	body    io.Reader
	watch   *watch
	limit   int64 // bytes that may still come
	first   []byte
	err     error // of body, also io.EOF
	chunked bool
	room    [512]byte
}

var _ io.Reader = (*wire)(nil)

// peek waits for the first bytes, so that nobody holds a slab for a body that has not begun.
func (w *wire) peek() {
	n, _ := w.receive(w.room[:])
	w.first = w.room[:n]
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.first) > 0 {
		n := copy(p, w.first)
		w.first = w.first[n:]
		return n, nil
	}
	return w.receive(p)
}

// receive reads from the connection.
func (w *wire) receive(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.chunked && len(p) > maxPiece {
		p = p[:maxPiece]
	}
	if int64(len(p)) > w.limit+1 {
		p = p[:w.limit+1]
	}
	w.watch.enter(reading)
	n, err := w.body.Read(p)
	w.watch.bytes.Add(uint64(n))
	w.watch.enter(waiting) // a lease is what may come next
	w.limit -= int64(n)
	switch {
	case w.limit < 0:
		n, err = n-1, errBodyTooLarge
		w.limit = 0
	case err != nil && !errors.Is(err, io.EOF):
		if reason := w.watch.why(); reason != nil {
			err = reason
		} else {
			err = &brokenError{err}
		}
	}
	w.err = err
	return n, err
}

// brokenError says that a body ends before it should, or is not framed as HTTP says.
type brokenError struct{ err error }

// Error names the reason.
func (e *brokenError) Error() string { return "the body broke off or is malformed: " + e.err.Error() }

// Unwrap is the reason.
func (e *brokenError) Unwrap() error { return e.err }

// plain is the body as messages are found in it: decompressed, bounded once more, and with room left for the header block in each slab.
//
//	slab   [ read ... | p ───────────────────────> ]      p, as a reader of package decode gives it, goes on to the end of the slab,
//	                              [ header block   ]      where its last bytes are never filled once a frame needs them
type plain struct {
	wire    *wire
	zip     *gzip.Reader // nil if the body is not compressed
	limit   int64        // decompressed bytes that may still come
	reserve int          // bytes of the header block
	placed  bool         // the block stands in the slab that is being filled
	rest    []byte       // what the last read left of the slab
	read    bool         // there was a read since somebody cared
	first   int          // what the first read was offered: a whole slab
}

var _ io.Reader = (*plain)(nil)

func (b *plain) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.first == 0 {
		b.first = len(p)
	}
	b.read = true
	if len(b.rest) == 0 || &b.rest[0] != &p[0] {
		b.placed = false // another slab
	}
	if free := len(p) - b.reserve; free > 0 {
		n, err := b.fetch(p[:free])
		b.rest = p[n:]
		return n, err
	}
	if b.placed {
		b.rest = p
		return 0, errSlabFull
	}
	n, err := b.fetch(p) // a frame that needs all of the slab
	b.rest = p[n:]
	return n, err
}

func (b *plain) fetch(p []byte) (int, error) {
	if b.zip == nil {
		return b.wire.Read(p)
	}
	n, err := b.zip.Read(p)
	if b.limit -= int64(n); b.limit < 0 {
		return 0, errBodyTooLarge
	}
	return n, b.failed(err)
}

// failed is err of the decompressor, or what it comes from.
func (b *plain) failed(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return err
	case b.wire.err == nil, errors.Is(b.wire.err, io.EOF):
		return &encodingError{err}
	}
	return b.wire.err
}

// encodingError says that a body is not what its Content-Encoding says.
type encodingError struct{ err error }

// Error names the reason.
func (e *encodingError) Error() string {
	return "the body is not gzip as its Content-Encoding says: " + e.err.Error()
}

// Unwrap is the reason.
func (e *encodingError) Unwrap() error { return e.err }
