package httpin

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
)

const (
	maxSized = 64 << 10 // the longest body that gets memory for what its Content-Length promises
	smallOf  = 8        // a batch that fills no more than this part of its slab is copied out of it
)

// request is one that is under way. What is not guarded belongs to its handler's goroutine.
type request struct {
	h     *handler
	r     *http.Request
	count count
	watch watch
	wire  wire
	plain plain
	zip   *gzip.Reader
	shut  bool // nothing will be settled any more

	ids     []uint64 // in the ledger, guarded by it
	receipt uint64   // of the next message; the handler's
	block   []byte   // of kept headers
	size    int      // of a slab, in bytes
	slab    *arena.Slab
	scratch [256]byte
}

// take reads the body and has its messages accepted. Unless begun is true the ledger does not know q.
func (q *request) take(w http.ResponseWriter) (begun bool, err error) {
	h := q.h
	ctx, cancel := context.WithCancelCause(h.base)
	defer cancel(nil)
	q.watch.configure(h.env.Clock, h.patience, h.settings.BodyTimeout)
	q.watch.account, q.watch.control, q.watch.cancel = h.in.Account(), http.NewResponseController(w), cancel
	q.wire.body, q.wire.watch, q.wire.limit = q.r.Body, &q.watch, int64(h.settings.MaxBody)
	q.wire.chunked = q.r.ContentLength < 0
	if !h.ledger.begin(q) {
		return false, nil
	}
	defer q.count.finish()
	defer h.ledger.stopReading()
	q.watch.start()
	defer q.watch.end()
	defer h.unzipped(q)
	err = q.read(ctx)
	switch cause := context.Cause(ctx); {
	case errors.Is(err, source.ErrStopped):
		h.stopped()
	case err != nil && cause != nil:
		err = cause
	}
	return true, err
}

// read takes one batch after the other.
func (q *request) read(ctx context.Context) error {
	q.watch.enter(waiting)
	if err := q.h.in.Ready(ctx); err != nil { // before anything is read: who is refused now has sent nothing in vain
		return err
	}
	q.wire.peek()
	q.keepHeaders()
	if n := q.r.ContentLength; n >= 0 && n <= maxSized && q.h.whole(q.r) {
		return q.single(ctx, int(n))
	}
	err := q.h.unzip(q)
	if errors.Is(err, io.EOF) && q.wire.err != nil {
		return ended(q.wire.err) // no byte has come
	}
	q.plain = plain{wire: &q.wire, zip: q.zip, limit: int64(q.h.settings.MaxBody), reserve: len(q.block)}
	if err != nil {
		return q.plain.failed(err)
	}
	d := decode.NewReader(&q.plain, q.h.in, q.h.framingOf(q.r), decode.Options{
		MaxMessage: q.h.env.MaxBytes + len(q.block), // the block fits a large lease too
		MaxBatch:   q.h.env.MaxBatch, ReadSize: math.MaxInt32,
	})
	defer d.Close()
	for ready := true; ; ready = false {
		b, err := q.next(ctx, d)
		if err != nil {
			return ended(err)
		}
		if !ready {
			q.watch.enter(waiting)
			if err := q.h.in.Ready(ctx); err != nil {
				b.Free()
				return err
			}
		}
		if err := q.give(ctx, d, b); err != nil {
			return err
		}
	}
}

// ended is err, unless that says that all has been read.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// next is the next batch. When only the header block's room is left in a slab, it goes on in another.
func (q *request) next(ctx context.Context, d *decode.Reader) (*arena.Batch, error) {
	for parked := false; ; parked = true {
		b, err := d.Next(ctx)
		if !errors.Is(err, errSlabFull) {
			return b, err
		}
		if parked { // there was no memory for the beginning of the next message
			if err := q.h.in.Account().Wait(ctx); err != nil {
				return nil, err
			}
		}
		d.Park()
	}
}

// keepHeaders writes the header block.
func (q *request) keepHeaders() {
	block := q.scratch[:0]
	for _, k := range q.h.headers {
		switch values := q.r.Header[k.canonical]; len(values) {
		case 0:
		case 1:
			block = arena.AppendHeader(block, k.name, []byte(values[0]))
		default:
			block = arena.AppendHeader(block, k.name, []byte(strings.Join(values, ", ")))
		}
	}
	q.block = block
}

// single takes a body of n bytes that is one message. Its memory is made for it: as many bytes as are promised, but those are few.
func (q *request) single(ctx context.Context, n int) error {
	if n == 0 {
		return nil
	}
	slab, err := q.lease(ctx, n+len(q.block), true)
	if err != nil {
		return err
	}
	buf := slab.Bytes()
	if _, err := io.ReadFull(&q.wire, buf[:n]); err != nil {
		slab.Release()
		if q.wire.err != nil && !errors.Is(q.wire.err, io.EOF) {
			return q.wire.err
		}
		return &brokenError{err}
	}
	copy(buf[n:], q.block)
	b := q.h.in.NewBatch()
	b.Slab = slab
	b.Frames = append(b.Frames, arena.Frame{Len: uint32(n)})
	b.Receipts = append(b.Receipts, 0)
	q.point(b, uint32(n))
	return q.accept(b)
}

