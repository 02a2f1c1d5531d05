package httpout

import (
	"errors"
	"io"
	"sync"

	"github.com/penstock-dev/penstock/sink"
)

// item is one message of a request.
type item struct {
	batch *sink.Batch
	i     int
	fold  bool // it is JSON with line ends, which are sent as spaces
}

func (it *item) payload() []byte { return it.batch.Payload(it.i) }

// lent is what a request's bodies read from: lent messages, or a buffer that is used again. The client may go on reading a body after it
// has returned; release puts an end to that.
type lent struct {
	mu     sync.Mutex
	items  []item
	format Format
	marks  [4]byte
	packed []byte // instead of items, if not nil
	over   bool
}

// errReleased is what a client sees that reads too late.
var errReleased = errors.New("the request is over, its messages are not to be read any more")

// The places in marks.
const (
	newline = iota
	opening
	comma
	closing
)

func newLent(items []item, format Format) *lent {
	return &lent{items: items, format: format, marks: [4]byte{'\n', '[', ',', ']'}}
}

// mark is one of marks.
func (l *lent) mark(i int) (p []byte, fold, ok bool) { return l.marks[i : i+1], false, true }

// release waits for a Read that is under way, and fails later ones.
func (l *lent) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.items, l.packed = true, nil, nil
}

// piece is piece k of the body; ok is false behind the last one.
func (l *lent) piece(k int) (p []byte, fold, ok bool) {
	n := len(l.items)
	if l.packed != nil {
		return l.packed, false, k == 0
	}
	switch l.format {
	case NDJSON:
		if k >= 2*n {
			return nil, false, false
		}
		if k%2 == 1 {
			return l.mark(newline)
		}
		return l.items[k/2].payload(), l.items[k/2].fold, true
	case JSONArray:
		switch {
		case k > 2*n:
			return nil, false, false
		case k == 2*n:
			return l.mark(closing)
		case k == 0:
			return l.mark(opening)
		case k%2 == 0:
			return l.mark(comma)
		}
		return l.items[k/2].payload(), false, true
	default:
		if k >= n {
			return nil, false, false
		}
		return l.items[k].payload(), false, true
	}
}

// size is the length of the body in bytes.
func (l *lent) size() (n int64) {
	for k := 0; ; k++ {
		p, _, ok := l.piece(k)
		if !ok {
			return n
		}
		n += int64(len(p))
	}
}

// body reads a lent from its beginning. It copies straight from where the messages lie to the client's buffer.
type body struct {
	l   *lent
	k   int // piece
	off int // within it
}

var _ io.ReadCloser = (*body)(nil)

// Read copies the next bytes.
func (b *body) Read(dst []byte) (n int, err error) {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	if b.l.over {
		return 0, errReleased
	}
	for n < len(dst) {
		p, fold, ok := b.l.piece(b.k)
		if !ok {
			return n, io.EOF
		}
		c := copy(dst[n:], p[b.off:])
		if fold {
			spaces(dst[n : n+c])
		}
		n, b.off = n+c, b.off+c
		if b.off == len(p) {
			b.k, b.off = b.k+1, 0
		}
	}
	return n, nil
}

// Close does nothing: the messages are released by who sent them.
func (*body) Close() error { return nil }

// spaces replaces line ends.
func spaces(p []byte) {
	for i, c := range p {
		if c == '\n' || c == '\r' {
			p[i] = ' '
		}
	}
}

// finish makes the messages of items done, in ranges.
func finish(items []item, err error) {
	for len(items) > 0 {
		n := 1
		for n < len(items) && items[n].batch == items[0].batch && items[n].i == items[0].i+n {
			n++
		}
		items[0].batch.Done(items[0].i, items[0].i+n, err)
		items = items[n:]
	}
}
