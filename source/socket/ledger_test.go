package socket

import (
	"math/rand/v2"
	"testing"
)

// Promise: the prefix is the contiguous one, in whatever order stretches come; and holes are all that is remembered.
func TestLedger(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var list []stretch
		for at := uint64(0); len(list) < 60; {
			n := 1 + r.Uint64N(5)
			list = append(list, stretch{at, at + n})
			at += n
		}
		end := list[len(list)-1].to
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		var l ledger
		done := make([]bool, end+1)
		for _, s := range list {
			l.settle(s.from, s.to)
			for i := s.from; i < s.to; i++ {
				done[i] = true
			}
			want, holes := uint64(0), 0
			for done[want] {
				want++
			}
			for i := want; i < end; i++ {
				if !done[i] && done[i+1] {
					holes++
				}
			}
			if l.prefix != want || len(l.ahead) != holes {
				t.Fatalf("seed %d: prefix %d with %d stretches, want %d with %d", seed, l.prefix, len(l.ahead), want, holes)
			}
		}
		if l.prefix != end || len(l.ahead) != 0 {
			t.Fatalf("seed %d: in the end %+v, want %d", seed, l, end)
		}
	}
}
