package arena

import (
	"errors"
	"sync"
	"testing"
)

// Promise: a large lease is charged as bytes arrive, not as a header promises.
func TestLargeIsChargedAsItGrows(t *testing.T) {
	a, err := New(Config{Budget: 16 << 20, SlabSize: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ac := newAccount(t, a, Sources, "s", 0, 4) // 1 MiB
	const most = 900<<10 + 1
	s, err := ac.LeaseLarge(most)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		grow, usable, used int
		err                error
	}{
		{0, 0, 0, nil},
		{1, 64 << 10, 64 << 10, nil},
		{64 << 10, 64 << 10, 64 << 10, nil},
		{64<<10 + 1, 128 << 10, 128 << 10, nil},
		{5, 128 << 10, 128 << 10, nil},
		{500 << 10, 512 << 10, 512 << 10, nil},
		{most + 1, 512 << 10, 512 << 10, ErrTooLarge},
		{most, most, 960 << 10, nil},
	} {
		if n := len(s.Bytes()); n > 0 {
			s.Bytes()[n-1] = byte(n >> 10)
		}
		before := len(s.Bytes())
		if err := s.Grow(c.grow); !errors.Is(err, c.err) {
			t.Fatalf("grow to %d: %v, want %v", c.grow, err, c.err)
		}
		if len(s.Bytes()) != c.usable || int(ac.Used()) != c.used || a.Stats().Large != int64(c.used) {
			t.Errorf("grown to %d: %d usable, %d charged; want %d and %d", c.grow, len(s.Bytes()), ac.Used(), c.usable, c.used)
		}
		if before > 0 && s.Bytes()[before-1] != byte(before>>10) {
			t.Errorf("grown to %d: what was there is lost", c.grow)
		}
	}
	other, err := ac.LeaseLarge(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Grow(65 << 10); !errors.Is(err, ErrBudget) || len(other.Bytes()) != 0 {
		t.Errorf("growth past the account's limit: %v, %d bytes usable", err, len(other.Bytes()))
	}
	if err := other.Grow(64 << 10); err != nil {
		t.Errorf("growth up to the account's limit: %v", err)
	}
	other.Release()
	r := s.Ref(most-1, 1)
	s.Release()
	if _, ok := a.Resolve(r); ok || ac.Used() != 0 || a.Stats().Large != 0 {
		t.Errorf("after release: resolves %v, %d bytes charged", ok, ac.Used())
	}
}

func TestLargeEdges(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	if _, err := ac.LeaseLarge(-1); err == nil {
		t.Error("a large lease of -1 bytes")
	}
	empty, err := ac.LeaseLarge(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Grow(1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("growing a lease of 0 bytes: %v", err)
	}
	empty.Release()
	whole := lease(t, ac)
	if err := whole.Grow(testSlab); err != nil {
		t.Errorf("growing a whole slab to what it is: %v", err)
	}
	if err := whole.Grow(testSlab + 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("growing a whole slab: %v", err)
	}
	whole.Release()
}

func TestLargeResolvesWhileItGrows(t *testing.T) {
	a, err := New(Config{Budget: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ac := newAccount(t, a, Sources, "s", 0, 0)
	s, err := ac.LeaseLarge(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	refs := make(chan Ref, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		for r := range refs {
			v, ok := a.Resolve(r)
			if !ok || v.Bytes()[0] != byte(r.off>>16) {
				t.Errorf("ref %v: %v", r, ok)
			}
			v.Release()
		}
	})
	for off := uint32(0); off < 4<<20; off += 64 << 10 {
		if err := s.Grow(int(off) + 64<<10); err != nil {
			t.Fatal(err)
		}
		s.Bytes()[off] = byte(off >> 16)
		refs <- s.Ref(off, 1)
	}
	close(refs)
	wg.Wait()
	s.Release()
}

// Promise: slabs that are free but touched and large leases together are never more than the budget.
func TestResidentStaysInTheBudget(t *testing.T) {
	const slab = 64 << 10
	a, err := New(Config{Budget: 100 * slab, SlabSize: slab})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	sources := newAccount(t, a, Sources, "s", 0, 70)
	emits := newAccount(t, a, Emits, "e", 0, 20)
	evac := newAccount(t, a, Evacuation, "v", 0, 10)
	touch := func(b []byte) {
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
	var all []*Slab
	for _, ac := range []*Account{sources, emits, evac} {
		for ac.Room() {
			s := lease(t, ac)
			touch(s.Bytes())
			all = append(all, s)
		}
	}
	hot := all[0]
	for i := len(all) - 1; i >= 0; i-- {
		all[i].Release()
	}
	if st := a.Stats(); st.Resident != 100*slab {
		t.Fatalf("%d bytes resident after all slabs were touched", st.Resident)
	}
	var large []*Slab
	for range 7 {
		s, err := sources.LeaseLarge(10 * slab)
		if err != nil {
			t.Fatal(err)
		}
		for n := slab; n <= 10*slab; n += slab {
			if err := s.Grow(n); err != nil {
				t.Fatal(err)
			}
			touch(s.Bytes())
			if st := a.Stats(); st.Resident > st.Budget {
				t.Fatalf("%d bytes resident of a budget of %d", st.Resident, st.Budget)
			}
		}
		large = append(large, s)
	}
	checkResident(t, a)
	if s := lease(t, emits); s != hot {
		t.Errorf("the hottest slab was given back before colder ones")
	} else {
		s.Release()
	}
	releaseAll(large)
	all = all[:0]
	for sources.Room() { // what was given back can be had again
		s := lease(t, sources)
		touch(s.Bytes())
		all = append(all, s)
	}
	if st := a.Stats(); st.Resident > st.Budget || len(all) != 70 {
		t.Errorf("%d slabs, %d bytes resident", len(all), st.Resident)
	}
	releaseAll(all)
}
