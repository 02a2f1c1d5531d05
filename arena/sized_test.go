package arena

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// Promise: memory sized for a message wastes at most a quarter of itself, however large the slabs are.
func TestSizesWasteAtMostAQuarter(t *testing.T) {
	for slab := minSlabSize; slab <= 4<<20; slab *= 4 {
		z := newSizing(slab)
		if !slices.IsSortedFunc(z.kinds, func(x, y runKind) int { return x.size - y.size }) {
			t.Fatalf("slab %d: sizes not in order: %v", slab, z.kinds)
		}
		for _, k := range z.kinds {
			if k.chunks < 1 || k.chunks > maxRunChunks || k.chunks*k.size > k.units*z.unit || k.units > runUnitsMax {
				t.Errorf("slab %d: chunks do not fit their run: %+v", slab, k)
			}
			if waste := 1 - float64(k.chunks*k.size)/float64(k.units*z.unit); waste > 1.0/15 {
				t.Errorf("slab %d: the run of %+v leaves %.1f %% over", slab, k, 100*waste)
			}
		}
		for n := 0; n <= slab; n += 1 + n/1000 {
			size := (n + z.unit - 1) / z.unit * z.unit
			if k := z.kind(n); k != noKind {
				size = z.kinds[k].size
				if k > 0 && z.kinds[k-1].size >= n {
					t.Fatalf("slab %d: %d bytes in %d, though %d would do", slab, n, size, z.kinds[k-1].size)
				}
			}
			if size < n || n >= z.least && size*4 > n*5 {
				t.Fatalf("slab %d: %d bytes in a chunk of %d", slab, n, size)
			}
		}
	}
}

// Promise: 1,000 held messages of 1 KiB pin at most twice their own size.
func TestHeldMessagesPinLittle(t *testing.T) {
	a, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ac := newAccount(t, a, Evacuation, "loop", 0, 0)
	for _, n := range []int{64, 200, 1000, 1024, 1100, 5000, 12000, 17000, 70000} {
		var held []*Slab
		for ac.Used() < int64(ac.arena.slabSize)*12 {
			s, err := ac.LeaseSized(n)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, s)
		}
		// The slab being filled is the "one slab" of the promise.
		data, used := int64(len(held)*n), ac.Used()-int64(a.slabSize)
		if waste := 1 - float64(data)/float64(used); waste > 0.25 {
			t.Errorf("%d messages of %d bytes waste %.0f %% of %d bytes", len(held), n, 100*waste, used)
		}
		releaseAll(held)
	}
	if ac.Used() != 0 {
		t.Errorf("%d bytes used after all was released", ac.Used())
	}
}

// Chunks never overlap, keep what was written, and give everything back.
func TestChunksForRandomUse(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, slab := range []int{4 << 10, 64 << 10, 1 << 20} {
		a, err := New(Config{Budget: 40 * int64(slab), SlabSize: slab})
		if err != nil {
			t.Fatal(err)
		}
		accounts := []*Account{newAccount(t, a, Sources, "x", 0, 14), newAccount(t, a, Sources, "y", 0, 14)}
		type chunk struct {
			slab *Slab
			n    int
			tag  byte
		}
		var held []chunk
		drop := func(i int) {
			c := held[i]
			if b := c.slab.Bytes(); b[0] != c.tag || b[len(b)-1] != c.tag || b[len(b)/2] != c.tag {
				t.Fatalf("seed %d: a chunk of %d bytes was overwritten", seed, c.n)
			}
			c.slab.Release()
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
		}
		for i := range 3000 {
			if len(held) > 0 && rnd.IntN(5) < 2 {
				drop(rnd.IntN(len(held)))
				continue
			}
			n := 1 << rnd.IntN(bits.Len(uint(slab))) // small ones are as frequent as large ones
			n = min(n+rnd.IntN(n), slab)
			s, err := accounts[i%2].LeaseSized(n)
			if err != nil {
				continue
			}
			if len(s.Bytes()) < n {
				t.Fatalf("seed %d: asked for %d bytes, got %d", seed, n, len(s.Bytes()))
			}
			c := chunk{s, n, byte(i)}
			b := s.Bytes()
			b[0], b[len(b)/2], b[len(b)-1] = c.tag, c.tag, c.tag
			held = append(held, c)
			if i%100 == 0 {
				checkApart(t, seed, held, func(c chunk) []byte { return c.slab.Bytes() })
			}
		}
		for len(held) > 0 {
			drop(len(held) - 1)
		}
		if st := a.Stats(); st.SlabsLeased != 0 || st.Sized != 0 {
			t.Errorf("seed %d: all released, and yet %+v", seed, st)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

func checkApart[C any](t *testing.T, seed uint64, held []C, mem func(C) []byte) {
	t.Helper()
	type span struct{ from, to uintptr }
	var spans []span
	for _, c := range held {
		b := mem(c)
		p := uintptr(unsafe.Pointer(&b[0]))
		spans = append(spans, span{p, p + uintptr(len(b))})
	}
	slices.SortFunc(spans, func(x, y span) int {
		if x.from < y.from {
			return -1
		}
		return 1
	})
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			t.Fatalf("seed %d: two chunks share memory", seed)
		}
	}
}

func TestSizedEdges(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	for _, c := range []struct{ n, used int }{
		{0, testSlab}, {1, testSlab}, {testSlab, testSlab}, {testSlab + 1, 2 * testSlab}, {3 * testSlab, 3 * testSlab},
	} {
		t.Run(fmt.Sprint(c.n), func(t *testing.T) {
			s, err := ac.LeaseSized(c.n)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Bytes()) < c.n || int(ac.Used()) != c.used {
				t.Errorf("%d bytes usable, %d charged, want %d charged", len(s.Bytes()), ac.Used(), c.used)
			}
			s.Release()
			if ac.Used() != 0 {
				t.Errorf("%d bytes charged after release", ac.Used())
			}
		})
	}
	if _, err := ac.LeaseSized(-1); err == nil {
		t.Error("a lease of -1 bytes")
	}
}
