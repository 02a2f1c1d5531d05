package arena

import (
	"fmt"
	"testing"
)

func benchArena(b *testing.B) (*Arena, *Account) {
	a, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	ac, err := a.Account(Sources, "bench", 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	return a, ac
}

func BenchmarkLeaseRelease(b *testing.B) {
	_, ac := benchArena(b)
	for b.Loop() {
		s, err := ac.Lease()
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}

func BenchmarkLeaseReleaseParallel(b *testing.B) {
	_, ac := benchArena(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s, err := ac.Lease()
			if err != nil {
				b.Fatal(err)
			}
			s.Release()
		}
	})
}

func BenchmarkLeaseSizedRelease(b *testing.B) {
	for _, n := range []int{100, 1024, 20000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, ac := benchArena(b)
			keep, err := ac.LeaseSized(n) // so that the slab stays carved
			if err != nil {
				b.Fatal(err)
			}
			defer keep.Release()
			for b.Loop() {
				s, err := ac.LeaseSized(n)
				if err != nil {
					b.Fatal(err)
				}
				s.Release()
			}
		})
	}
}

func BenchmarkRetainRelease(b *testing.B) {
	_, ac := benchArena(b)
	s, _ := ac.Lease()
	defer s.Release()
	for b.Loop() {
		s.Retain()
		s.Release()
	}
}

func BenchmarkResolve(b *testing.B) {
	a, ac := benchArena(b)
	s, _ := ac.Lease()
	defer s.Release()
	r := s.Ref(10, 100)
	for b.Loop() {
		v, ok := a.Resolve(r)
		if !ok {
			b.Fatal("stale")
		}
		v.Release()
	}
}

func BenchmarkNewBatchFree(b *testing.B) {
	a, _ := benchArena(b)
	for b.Loop() {
		a.NewBatch().Free()
	}
}
