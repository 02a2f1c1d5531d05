package socket

import "slices"

// ledger keeps which messages of a connection are settled: all before prefix, and some stretches behind it.
//
//	0 ████████ prefix      ██████        ██
//	           hole        ahead[0]      ahead[1]
//
// It is as long as there are holes. The zero value has nothing settled.
type ledger struct {
	prefix uint64
	ahead  []stretch // ascending, with a hole between any two and before the first
}

// stretch is messages from..to-1.
type stretch struct{ from, to uint64 }

// settle marks from..to-1, of which none is marked yet.
func (l *ledger) settle(from, to uint64) {
	if from >= to {
		return
	}
	if from == l.prefix {
		l.prefix = to
		for n := 0; ; n++ {
			if n == len(l.ahead) || l.ahead[n].from != l.prefix {
				l.ahead = slices.Delete(l.ahead, 0, n)
				return
			}
			l.prefix = l.ahead[n].to
		}
	}
	i, _ := slices.BinarySearchFunc(l.ahead, from, func(s stretch, from uint64) int {
		if s.from < from {
			return -1
		}
		return 1
	})
	before := i > 0 && l.ahead[i-1].to == from
	behind := i < len(l.ahead) && l.ahead[i].from == to
	switch {
	case before && behind:
		l.ahead[i-1].to = l.ahead[i].to
		l.ahead = slices.Delete(l.ahead, i, i+1)
	case before:
		l.ahead[i-1].to = to
	case behind:
		l.ahead[i].from = from
	default:
		l.ahead = slices.Insert(l.ahead, i, stretch{from, to})
	}
}
