package loop

import (
	"math/bits"

	"github.com/penstock-dev/penstock/internal/mutate"
)

// timerKind says whom a timer is for.
type timerKind uint8

const (
	timerUnit timerKind = iota
	timerPause
	timerDrain
	timerWindow
	timerGone
)

// timer is a deadline in a wheel. It is part of what it is for, so that arming one allocates nothing.
type timer struct {
	at         Ticks
	next, prev *timer // in the list of its slot; nil when not armed
	level      uint8
	slot       uint8
	kind       timerKind
	unit       *unit
	consumer   *consumer
}

func (t *timer) armed() bool { return t.next != nil }

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 5 // 2^30 ms, twelve days; what is later is looked at again then
)

// wheel is a hierarchical timing wheel (Varghese and Lauck, 1987): level l has 64 slots of 64^l ticks each. Arming and removing take
// constant time; a timer moves down at most wheelLevels times.
type wheel struct {
	now   Ticks
	slots [wheelLevels][wheelSlots]timer // heads of circular lists
	used  [wheelLevels]uint64            // a bit for each slot that is not empty
	count int
}

// add arms t for at. A deadline that has passed is due with the next tick. t must not be armed.
func (w *wheel) add(t *timer, at Ticks) {
	t.at = max(at, w.now+1)
	w.place(t)
	w.count++
}

func (w *wheel) place(t *timer) {
	ahead := uint64(t.at ^ w.now)
	level := 0
	if ahead >= wheelSlots {
		level = min((bits.Len64(ahead)-1)/wheelBits, wheelLevels-1)
	}
	slot := uint64(t.at) >> (level * wheelBits) % wheelSlots
	if level == wheelLevels-1 && uint64(t.at-w.now)>>(level*wheelBits) >= wheelSlots-1 {
		slot = (uint64(w.now)>>(level*wheelBits) + wheelSlots - 1) % wheelSlots // beyond the horizon: as far as it goes
	}
	head := &w.slots[level][slot]
	if head.next == nil {
		head.next, head.prev = head, head
	}
	t.level, t.slot = uint8(level), uint8(slot)
	t.next, t.prev = head, head.prev
	head.prev.next, head.prev = t, t
	w.used[level] |= 1 << slot
}

// remove disarms t; it does nothing if t is not armed.
func (w *wheel) remove(t *timer) {
	if !t.armed() {
		return
	}
	w.unlink(t)
	w.count--
}

func (w *wheel) unlink(t *timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	if head := &w.slots[t.level][t.slot]; head.next == head {
		w.used[t.level] &^= 1 << t.slot
	}
}

// next is a time at which advance should be called: the first deadline, or an earlier time at which timers move down a level.
func (w *wheel) next() (Ticks, bool) {
	if w.count == 0 {
		return 0, false
	}
	best, found := Ticks(0), false
	for level := range w.used {
		if w.used[level] == 0 {
			continue
		}
		shift := level * wheelBits
		here := uint64(w.now) >> shift
		turn := bits.RotateLeft64(w.used[level], -int((here+1)%wheelSlots))
		at := Ticks((here + 1 + uint64(bits.TrailingZeros64(turn))) << shift)
		if !found || at < best {
			best, found = at, true
		}
	}
	return best, found
}

// advance moves the wheel to now and calls fire for every timer that is due, in the order of their deadlines. fire may arm and remove
// timers.
func (w *wheel) advance(now Ticks, fire func(*timer)) {
	for {
		at, ok := w.next()
		if !ok || at > now {
			break
		}
		w.now = at
		for level := wheelLevels - 1; level >= 0; level-- {
			shift := level * wheelBits
			if uint64(at)&(1<<shift-1) != 0 {
				continue
			}
			w.turn(level, uint64(at)>>shift%wheelSlots, fire)
		}
	}
	w.now = max(w.now, now)
}

// turn empties one slot: what is due fires, the rest is placed anew.
func (w *wheel) turn(level int, slot uint64, fire func(*timer)) {
	head := &w.slots[level][slot]
	if head.next == nil || head.next == head {
		return
	}
	var moved timer // a list of its own, since fire may change the slot
	moved.next, moved.prev = head.next, head.prev
	moved.next.prev, moved.prev.next = &moved, &moved
	head.next, head.prev = head, head
	w.used[level] &^= 1 << slot
	for moved.next != &moved {
		t := moved.next
		t.prev.next, t.next.prev = t.next, t.prev
		t.next, t.prev = nil, nil
		if t.at <= w.now {
			w.count--
			fire(t)
		} else if mutate.On(mutate.WheelLosesTimer) {
			w.count--
		} else {
			w.place(t)
		}
	}
}
