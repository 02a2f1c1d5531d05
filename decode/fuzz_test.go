package decode

import (
	"bytes"
	"io"
	"testing"
)

// Any bytes, however they are cut into reads, give the frames and the error of the plain reference; memory stays within its bound, and no
// slab is left.

func FuzzLines(f *testing.F) {
	mem := newMemory(f, testSlab, 1<<20)
	f.Fuzz(func(t *testing.T, data, cuts, delim []byte, repeat, limit uint16, flags byte) {
		if len(delim) > 8 {
			delim = delim[:8]
		}
		fuzz(t, mem, Lines(delim), data, cuts, repeat, limit, flags)
	})
}

func FuzzU32(f *testing.F)    { fuzzFraming(f, U32()) }
func FuzzVarint(f *testing.F) { fuzzFraming(f, Varint()) }
func FuzzWhole(f *testing.F)  { fuzzFraming(f, Whole()) }

func fuzzFraming(f *testing.F, framing Framing) {
	mem := newMemory(f, testSlab, 1<<20)
	f.Fuzz(func(t *testing.T, data, cuts []byte, repeat, limit uint16, flags byte) {
		fuzz(t, mem, framing, data, cuts, repeat, limit, flags)
	})
}

const (
	flagSkip = 1 << iota
	flagTogether
	flagPark
	flagSmallBatches
)

func fuzz(t *testing.T, mem *memory, framing Framing, data, cuts []byte, repeat, limit uint16, flags byte) {
	data = bytes.Repeat(data, min(int(repeat)+1, 1+(64<<10)/(len(data)+1)))
	most := max(1, int(limit)%(5*testSlab))
	in := &chopped{data: data, together: flags&flagTogether != 0}
	sum := 0
	for _, c := range cuts[:min(len(cuts), 64)] {
		n := int(c)
		if c >= 128 {
			n = int(c-127) * 61
		}
		in.cuts = append(in.cuts, n)
		sum += n
	}
	if sum == 0 {
		in.cuts = nil
	} else { // not too many reads
		data = data[:min(len(data), 10_000*sum/len(in.cuts))]
		in.data = data
	}
	var skipped int
	opt := Options{MaxMessage: most, ReadSize: 3000, SkipTooLarge: flags&flagSkip != 0, OnError: func(error) { skipped++ }}
	if opt.MaxBatch = 256; flags&flagSmallBatches != 0 {
		opt.MaxBatch = 3
	}
	// A slab, what moves to the next one, and a large lease, which is charged in steps of a slab.
	bound := int64(3*testSlab + most + framing.overhead())
	r := NewReader(&spy{Reader: in, t: t, mem: mem, bound: bound, idle: flags&flagPark != 0}, mem, framing, opt)
	got, err := collect(t, r, opt.MaxBatch)
	r.Close()
	_, isLines := framing.(lines)
	want, bad := reference(framing, data, most, opt.SkipTooLarge && isLines)
	if err := same(got, err, want, bad); err != nil {
		t.Errorf("%s, at most %d bytes, delimiter %v: %v", framing.Name(), most, framing, err)
	}
	if used, leases := mem.account.Used(), mem.arena.Stats().Leases; used != 0 || leases != 0 {
		t.Errorf("%d bytes in %d leases are left", used, leases)
	}
}

// spy looks at the memory in use at each read. With idle, every other read finds nothing for now.
type spy struct {
	io.Reader
	t     *testing.T
	mem   *memory
	bound int64
	idle  bool
	odd   bool
}

func (s *spy) Read(p []byte) (int, error) {
	if used := s.mem.account.Used(); used > s.bound {
		s.t.Fatalf("%d bytes in use, at most %d wanted", used, s.bound)
	}
	if s.odd = !s.odd; s.idle && s.odd {
		return 0, errIdle
	}
	return s.Reader.Read(p)
}
