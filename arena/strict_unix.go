//go:build unix

package arena

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// strictRegionSize is how much address space goes by before an address may come again: 16 GiB, or 256 MiB where addresses have 32 bits.
const strictRegionSize = 256 << 20 << (^uint(0) >> 63 * 6)

// strictSpace hands out pages of a large region in order, and never the same twice.
//
//	region   [ revoked, inaccessible ... | copy | guard | copy | guard | not used yet, inaccessible ... ]
//	                                                                   next
//
// What is inaccessible on both sides of a boundary is one mapping for the operating system, so that their number stays about twice
// that of the live copies. When a region has been gone through another is reserved; one without live copies is then unmapped.
type strictSpace struct {
	pageSize int

	mu     sync.Mutex
	region *strictRegion
	past   []*strictRegion
	closed bool
}

type strictRegion struct {
	mem  []byte
	next int // first byte not handed out
	live int // copies not revoked
}

// StrictPage is a private, read-only copy of a message. Its methods may be called from any goroutine.
type StrictPage struct {
	b      []byte
	pages  []byte
	space  *strictSpace
	region *strictRegion // nil once revoked; guarded by space.mu
}

func newStrictSpace() (*strictSpace, error) {
	s := &strictSpace{pageSize: os.Getpagesize()}
	return s, s.reserve(strictRegionSize)
}

// reserve makes a new region the current one. The caller holds s.mu, or is alone with s.
func (s *strictSpace) reserve(size int) error {
	mem, err := mapAnon(size, unix.PROT_NONE)
	if err != nil {
		return fmt.Errorf("reserving %d bytes of address space: %w", size, err)
	}
	kept := s.past[:0]
	for _, r := range s.past {
		if r.live > 0 {
			kept = append(kept, r)
		} else {
			_ = unix.Munmap(r.mem)
		}
	}
	s.past = kept
	if s.region != nil {
		s.past = append(s.past, s.region)
	}
	s.region = &strictRegion{mem: mem}
	return nil
}

func (s *strictSpace) copy(b []byte) (*StrictPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	size := max(len(b)+s.pageSize-1, s.pageSize) / s.pageSize * s.pageSize
	if s.region.next+size+s.pageSize > len(s.region.mem) {
		if err := s.reserve(max(len(s.region.mem), size+s.pageSize)); err != nil {
			return nil, err
		}
	}
	r := s.region
	pages := r.mem[r.next : r.next+size : r.next+size]
	if err := unix.Mprotect(pages, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, fmt.Errorf("making pages writable: %w", err)
	}
	copy(pages[size-len(b):], b)
	if err := unix.Mprotect(pages, unix.PROT_READ); err != nil {
		_ = remap(pages, unix.PROT_NONE) // the first failure is the one to tell
		return nil, fmt.Errorf("making pages read-only: %w", err)
	}
	r.next += size + s.pageSize
	r.live++
	return &StrictPage{b: pages[size-len(b):], pages: pages, space: s, region: r}, nil
}

func (s *strictSpace) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, r := range append(s.past, s.region) {
		_ = unix.Munmap(r.mem)
	}
	s.past, s.region = nil, nil
}

// Bytes is the copy, read-only. It is valid until Revoke or [Arena.Close]; the slice is the same after that, and using it faults.
func (p *StrictPage) Bytes() []byte { return p.b }

// Revoke makes the copy inaccessible for good and gives its memory back. Revoking twice is one revocation.
func (p *StrictPage) Revoke() {
	p.space.mu.Lock()
	defer p.space.mu.Unlock()
	if p.region == nil || p.space.closed {
		return
	}
	if err := remap(p.pages, unix.PROT_NONE); err != nil {
		panic(fmt.Sprintf("arena: revoking a strict copy of %d bytes: %v: a use after release would go unnoticed", len(p.b), err))
	}
	p.region.live--
	p.region = nil
}

// remap puts fresh anonymous memory, which takes nothing until it is touched, in the place of b.
func remap(b []byte, prot int) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&b[0]), uintptr(len(b)), prot,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED|mapNoReserve)
	return err
}
