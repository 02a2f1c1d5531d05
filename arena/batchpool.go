package arena

import (
	"sync"
	"unsafe"
)

// batchPool keeps freed batches and their slices for reuse, hottest first. Beyond its limit they are left to the garbage collector.
type batchPool struct {
	limit int64 // bytes

	mu    sync.Mutex
	free  []*Batch
	bytes int64 // of what is kept
}

// NewBatch is an empty batch. The caller owns it; [Batch.Free] gives it back. It is safe for concurrent use and allocates only when no
// freed batch is kept.
func (a *Arena) NewBatch() *Batch {
	p := &a.batches
	p.mu.Lock()
	n := len(p.free)
	if n == 0 {
		p.mu.Unlock()
		return &Batch{home: a}
	}
	b := p.free[n-1]
	p.free[n-1] = nil
	p.free = p.free[:n-1]
	p.bytes -= b.footprint()
	p.mu.Unlock()
	b.freed = false
	return b
}

func (a *Arena) putBatch(b *Batch) {
	size := b.footprint()
	p := &a.batches
	p.mu.Lock()
	if p.bytes+size <= p.limit {
		p.free = append(p.free, b)
		p.bytes += size
	}
	p.mu.Unlock()
}

// footprint is the memory of b and its slices in bytes.
func (b *Batch) footprint() int64 {
	return int64(unsafe.Sizeof(*b)) + int64(cap(b.Frames))*int64(unsafe.Sizeof(Frame{})) +
		8*int64(cap(b.Receipts)+cap(b.Hashes)) + 4*int64(cap(b.Parents))
}
