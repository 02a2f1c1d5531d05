package arena

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/penstock-dev/penstock/internal/invariants"
)

// Promise: what was released last is leased first.
func TestLastReleasedIsLeasedFirst(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	x, y, z := lease(t, ac), lease(t, ac), lease(t, ac)
	mem := map[*Slab]*byte{x: &x.Bytes()[0], y: &y.Bytes()[0], z: &z.Bytes()[0]}
	x.Release()
	z.Release()
	y.Release()
	for i, want := range []*Slab{y, z, x} {
		if got := lease(t, ac); got != want || &got.Bytes()[0] != mem[want] {
			t.Errorf("lease %d is slab %d, want %d", i, got.index, want.index)
		}
	}
	if st := a.Stats(); st.Resident != 3*testSlab {
		t.Errorf("%d bytes resident, want 3 slabs: memory is taken as it is first used", st.Resident)
	}
	releaseAll([]*Slab{x, y, z})
}

// Promise: resolving a stale or forged ref yields nothing, never another message's bytes.
func TestRefs(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	s := lease(t, ac)
	copy(s.Bytes(), "hello world")
	r := s.Ref(6, 5)
	for _, c := range []struct {
		name string
		ref  Ref
		want string
		ok   bool
	}{
		{"as made", r, "world", true},
		{"empty", s.Ref(3, 0), "", true},
		{"whole", s.Ref(0, testSlab), string(s.Bytes()), true},
		{"zero", Ref{}, "", false},
		{"zero generation", Ref{slot: r.slot, n: 1}, "", false},
		{"older generation", Ref{gen: r.gen - 1, slot: r.slot, n: 1}, "", false},
		{"newer generation", Ref{gen: r.gen + 1, slot: r.slot, n: 1}, "", false},
		{"a slot never used", Ref{gen: r.gen, slot: r.slot + 1, n: 1}, "", false},
		{"a slot that is not there", Ref{gen: r.gen, slot: ^uint32(0), n: 1}, "", false},
		{"past the end", s.Ref(testSlab-4, 5), "", false},
		{"overflowing", s.Ref(^uint32(0), ^uint32(0)), "", false},
	} {
		v, ok := a.Resolve(c.ref)
		if ok != c.ok || string(v.Bytes()) != c.want {
			t.Errorf("%s (%v): %.20q, %v", c.name, c.ref, v.Bytes(), ok)
		}
		v.Release()
	}
	if refs := s.state.Load() & refsMask; refs != 1 {
		t.Fatalf("%d references after the views were released, want 1", refs)
	}

	v, _ := a.Resolve(r) // a view keeps the bytes
	s.Release()
	if got := string(v.Bytes()); got != "world" {
		t.Errorf("view after the owner's release: %q", got)
	}
	if again, ok := a.Resolve(r); !ok {
		t.Error("a pinned message does not resolve")
	} else {
		again.Release()
	}
	v.Release()
	if v.Bytes() != nil {
		t.Error("a released view shows bytes")
	}
	v.Release() // does nothing
	if _, ok := a.Resolve(r); ok {
		t.Error("a ref outlived its message")
	}
	s = lease(t, ac) // the same slab and memory, for another message
	if _, ok := a.Resolve(r); ok {
		t.Error("a stale ref yields another message")
	}
	s.Release()
}

// No ref that was not made from a lease that lives ever resolves, whatever is in it.
func TestRandomRefsYieldNothingForeign(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 70)
	type message struct {
		slab *Slab
		ref  Ref
		tag  byte
	}
	var live []message
	var stale []Ref
	for i := range 20000 {
		switch n := rnd.IntN(6); {
		case n == 0 && len(live) > 0:
			j := rnd.IntN(len(live))
			stale = append(stale, live[j].ref)
			live[j].slab.Release()
			live[j] = live[len(live)-1]
			live = live[:len(live)-1]
		case n == 1:
			size := rnd.IntN(testSlab) + 1
			s, err := ac.LeaseSized(size)
			if err != nil {
				continue
			}
			m := message{s, s.Ref(0, uint32(size)), byte(i)}
			fill(s.Bytes(), m.tag)
			live = append(live, m)
		case n < 4 && len(live) > 0:
			m := live[rnd.IntN(len(live))]
			v, ok := a.Resolve(m.ref)
			if !ok || len(bytes.Trim(v.Bytes(), string([]byte{m.tag}))) != 0 && m.tag < 0x80 || v.Bytes()[0] != m.tag {
				t.Fatalf("seed %d: a live ref yields %v", seed, ok)
			}
			v.Release()
		case n == 4 && len(stale) > 0:
			if _, ok := a.Resolve(stale[rnd.IntN(len(stale))]); ok {
				t.Fatalf("seed %d: a stale ref yields something", seed)
			}
		default:
			r := Ref{gen: rnd.Uint64N(1 << 45), slot: rnd.Uint32N(200), off: rnd.Uint32(), n: rnd.Uint32()}
			if rnd.IntN(2) == 0 && len(live) > 0 { // the right lease, any span
				m := live[rnd.IntN(len(live))].ref
				r.gen, r.slot = m.gen, m.slot
			}
			v, ok := a.Resolve(r)
			if ok && uint64(r.off)+uint64(r.n) > uint64(len(v.slab.Bytes())) {
				t.Fatalf("seed %d: forged ref %v yields %d bytes", seed, r, len(v.Bytes()))
			}
			v.Release()
		}
	}
	for _, m := range live {
		m.slab.Release()
	}
}