// give has b accepted, with the header block. A message that is too large ends it, after those before it.
func (q *request) give(ctx context.Context, d *decode.Reader, b *arena.Batch) (err error) {
	for i := range b.Frames {
		if int(b.Frames[i].Len) > q.h.env.MaxBytes {
			b.Frames, b.Receipts, err = b.Frames[:i], b.Receipts[:i], errMessageTooLarge
			break
		}
	}
	if b.Len() == 0 {
		b.Free()
		return err
	}
	if placeErr := q.place(ctx, d, b); placeErr != nil {
		b.Free()
		return placeErr
	}
	return errors.Join(q.accept(b), err)
}

// place puts the header block into the memory of b, or b into memory of its own together with it.
func (q *request) place(ctx context.Context, d *decode.Reader, b *arena.Batch) error {
	p := &q.plain
	if !p.read && b.Slab != q.slab { // the reader has gone on to another slab, and what it holds there is not known
		p.rest, p.placed = nil, false
	}
	p.read, q.slab = false, b.Slab
	if q.size == 0 {
		q.size = p.first
	}
	buf, n := b.Slab.Bytes(), len(q.block)
	first, last := &b.Frames[0], &b.Frames[b.Len()-1]
	if span := int(last.Off + last.Len - first.Off); (span+n)*smallOf <= len(buf) {
		if slab, err := q.lease(ctx, max(span+n, 1), false); err == nil {
			q.moveTo(b, slab)
			return nil
		}
	}
	switch {
	case n == 0:
		return nil
	case p.placed:
		q.point(b, uint32(len(buf)-n))
		return nil
	case len(p.rest) >= n:
		copy(buf[len(buf)-n:], q.block)
		p.placed = true
		q.point(b, uint32(len(buf)-n))
		return nil
	}
	if len(buf) > q.size { // a lease of the message's own can grow; the reader goes on elsewhere
		at := int(last.Off+last.Len) + q.h.delimiter + d.Buffered()
		if err := b.Slab.Grow(at + n); err == nil {
			copy(b.Slab.Bytes()[at:], q.block)
			q.point(b, uint32(at))
			return nil
		}
	}
	slab, err := q.lease(ctx, int(last.Off+last.Len-first.Off)+n, true)
	if err != nil {
		return err
	}
	q.moveTo(b, slab)
	return nil
}

// moveTo copies the messages of b and the header block to slab, of which b takes the reference over.
func (q *request) moveTo(b *arena.Batch, slab *arena.Slab) {
	from := b.Frames[0].Off
	last := b.Frames[b.Len()-1]
	n := copy(slab.Bytes(), b.Slab.Bytes()[from:last.Off+last.Len])
	copy(slab.Bytes()[n:], q.block)
	b.ReleaseSlab()
	b.Slab = slab
	for i := range b.Frames {
		b.Frames[i].Off -= from
	}
	q.point(b, uint32(n))
}

// point says that the header block of all messages of b is at at.
func (q *request) point(b *arena.Batch, at uint32) {
	n := uint32(len(q.block))
	if n == 0 {
		return
	}
	for i := range b.Frames {
		b.Frames[i].HdrOff, b.Frames[i].HdrLen = at, n
	}
}

// lease leases n bytes. If it must, it waits while there is no room.
func (q *request) lease(ctx context.Context, n int, must bool) (*arena.Slab, error) {
	account := q.h.in.Account()
	for {
		slab, err := account.LeaseSized(n)
		if err == nil || !must || !errors.Is(err, arena.ErrBudget) {
			return slab, err
		}
		if err := account.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// accept numbers the messages of b and gives it on.
func (q *request) accept(b *arena.Batch) error {
	n := b.Len()
	if q.receipt&messageMask+uint64(n) > messageMask {
		q.h.ledger.renumber(q)
	}
	for i := range b.Receipts {
		b.Receipts[i] = q.receipt + uint64(i)
	}
	q.receipt += uint64(n)
	q.count.add(n) // before it may be settled
	if err := q.h.in.Accept(b); err != nil {
		q.count.add(-n)
		return fmt.Errorf("%d messages: %w", n, err)
	}
	q.h.accepted.Add(int64(n))
	return nil
}

// wait waits until all that was accepted is settled or returned, or will not be. It reports false if nobody waits for the answer.
func (q *request) wait() bool {
	select {
	case <-q.count.done:
		return true
	default:
	}
	expired := make(chan struct{})
	t := q.h.env.Clock.AfterFunc(q.h.settings.SettleTimeout, func() { close(expired) })
	defer t.Stop()
	var gone <-chan struct{}
	if q.r.ProtoMajor >= 2 { // a stream that was reset; in HTTP/1.1 the client may have closed its own half only
		gone = q.r.Context().Done()
	}
	select {
	case <-q.count.done:
	case <-expired:
	case <-q.h.ledger.shut:
		q.shut = true
	case <-gone:
		return false
	}
	return true
}

// outcome is how many messages were accepted, and how many of them are not settled.
func (q *request) outcome() (accepted, unsettled int) {
	accepted, settled, _ := q.count.tally()
	return accepted, accepted - settled
}
