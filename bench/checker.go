package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/penstock-dev/penstock"
)

// checker is the work of every handler, ours and those of the references: it looks at both ends of each payload, checks that none is
// lost, repeated or out of order, and counts. It belongs to one goroutine at a time.
type checker struct {
	next  uint64 // number of the message that must come
	mask  uint64 // messages in the input, less one
	count uint64
	wrong uint64
	sum   uint64 // of the tails
	_     [88]byte
}

func newChecker(in *input) checker { return checker{mask: uint64(in.n - 1)} }

// see is shown a payload.
func (c *checker) see(p []byte) {
	i := binary.LittleEndian.Uint64(p)
	if i != c.next {
		c.wrong++
	}
	c.next = (i + 1) & c.mask
	c.count++
	c.sum += binary.LittleEndian.Uint64(p[len(p)-tail:])
}

// verify says whether c has seen the first n messages of in, each once and in order.
func (c *checker) verify(in *input, n int) error {
	if c.count != uint64(n) || c.wrong > 0 {
		return fmt.Errorf("a handler has seen %d messages instead of %d, %d of them out of order", c.count, n, c.wrong)
	}
	if c.sum != in.sumOf(n) {
		return errors.New("a handler has seen payloads whose last bytes are not theirs")
	}
	return nil
}

// lent is checker as a plugin.
type lent struct{ checker }

// Handle implements penstock.Handler.
func (h *lent) Handle(_ context.Context, m *penstock.Message) error {
	h.see(m.Payload())
	return nil
}

// handler is what the references call, by an interface as Penstock does.
type handler interface {
	Handle(ctx context.Context, payload []byte) error
}

// bare is checker as a handler of a reference.
type bare struct{ checker }

// Handle implements handler.
func (h *bare) Handle(_ context.Context, payload []byte) error {
	h.see(payload)
	return nil
}

// bares makes n handlers, each in memory of its own.
func bares(in *input, n int) []*bare {
	out := make([]*bare, n)
	for i := range out {
		out[i] = &bare{newChecker(in)}
	}
	return out
}

func verifyBares(handlers []*bare, in *input, n int) error {
	var errs []error
	for _, h := range handlers {
		errs = append(errs, h.verify(in, n))
	}
	return errors.Join(errs...)
}