func TestGenerationsRunOut(t *testing.T) {
	for _, c := range []struct {
		name  string
		lease func(*Account) (*Slab, error)
	}{
		{"whole", (*Account).Lease},
		{"sized", func(ac *Account) (*Slab, error) { return ac.LeaseSized(100) }},
		{"large", func(ac *Account) (*Slab, error) { return ac.LeaseSized(2 * testSlab) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArena(t, 100)
			ac := newAccount(t, a, Sources, "s", 0, 0)
			get := func() *Slab {
				s, err := c.lease(ac)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := get()
			s.state.Store(maxGen<<refsBits | 1)
			last := s.Ref(0, 1)
			if v, ok := a.Resolve(last); !ok {
				t.Error("the last generation does not resolve")
			} else {
				v.Release()
			}
			s.Release()
			if _, ok := a.Resolve(last); ok {
				t.Error("a ref of the last generation outlived its message")
			}
			next := get()
			if next == s {
				t.Error("a slot without generations was used again")
			}
			if _, ok := a.Resolve(last); ok {
				t.Error("a ref of the last generation yields another message")
			}
			next.Release()
		})
	}
}

func TestMisusePanics(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	free := lease(t, ac)
	free.Release()
	full := lease(t, ac)
	b := a.NewBatch()
	b.Free()
	other := lease(t, ac)
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"released twice", func() { other.Release(); other.Release() }, "slab 1.2 released"},
		{"retained after release", other.Retain, "slab 1.2 retained"},
		{"too many references", func() {
			full.state.Store(full.state.Load() | refsMask)
			defer full.state.Store(full.state.Load()&^refsMask | 1)
			full.Retain()
		}, "1048575 references"},
		{"batch freed twice", b.Free, "batch freed twice"},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, c.want) {
					t.Errorf("%s: panic %q, want %q in it", c.name, got, c.want)
				}
			}()
			c.do()
		}()
	}
	full.Release()
}

// Views, references and leases from many goroutines: each sees its own message or nothing.
func TestReferencesFromManyGoroutines(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 10)
	var shared [8]atomic.Pointer[Ref]
	var wg sync.WaitGroup
	var resolved atomic.Int64
	const rounds = 3000
	for w := range 4 {
		wg.Go(func() {
			for i := range rounds {
				s, err := ac.Lease()
				if err != nil {
					continue
				}
				tag := byte(w<<6 | i&0x3f)
				b := s.Bytes()[:64]
				for j := range b {
					b[j] = tag
				}
				r := s.Ref(0, 64)
				shared[(w*rounds+i)%len(shared)].Store(&r)
				var in sync.WaitGroup
				for range 2 {
					s.Retain()
					in.Go(func() {
						if s.Bytes()[63] != tag {
							t.Errorf("a borrower of %d reads %d", tag, s.Bytes()[63])
						}
						s.Release()
					})
				}
				s.Release()
				in.Wait()
			}
		})
		wg.Go(func() {
			for i := range rounds * 4 {
				r := shared[(i+w)%len(shared)].Load()
				if r == nil {
					continue
				}
				if v, ok := a.Resolve(*r); ok {
					resolved.Add(1)
					if b := v.Bytes(); b[0] != b[63] {
						t.Errorf("a view of two messages: %d and %d", b[0], b[63])
					}
					v.Release()
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d refs resolved", resolved.Load())
}

// Promise: zero allocations in steady state.
func TestNoAllocations(t *testing.T) {
	if tracing {
		t.Skip("the tracing build remembers stacks")
	}
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	held := lease(t, ac)
	ref := held.Ref(1, 2)
	get := func(s *Slab, err error) *Slab {
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"Lease and Release", func() { get(ac.Lease()).Release() }},
		{"LeaseSized and Release", func() { get(ac.LeaseSized(1000)).Release() }},
		{"LeaseSized and Release of most of a slab", func() { get(ac.LeaseSized(3000)).Release() }},
		{"Retain and Release", func() { held.Retain(); held.Release() }},
		{"Resolve", func() {
			if v, ok := a.Resolve(ref); ok {
				v.Release()
			}
		}},
		{"Resolve a stale ref", func() { a.Resolve(Ref{gen: 9, slot: ref.slot}) }},
		{"NewBatch, ReleaseSlab and Free", func() {
			b := a.NewBatch()
			b.Slab = get(ac.Lease())
			for range 64 {
				b.Frames = append(b.Frames, Frame{Len: 1})
				b.Receipts = append(b.Receipts, 1)
			}
			b.ReleaseSlab()
			b.Free()
		}},
	} {
		c.do()
		if n := testing.AllocsPerRun(100, c.do); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
	held.Release()
}

func TestReleasedMemoryIsPoisoned(t *testing.T) {
	if !invariants.Enabled {
		t.Skip("only with -race or -tags penstock_invariants")
	}
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	for _, n := range []int{100, 1000, testSlab} {
		s, err := ac.LeaseSized(n)
		if err != nil {
			t.Fatal(err)
		}
		stale := s.Bytes()
		s.Release()
		for i, b := range stale {
			if b != poison {
				t.Fatalf("byte %d of a released lease of %d is %#x", i, n, b)
			}
		}
	}
}
