package arena

import (
	"errors"
	"strings"
	"testing"
)

const testSlab = 4 << 10

// newArena is an arena of n slabs of 4 KiB that must be whole again at the end of the test.
func newArena(t testing.TB, n int) *Arena {
	t.Helper()
	a, err := New(Config{Budget: int64(n) * testSlab, SlabSize: testSlab})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("at the end of the test: %v", err)
		}
	})
	return a
}

func newAccount(t testing.TB, a *Arena, c Class, name string, guaranteed, limit int64) *Account {
	t.Helper()
	ac, err := a.Account(c, name, guaranteed*int64(a.SlabSize()), limit*int64(a.SlabSize()))
	if err != nil {
		t.Fatal(err)
	}
	return ac
}

func lease(t testing.TB, ac *Account) *Slab {
	t.Helper()
	s, err := ac.Lease()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func releaseAll(list []*Slab) {
	for _, s := range list {
		s.Release()
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   Config
		field string // of the error; "" if there is to be none
	}{
		{"defaults", Config{}, ""},
		{"the smallest", Config{Budget: 11 * testSlab, SlabSize: testSlab}, ""},
		{"not whole slabs", Config{Budget: 12*testSlab - 1, SlabSize: testSlab}, ""},
		{"a slab too few", Config{Budget: 11*testSlab - 1, SlabSize: testSlab}, "Budget"},
		{"negative budget", Config{Budget: -1}, "Budget"},
		{"not a power of two", Config{SlabSize: 3 * testSlab}, "SlabSize"},
		{"small slabs", Config{SlabSize: testSlab / 2}, "SlabSize"},
		{"negative slabs", Config{SlabSize: -testSlab}, "SlabSize"},
		{"too many slabs", Config{Budget: 1 << 62, SlabSize: testSlab}, "Budget"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := New(c.cfg)
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer a.Close()
				st := a.Stats()
				if sum := st.Capacity[Sources] + st.Capacity[Emits] + st.Capacity[Evacuation]; sum > st.Budget {
					t.Errorf("classes of %v bytes are more than the budget of %d", st.Capacity, st.Budget)
				}
				return
			}
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != c.field {
				t.Fatalf("error %v, want a ConfigError about %s", err, c.field)
			}
		})
	}
}

func TestClassesPartTheBudget(t *testing.T) {
	a := newArena(t, 100)
	want := [classes]int64{Sources: 70 * testSlab, Emits: 20 * testSlab, Evacuation: 10 * testSlab}
	if got := a.Stats().Capacity; got != want {
		t.Fatalf("capacity %v, want %v", got, want)
	}
	var all []*Slab
	for c, n := range [classes]int{70, 20, 10} { // a full class leaves the others alone
		ac := newAccount(t, a, Class(c), Class(c).String(), 0, 100)
		for range n {
			all = append(all, lease(t, ac))
		}
		if _, err := ac.Lease(); !errors.Is(err, ErrBudget) {
			t.Errorf("lease %d of %v: %v, want ErrBudget", n+1, Class(c), err)
		}
	}
	if st := a.Stats(); st.SlabsFree != 0 || st.SlabsLeased != 100 || st.Refused != 3 || st.Used != want {
		t.Errorf("stats of a full arena: %+v", st)
	}
	releaseAll(all)
	if st := a.Stats(); st.SlabsFree != 100 || st.Used != [classes]int64{} || st.Leases != 0 {
		t.Errorf("stats of an empty arena: %+v", st)
	}
}

func TestCloseNamesWhatIsLeased(t *testing.T) {
	a, err := New(Config{Budget: 100 * testSlab, SlabSize: testSlab})
	if err != nil {
		t.Fatal(err)
	}
	ac := newAccount(t, a, Sources, "flights", 0, 0)
	whole := lease(t, ac)
	sized, err := ac.LeaseSized(100)
	if err != nil {
		t.Fatal(err)
	}
	copy(whole.Bytes(), "still here")
	r := whole.Ref(0, 5)
	for range 2 { // it may be asked again
		var leak *LeakError
		if err := a.Close(); !errors.As(err, &leak) || len(leak.Holders) != 2 || !strings.Contains(err.Error(), `account "flights"`) {
			t.Fatalf("close: %v, want a LeakError with 2 leases of flights", err)
		}
	}
	if got := string(whole.Bytes()[:10]); got != "still here" {
		t.Errorf("after a close with leases the memory holds %q", got)
	}
	if v, ok := a.Resolve(r); !ok || string(v.Bytes()) != "still" {
		t.Errorf("resolve after a close with leases: %q, %v", v.Bytes(), ok)
	} else {
		v.Release()
	}
	if _, err := ac.Lease(); !errors.Is(err, ErrClosed) {
		t.Errorf("lease after close: %v, want ErrClosed", err)
	}
	if _, err := a.Account(Sources, "late", 0, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("account after close: %v, want ErrClosed", err)
	}
	whole.Release()
	sized.Release()
	if err := a.Close(); err != nil {
		t.Errorf("close after all was released: %v", err)
	}
}

func TestHolders(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Emits, "delays", 0, 0)
	s := lease(t, ac)
	s.Retain()
	h := a.Holders()
	if len(h) != 1 || h[0].Account != "delays" || h[0].Class != Emits || h[0].Refs != 2 || h[0].Bytes != testSlab {
		t.Errorf("holders: %v", h)
	}
	s.Release()
	s.Release()
	if h := a.Holders(); len(h) != 0 {
		t.Errorf("holders of nothing: %v", h)
	}
}
