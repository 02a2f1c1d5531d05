//go:build unix && !race

package arena

import "golang.org/x/sys/unix"

// memory is one anonymous mapping for all slabs; the operating system gives it memory as it is touched.
type memory struct {
	region   []byte
	slabSize int
}

func (m *memory) open(n, slabSize int) (err error) {
	m.slabSize = slabSize
	m.region, err = mapMemory(n * slabSize)
	return err
}

func (m *memory) close() {
	if m.region != nil {
		_ = unix.Munmap(m.region) // fails only for what is not a mapping
		m.region = nil
	}
}

func (m *memory) slab(i int) []byte {
	return m.region[i*m.slabSize : (i+1)*m.slabSize : (i+1)*m.slabSize]
}

// discard gives the memory of b back; its contents are lost. It reports false if the operating system left it in place.
func (m *memory) discard(b []byte) bool { return giveBack(b) == nil }

// largeMemory is a mapping of its own.
type largeMemory struct{ region []byte }

func (m *largeMemory) open(most int) (err error) {
	if most > 0 {
		m.region, err = mapMemory(most)
	}
	return err
}

func (m *largeMemory) grow(_ []byte, n int) []byte { return m.region[:n:n] }

func (m *largeMemory) close() {
	if m.region != nil {
		_ = unix.Munmap(m.region)
		m.region = nil
	}
}

func mapMemory(n int) ([]byte, error) {
	b, err := mapAnon(n, unix.PROT_READ|unix.PROT_WRITE)
	if err == nil {
		plainPages(b)
	}
	return b, err
}
