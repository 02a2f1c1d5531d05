package arena

import "sync/atomic"

// Frame says where one message lies within its batch's slab. Offsets and lengths are in bytes; a length of zero means absent.
type Frame struct {
	Off, Len       uint32 // payload
	KeyOff, KeyLen uint32 // key; often a part of the payload
	HdrOff, HdrLen uint32 // header block, see [AppendHeader]
}

// Batch is the unit of hand-off between layers: the frames of one read, all in one slab.
//
//	Batch ──> Slab   [ m0 | m1 |   m2   | m3 | ... ]      one reference, let go by Free or ReleaseSlab
//	  Frames   {off,len} {off,len} ...                    one entry a message
//	  Receipts [ r0, r1, r2, r3 ]                         roots: what the source needs to settle each message
//	  Hashes   [ h0, h1, h2, h3 ]                         empty, or one key hash a message
//	  Parents  [ p0, p1, p1, p3 ]                         emits: index of the parent within the parent's unit
//
// Ownership moves with the batch: the source fills it, then the loop owns it, and the loop alone frees it. Between Lend and the last
// Return the frames and the slab are read-only for everybody. A Batch is reused after Free; its slices keep their capacity, so that
// a system in its stride allocates nothing.
type Batch struct {
	Slab     *Slab
	Frames   []Frame
	Receipts []uint64
	Hashes   []uint64
	Parents  []uint32

	Partition uint32 // of the source; 0 where it has none
	Epoch     uint32 // assignment epoch of that partition

	Trail Trail // nil for most

	borrowers atomic.Int32
	home      *Arena // nil if not made by NewBatch
	freed     bool
}

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.Frames) }

// Bytes is the sum of the lengths of payloads and header blocks.
func (b *Batch) Bytes() int {
	n := 0
	for i := range b.Frames {
		n += int(b.Frames[i].Len) + int(b.Frames[i].HdrLen)
	}
	return n
}

// Payload is the payload of message i. It is valid while the caller borrows the batch.
func (b *Batch) Payload(i int) []byte { f := &b.Frames[i]; return b.span(f.Off, f.Len) }

// Key is the key of message i, nil where it has none. It is valid while the caller borrows the batch.
func (b *Batch) Key(i int) []byte { f := &b.Frames[i]; return b.span(f.KeyOff, f.KeyLen) }

// Headers is the header block of message i, to be read with [Header]. It is valid while the caller borrows the batch.
func (b *Batch) Headers(i int) []byte { f := &b.Frames[i]; return b.span(f.HdrOff, f.HdrLen) }

func (b *Batch) span(off, n uint32) []byte {
	if n == 0 {
		return nil
	}
	return b.Slab.Bytes()[off : off+n : off+n]
}

// Lend sets the number of borrowers that will call Return. It is called once, before the batch is shown to any of them.
func (b *Batch) Lend(borrowers int) { b.borrowers.Store(int32(borrowers)) }

// Return says that one borrower will not touch the batch again. It reports whether that was the last one; then, and only then, the
// caller tells the loop.
func (b *Batch) Return() (last bool) { return b.borrowers.Add(-1) == 0 }

// Borrowers is the number of borrowers that have not returned. It is exact only when nobody else can call Return.
func (b *Batch) Borrowers() int { return int(b.borrowers.Load()) }

// ReleaseSlab lets go of the slab and keeps the rest (receipts and parents are still needed until all is settled).
func (b *Batch) ReleaseSlab() {
	if b.Slab != nil {
		b.Slab.Release()
		b.Slab = nil
	}
}

// Free lets go of the slab, if that has not been done, and gives the batch back for reuse. It is the caller's last use of the batch.
// It panics if the batch has been freed and not been handed out again.
func (b *Batch) Free() {
	if b.freed {
		panic("arena: batch freed twice: only its owner frees it, once")
	}
	b.ReleaseSlab()
	if b.Trail != nil {
		b.Trail.Leave()
		b.Trail = nil
	}
	b.Frames, b.Receipts, b.Hashes, b.Parents = b.Frames[:0], b.Receipts[:0], b.Hashes[:0], b.Parents[:0]
	b.Partition, b.Epoch = 0, 0
	b.borrowers.Store(0)
	if b.home != nil {
		b.freed = true
		b.home.putBatch(b)
	}
}
