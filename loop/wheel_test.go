package loop

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// sortedTimers is what the wheel is measured against: a list.
type sortedTimers struct {
	now  Ticks
	list []*timer
}

func (s *sortedTimers) add(t *timer) { s.list = append(s.list, t) }

func (s *sortedTimers) remove(t *timer) {
	if i := slices.Index(s.list, t); i >= 0 {
		s.list = slices.Delete(s.list, i, i+1)
	}
}

// first is the earliest deadline that has not fired.
func (s *sortedTimers) first() (Ticks, bool) {
	if len(s.list) == 0 {
		return 0, false
	}
	return slices.MinFunc(s.list, func(a, b *timer) int { return int(a.at - b.at) }).at, true
}

// Promise: a timer fires at its deadline, never before, whatever else is armed or removed, also by timers that fire.
func TestWheelAgainstSortedList(t *testing.T) {
	for seed := range uint64(200) {
		runWheel(t, seed)
	}
}

func FuzzWheel(f *testing.F) {
	f.Add(uint64(1))
	f.Add(uint64(1 << 40))
	f.Fuzz(runWheel)
}

func runWheel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var w wheel
	w.now = Ticks(rnd.Int64N(1 << (1 + rnd.IntN(40))))
	model := sortedTimers{now: w.now}
	timers := make([]timer, 1+rnd.IntN(60))
	span := func() Ticks { return Ticks(rnd.Int64N(1 << (1 + rnd.IntN(36)))) }
	arm := func() {
		x := &timers[rnd.IntN(len(timers))]
		if x.armed() {
			return
		}
		w.add(x, w.now+span()-2)
		if x.at <= w.now {
			t.Fatalf("seed %d: armed for %d, which is not after %d", seed, x.at, w.now)
		}
		model.add(x)
	}
	disarm := func() {
		x := &timers[rnd.IntN(len(timers))]
		w.remove(x)
		model.remove(x)
	}
	last := Ticks(0)
	fire := func(x *timer) {
		if x.at != w.now || x.at < last || x.armed() {
			t.Fatalf("seed %d: timer for %d fires at %d, after one for %d; armed: %v", seed, x.at, w.now, last, x.armed())
		}
		if !slices.Contains(model.list, x) {
			t.Fatalf("seed %d: a timer fires that is not armed", seed)
		}
		last = x.at
		model.remove(x)
		for range rnd.IntN(3) {
			arm()
		}
		for range rnd.IntN(2) {
			disarm()
		}
	}
	for range 300 {
		switch rnd.IntN(4) {
		case 0, 1:
			arm()
		case 2:
			disarm()
		case 3:
			to := w.now + span()
			if next, ok := w.next(); ok && rnd.IntN(2) == 0 {
				to = next
			}
			last = 0
			w.advance(to, fire)
		}
		checkWheel(t, seed, &w, &model)
	}
}

func checkWheel(t *testing.T, seed uint64, w *wheel, model *sortedTimers) {
	t.Helper()
	first, any := model.first()
	next, ok := w.next()
	switch {
	case w.count != len(model.list) || ok != any:
		t.Fatalf("seed %d: %d timers, want %d; next: %v, want %v", seed, w.count, len(model.list), ok, any)
	case any && (first <= w.now || next > first || next <= w.now):
		t.Fatalf("seed %d: now %d, the first deadline is %d, next says %d", seed, w.now, first, next)
	}
}
