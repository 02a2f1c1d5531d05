package arena

import (
	"sync"
	"testing"
)

func TestBatch(t *testing.T) {
	a := newArena(t, 100)
	ac := newAccount(t, a, Sources, "s", 0, 0)
	b := a.NewBatch()
	b.Slab = lease(t, ac)
	copy(b.Slab.Bytes(), "keyPAYLOADhh")
	b.Frames = append(b.Frames, Frame{Off: 3, Len: 7, KeyOff: 0, KeyLen: 3, HdrOff: 10, HdrLen: 2}, Frame{Off: 0, Len: 3})
	b.Receipts = append(b.Receipts, 7, 8)
	b.Partition, b.Epoch = 1, 2
	if b.Len() != 2 || b.Bytes() != 12 || string(b.Payload(0)) != "PAYLOAD" || string(b.Key(0)) != "key" ||
		string(b.Headers(0)) != "hh" || b.Key(1) != nil || b.Headers(1) != nil {
		t.Errorf("batch: %q %q %q, %d messages of %d bytes", b.Payload(0), b.Key(0), b.Headers(0), b.Len(), b.Bytes())
	}
	if p := b.Payload(0); cap(p) != len(p) {
		t.Error("appending to a payload would write over the next message")
	}
	b.Lend(3)
	first, second, left, third := b.Return(), b.Return(), b.Borrowers(), b.Return()
	if first || second || left != 1 || !third {
		t.Error("the third of three borrowers is the last")
	}
	b.ReleaseSlab()
	if ac.Used() != 0 || len(b.Receipts) != 2 {
		t.Error("ReleaseSlab keeps receipts and lets go of the slab")
	}
	b.Free()
	again := a.NewBatch()
	if again != b || again.Len() != 0 || len(again.Receipts) != 0 || again.Epoch != 0 || again.Slab != nil || cap(again.Frames) == 0 {
		t.Errorf("the batch freed last comes first, empty, with its capacity: %+v", again)
	}
	again.Free()
	new(Batch).Free() // made by hand: nothing to give back to
}

// Batches kept for reuse are bounded, and so is what their slices take.
func TestFreeBatchesAreBounded(t *testing.T) {
	a := newArena(t, 100)
	var list []*Batch
	for range 200 {
		b := a.NewBatch()
		b.Frames = make([]Frame, 100)
		list = append(list, b)
	}
	for _, b := range list {
		b.Free()
	}
	if p := &a.batches; p.bytes > p.limit || len(p.free) == 0 || len(p.free) == len(list) {
		t.Errorf("%d batches of %d bytes kept, limit %d", len(p.free), p.bytes, p.limit)
	}
	for range len(a.batches.free) {
		a.NewBatch()
	}
	if a.batches.bytes != 0 {
		t.Errorf("no batch kept, and yet %d bytes", a.batches.bytes)
	}
}

func TestBatchesFromManyGoroutines(t *testing.T) {
	a := newArena(t, 100)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for range 2000 {
				b := a.NewBatch()
				b.Receipts = append(b.Receipts, uint64(w))
				if b.Len() != 0 || len(b.Receipts) != 1 || b.Receipts[0] != uint64(w) {
					t.Errorf("a batch with two owners: %v", b.Receipts)
				}
				b.Free()
			}
		})
	}
	wg.Wait()
}
