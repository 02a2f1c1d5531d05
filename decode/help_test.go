package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/penstock-dev/penstock/arena"
)

const testSlab = 4 << 10

// memory is an account of an arena of its own, and all batches that were asked for.
type memory struct {
	arena   *arena.Arena
	account *arena.Account
}

func (m *memory) Account() *arena.Account { return m.account }
func (m *memory) NewBatch() *arena.Batch  { return m.arena.NewBatch() }

func newMemory(t testing.TB, slab int, budget int64) *memory {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: budget, SlabSize: slab})
	if err != nil {
		t.Fatal(err)
	}
	ac, err := a.Account(arena.Sources, t.Name(), 0, budget)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return &memory{a, ac}
}

// frame is a decoded message, copied.
type frame struct {
	payload string
	receipt uint64
}

// collect reads until an error, parks where the input is idle, and checks what is true of every batch.
func collect(t testing.TB, r *Reader, most int) (got []frame, err error) {
	t.Helper()
	for {
		b, err := r.Next(context.Background())
		if errors.Is(err, errIdle) {
			r.Park()
			continue
		}
		if err != nil {
			return got, err
		}
		if b.Len() == 0 || b.Len() > most || len(b.Receipts) != b.Len() || b.Slab == nil {
			t.Fatalf("a batch of %d frames and %d receipts, at most %d wanted", b.Len(), len(b.Receipts), most)
		}
		for i := range b.Len() {
			got = append(got, frame{string(b.Payload(i)), b.Receipts[i]})
		}
		b.Free()
	}
}

// reference splits all of data in the plainest way. It returns the frames before the first error. With skip, lines that are too large
// are left out and err is nil.
func reference(f Framing, data []byte, limit int, skip bool) (want []frame, err *Error) {
	pos := 0
	fail := func(why error) *Error { return &Error{Offset: uint64(pos), Err: why} }
	for pos < len(data) {
		rest := data[pos:]
		var payload []byte
		next := len(rest)
		switch f := f.(type) {
		case lines:
			payload = rest
			if i := bytes.Index(rest, f.delim); i >= 0 {
				payload, next = rest[:i], i+len(f.delim)
			}
			if f.text {
				payload = bytes.TrimSuffix(payload, []byte("\r"))
			}
		case whole:
			payload = rest
		case prefixed:
			var n uint64
			size := 4
			if f.name == "u32" {
				if len(rest) < 4 {
					return want, fail(ErrTruncated)
				}
				n = uint64(binary.BigEndian.Uint32(rest))
			} else {
				n, size = binary.Uvarint(rest)
				if size < 0 || size == 0 && len(rest) >= 10 {
					return want, fail(ErrBadLength)
				}
				if size == 0 {
					return want, fail(ErrTruncated)
				}
			}
			if n > uint64(limit) {
				return want, fail(ErrTooLarge)
			}
			if uint64(len(rest)-size) < n {
				return want, fail(ErrTruncated)
			}
			next = size + int(n)
			payload = rest[size:next]
		}
		if len(payload) > limit {
			if !skip {
				return want, fail(ErrTooLarge)
			}
		} else {
			want = append(want, frame{string(payload), uint64(pos + next)})
		}
		pos += next
	}
	return want, nil
}

// chopped gives data in pieces of the lengths in cuts, in turns. A length of 0 is a read without bytes and without error; with together,
// the last piece comes with io.EOF.
type chopped struct {
	data     []byte
	cuts     []int
	i        int
	together bool
}

func (c *chopped) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := len(p)
	if len(c.cuts) > 0 {
		n = min(n, c.cuts[c.i%len(c.cuts)])
		c.i++
	}
	n = copy(p[:n], c.data)
	c.data = c.data[n:]
	if c.together && len(c.data) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// same compares what a reader gave with the reference.
func same(got []frame, err error, want []frame, bad *Error) error {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("frame %d: %d bytes, receipt %d; want %d bytes, receipt %d", i, len(got[i].payload), got[i].receipt,
				len(want[i].payload), want[i].receipt)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d frames, want %d (ended by: %v)", len(got), len(want), err)
	}
	if bad == nil {
		if err != io.EOF {
			return fmt.Errorf("ended by %v, want io.EOF", err)
		}
		return nil
	}
	var e *Error
	if !errors.As(err, &e) || e.Err != bad.Err || e.Offset != bad.Offset {
		return fmt.Errorf("ended by %v, want %v at offset %d", err, bad.Err, bad.Offset)
	}
	return nil
}
