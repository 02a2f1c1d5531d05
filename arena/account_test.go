package arena

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestAccountLimits(t *testing.T) {
	for _, c := range []struct {
		name              string
		taken             int64 // guaranteed to others before; amounts are in bytes
		guaranteed, limit int64
		ok                bool
		wantG, wantL      int64
	}{
		{"half the class", 0, 0, 0, true, 0, 35 * testSlab},
		{"guarantee above half the class", 0, 50 * testSlab, 0, true, 50 * testSlab, 50 * testSlab},
		{"rounded up", 0, 1, testSlab + 1, true, testSlab, 2 * testSlab},
		{"limit above the class", 0, 0, 1 << 62, true, 0, 70 * testSlab},
		{"all of the class", 0, 70 * testSlab, 70 * testSlab, true, 70 * testSlab, 70 * testSlab},
		{"all that is left", 30 * testSlab, 40 * testSlab, 0, true, 40 * testSlab, 40 * testSlab},
		{"more than is left", 30 * testSlab, 40*testSlab + 1, 0, false, 0, 0},
		{"more than there is", 0, 1 << 62, 0, false, 0, 0},
		{"limit below guarantee", 0, 2 * testSlab, testSlab, false, 0, 0},
		{"negative guarantee", 0, -1, 0, false, 0, 0},
		{"negative limit", 0, 0, -1, false, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArena(t, 100)
			if _, err := a.Account(Sources, "other", c.taken, 0); err != nil {
				t.Fatal(err)
			}
			ac, err := a.Account(Sources, "this", c.guaranteed, c.limit)
			if !c.ok {
				var ce *ConfigError
				if !errors.As(err, &ce) {
					t.Fatalf("error %v, want a ConfigError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ac.guaranteed != c.wantG || ac.limit != c.wantL || ac.Name() != "this" {
				t.Errorf("guarantee %d limit %d, want %d and %d", ac.guaranteed, ac.limit, c.wantG, c.wantL)
			}
		})
	}
	if _, err := newArena(t, 100).Account(classes, "?", 0, 0); err == nil {
		t.Error("an account in a class that there is not")
	}
}

// Promise: one blocked source cannot starve the others.
func TestGuaranteeIsKept(t *testing.T) {
	a := newArena(t, 100) // 70 for sources
	greedy := newAccount(t, a, Sources, "greedy", 5, 70)
	modest := newAccount(t, a, Sources, "modest", 10, 70)
	var g, m []*Slab
	for greedy.Room() {
		g = append(g, lease(t, greedy))
	}
	if len(g) != 60 {
		t.Fatalf("greedy got %d slabs, want 60: 70 less the guarantee of the other", len(g))
	}
	for modest.Room() {
		m = append(m, lease(t, modest))
	}
	if len(m) != 10 {
		t.Errorf("modest got %d slabs, want its guarantee of 10", len(m))
	}
	_, err := modest.Lease()
	var be *BudgetError
	if !errors.As(err, &be) || be.Account != "modest" || be.Class != Sources || be.Wanted != testSlab ||
		be.Used != 10*testSlab || be.Limit != 70*testSlab || be.ClassUsed != 70*testSlab {
		t.Errorf("error %v", err)
	}
	g[0].Release() // shared again, so that either may have it
	if !modest.Room() || !greedy.Room() {
		t.Error("no room after a release")
	}
	m[0].Release() // guaranteed again, so that only its owner may have it
	g[0] = lease(t, greedy)
	if greedy.Room() || !modest.Room() {
		t.Error("a guarantee that is not used was given to another")
	}
	if err := modest.Close(); err == nil {
		t.Error("closing an account with leases went well")
	}
	releaseAll(m[1:])
	if err := modest.Close(); err != nil {
		t.Fatal(err)
	}
	if !greedy.Room() {
		t.Error("closing an account did not give its guarantee back")
	}
	if _, err := modest.Lease(); !errors.Is(err, ErrClosed) {
		t.Errorf("lease from a closed account: %v, want ErrClosed", err)
	}
	if err := modest.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	releaseAll(g)
}

// A guarantee that is given while the class is full comes true as others release, before anybody else gets more.
func TestGuaranteeOfALatecomer(t *testing.T) {
	a := newArena(t, 100)
	first := newAccount(t, a, Emits, "first", 0, 20)
	var f []*Slab
	for first.Room() {
		f = append(f, lease(t, first))
	}
	late := newAccount(t, a, Emits, "late", 2, 0)
	if late.Room() {
		t.Fatal("room in a class that is full")
	}
	f[0].Release()
	if first.Room() || !late.Room() {
		t.Fatal("what was released belongs to the guarantee")
	}
	s := lease(t, late)
	f[1].Release()
	f[2].Release()
	if !first.Room() || !late.Room() {
		t.Error("there is room for both")
	}
	releaseAll(append(f[3:], s))
}

// What accounts use never exceeds their limits and their class, and a guarantee that is not used up can always be leased.
func TestAccountingHoldsForRandomUse(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	a := newArena(t, 200)
	var accounts []*Account
	for i := range 6 {
		g := rnd.Int64N(20)
		accounts = append(accounts, newAccount(t, a, Sources, fmt.Sprint(i), g, g+rnd.Int64N(100)+1))
	}
	held := make(map[*Account][]*Slab)
	for range 20000 {
		ac := accounts[rnd.IntN(len(accounts))]
		owed := ac.Used()+testSlab <= ac.guaranteed
		var s *Slab
		var err error
		switch n := rnd.IntN(10); {
		case n < 3 && len(held[ac]) > 0, n < 4 && len(held[ac]) > 40:
			i := rnd.IntN(len(held[ac]))
			held[ac][i].Release()
			held[ac][i] = held[ac][len(held[ac])-1]
			held[ac] = held[ac][:len(held[ac])-1]
			continue
		case n < 7:
			s, err = ac.Lease()
		case n < 9:
			s, err = ac.LeaseSized(rnd.IntN(2 * testSlab))
			owed = owed && ac.Used()+3*testSlab <= ac.guaranteed
		default:
			if s, err = ac.LeaseLarge(10 * testSlab); err == nil {
				err = s.Grow(rnd.IntN(12 * testSlab))
				owed = false
				if err != nil {
					s.Release()
				}
			}
		}
		if err == nil {
			held[ac] = append(held[ac], s)
		} else if owed {
			t.Fatalf("seed %d: %s uses %d of its guarantee of %d and was refused: %v", seed, ac.name, ac.used, ac.guaranteed, err)
		}
		checkAccounts(t, seed, a, accounts)
	}
	for _, list := range held {
		releaseAll(list)
	}
	checkAccounts(t, seed, a, accounts)
	if st := a.Stats(); st.Used[Sources] != 0 || st.Sized != 0 || st.Large != 0 || st.SlabsLeased != 0 {
		t.Errorf("seed %d: all released, and yet %+v", seed, st)
	}
}

func checkAccounts(t *testing.T, seed uint64, a *Arena, accounts []*Account) {
	t.Helper()
	var used, reserved int64
	for _, ac := range accounts {
		used += ac.used
		reserved += max(ac.guaranteed-ac.used, 0)
		if ac.used > ac.limit || ac.used < 0 {
			t.Fatalf("seed %d: %s uses %d of at most %d", seed, ac.name, ac.used, ac.limit)
		}
	}
	cl := &a.classes[Sources]
	if cl.used != used || cl.reserved != reserved || used+reserved > cl.size {
		t.Fatalf("seed %d: class uses %d and reserves %d of %d; the sums are %d and %d", seed, cl.used, cl.reserved, cl.size, used, reserved)
	}
	if used != int64(a.pool.leased)*testSlab+a.large {
		t.Fatalf("seed %d: charged %d, leased %d slabs and %d large", seed, used, a.pool.leased, a.large)
	}
	if r := a.resident(); r > a.budget {
		t.Fatalf("seed %d: %d bytes resident of a budget of %d", seed, r, a.budget)
	}
}

// Promise: an account can be resized while it is in use; what it has beyond a lower limit it keeps until it releases it.
func TestResize(t *testing.T) {
	a := newArena(t, 100) // 70 for sources
	one, other := newAccount(t, a, Sources, "one", 10, 20), newAccount(t, a, Sources, "other", 0, 70)
	var held []*Slab
	for one.Room() {
		held = append(held, lease(t, one))
	}
	resize := func(guaranteed, limit int64) error {
		err := one.Resize(guaranteed*testSlab, limit*testSlab)
		checkSums(t, 0, a, []*Account{one, other})
		return err
	}
	if err := resize(0, 30); err != nil || !one.Room() {
		t.Fatalf("a wider limit: %v, room %v", err, one.Room())
	}
	if err := resize(5, 8); err != nil || one.Room() || one.Used() != 20*testSlab {
		t.Fatalf("a limit below what it uses: %v, room %v, used %d", err, one.Room(), one.Used())
	}
	releaseAll(held[7:])
	if !one.Room() {
		t.Error("no room below the limit")
	}
	releaseAll(held[:7])
	if err := resize(70, 70); err != nil || other.Room() {
		t.Errorf("all of the class: %v; room for others: %v", err, other.Room())
	}
	for _, c := range []struct{ guaranteed, limit int64 }{{71, 71}, {20, 10}} {
		var ce *ConfigError
		if err := resize(c.guaranteed, c.limit); !errors.As(err, &ce) {
			t.Errorf("guarantee %d limit %d: %v", c.guaranteed, c.limit, err)
		}
	}
	if one.guaranteed != 70*testSlab || one.limit != 70*testSlab {
		t.Errorf("guarantee %d and limit %d after errors", one.guaranteed, one.limit)
	}
	if err := resize(0, 1<<40); err != nil || one.limit != 70*testSlab {
		t.Errorf("a limit above the class: %v, %d", err, one.limit)
	}
}

// Promise: who waits for room is woken by a wider limit, and by another's smaller guarantee.
func TestResizeWakes(t *testing.T) {
	a := newArena(t, 100)
	one, other := newAccount(t, a, Sources, "one", 0, 1), newAccount(t, a, Sources, "other", 69, 70)
	s := lease(t, one)
	woken := 0
	one.AfterRoom(func() { woken++ })
	if err := one.Resize(0, 70*testSlab); err != nil || woken != 0 {
		t.Fatalf("a wider limit, where all else is guaranteed to another: %v, woken %d", err, woken)
	}
	if err := other.Resize(10*testSlab, 70*testSlab); err != nil || woken != 1 {
		t.Fatalf("a smaller guarantee of the other: %v, woken %d", err, woken)
	}
	s.Release()
}

// What accounts use never exceeds their class while they are resized at random.
func TestAccountingHoldsWhileResized(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	a := newArena(t, 100)
	accounts := []*Account{newAccount(t, a, Sources, "0", 0, 70), newAccount(t, a, Sources, "1", 0, 70), newAccount(t, a, Sources, "2", 0, 70)}
	held := make(map[*Account][]*Slab)
	for range 5000 {
		ac := accounts[rnd.IntN(len(accounts))]
		switch n := rnd.IntN(10); {
		case n == 0:
			g := rnd.Int64N(40)
			_ = ac.Resize(g*testSlab, (g+rnd.Int64N(40))*testSlab) // may be refused: guarantees are bounded
		case n < 5 && len(held[ac]) > 0:
			i := rnd.IntN(len(held[ac]))
			held[ac][i].Release()
			held[ac] = append(held[ac][:i], held[ac][i+1:]...)
		default:
			if s, err := ac.Lease(); err == nil {
				held[ac] = append(held[ac], s)
			}
		}
		checkSums(t, seed, a, accounts)
	}
	for _, list := range held {
		releaseAll(list)
	}
}

// checkSums checks what holds even while an account uses more than its limit, because that was lowered.
func checkSums(t *testing.T, seed uint64, a *Arena, accounts []*Account) {
	t.Helper()
	var used, reserved, guaranteed int64
	for _, ac := range accounts {
		used += ac.used
		reserved += max(ac.guaranteed-ac.used, 0)
		guaranteed += ac.guaranteed
	}
	cl := &a.classes[Sources]
	if cl.used != used || cl.reserved != reserved || cl.guaranteed != guaranteed || used > cl.size || guaranteed > cl.size {
		t.Fatalf("seed %d: class uses %d, reserves %d and guarantees %d of %d; the sums are %d, %d and %d", seed, cl.used, cl.reserved,
			cl.guaranteed, cl.size, used, reserved, guaranteed)
	}
}
