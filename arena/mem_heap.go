//go:build !unix || race

package arena

// memory is slabs on the Go heap: the race detector does not see mapped memory.
type memory struct{ slabSize int }

func (m *memory) open(_, slabSize int) error { m.slabSize = slabSize; return nil }

func (m *memory) close() {}

func (m *memory) slab(int) []byte { return make([]byte, m.slabSize) }

func (m *memory) discard([]byte) bool { return true }

// largeMemory moves as it grows.
type largeMemory struct{}

func (m *largeMemory) open(int) error { return nil }

func (m *largeMemory) grow(old []byte, n int) []byte {
	b := make([]byte, n)
	copy(b, old)
	return b
}

func (m *largeMemory) close() {}
