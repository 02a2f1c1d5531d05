package decode

import (
	"context"
	"errors"

	"github.com/penstock-dev/penstock/arena"
)

// makeRoom sees to it that there is room behind r.end.
func (r *Reader) makeRoom(ctx context.Context) error {
	size, unread := len(r.buf), r.end-r.start
	switch {
	case r.slab == nil || r.carried || r.large && r.start > 0: // of a large lease only skipped bytes are left
		return r.move(ctx)
	case r.large:
		return r.grow(ctx)
	case !r.lent && r.start > 0 && (unread == 0 || r.end == size):
		copy(r.buf, r.buf[r.start:r.end]) // only skipped bytes lie before it: nobody else reads here
		r.start, r.end = 0, unread
		return nil
	case unread == 0 && size-r.end < min(minRead, size/8):
		return r.move(ctx)
	case r.exact && r.need <= size && r.start+r.need > size:
		return r.move(ctx)
	case r.end < size:
		return nil
	case r.start == 0 || r.need > size:
		return r.enlarge(ctx)
	default:
		return r.move(ctx)
	}
}

// move goes on in a fresh slab, and takes the unread bytes along.
func (r *Reader) move(ctx context.Context) error {
	if r.start == r.end {
		r.drop() // while we wait we hold nothing
	}
	s, err := r.lease(ctx, r.mem.Account().Lease)
	if err != nil {
		return err
	}
	r.swap(s)
	r.slabSize = len(r.buf)
	return nil
}

// enlarge moves a frame that fills a slab to a large lease.
func (r *Reader) enlarge(ctx context.Context) error {
	s, err := r.lease(ctx, func() (*arena.Slab, error) {
		return r.mem.Account().LeaseLarge(r.opt.MaxMessage + r.frame.overhead())
	})
	if err != nil {
		return err
	}
	if _, err := r.lease(ctx, func() (*arena.Slab, error) { return s, s.Grow(r.end - r.start) }); err != nil {
		s.Release()
		return err
	}
	r.swap(s)
	r.large = true
	return r.grow(ctx)
}

// grow makes a large lease longer: twice what has arrived, or as little as is possible while the budget is short.
func (r *Reader) grow(ctx context.Context) error {
	if r.end < len(r.buf) {
		return nil
	}
	target := min(2*r.end, r.opt.MaxMessage+r.frame.overhead())
	if r.exact {
		target = min(target, r.need)
	}
	if err := r.slab.Grow(target); err != nil {
		if _, err = r.lease(ctx, func() (*arena.Slab, error) { return r.slab, r.slab.Grow(r.end + 1) }); err != nil {
			return err
		}
	}
	r.buf = r.slab.Bytes()
	return nil
}

// Park lets go of the slab while the input is idle: between two calls of Next, for as long as one likes. The beginning of a frame goes to
// memory that is made for its size; if the budget has none, or the frame has a large lease already, it stays where it is.
func (r *Reader) Park() {
	n := r.end - r.start
	if n == 0 {
		r.drop()
		return
	}
	if r.slab == nil || r.large || r.carried {
		return
	}
	s, err := r.mem.Account().LeaseSized(n)
	if err != nil {
		return
	}
	r.swap(s)
	r.carried = true
}

// swap moves the unread bytes to the beginning of s and lets go of the slab before.
func (r *Reader) swap(s *arena.Slab) {
	buf := s.Bytes()
	n := copy(buf, r.buf[r.start:r.end])
	r.drop()
	r.slab, r.buf, r.start, r.end = s, buf, 0, n
}

func (r *Reader) drop() {
	if r.slab != nil {
		r.slab.Release()
	}
	r.slab, r.buf, r.lent, r.large, r.carried = nil, nil, false, false, false
	r.start, r.end = 0, 0
}

// lease asks until it is not for want of budget that it fails, and waits for room in between.
func (r *Reader) lease(ctx context.Context, ask func() (*arena.Slab, error)) (*arena.Slab, error) {
	for {
		s, err := ask()
		if err == nil || !errors.Is(err, arena.ErrBudget) {
			return s, err
		}
		if err := r.mem.Account().Wait(ctx); err != nil {
			return nil, err
		}
	}
}
