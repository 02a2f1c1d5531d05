//go:build !unix

package arena

import "sync"

// strictSpace has nothing to protect pages with here: its copies are on the heap.
type strictSpace struct {
	mu     sync.Mutex
	closed bool
}

// StrictPage is a private, read-only copy of a message. Its methods may be called from any goroutine.
type StrictPage struct {
	b    []byte
	once sync.Once
}

func newStrictSpace() (*strictSpace, error) { return &strictSpace{}, nil }

func (s *strictSpace) copy(b []byte) (*StrictPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	return &StrictPage{b: append(make([]byte, 0, len(b)), b...)}, nil
}

func (s *strictSpace) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// Bytes is the copy, read-only. It is valid until Revoke or [Arena.Close]; after that its contents are 0xDB.
func (p *StrictPage) Bytes() []byte { return p.b }

// Revoke poisons the copy. Revoking twice is one revocation.
func (p *StrictPage) Revoke() { p.once.Do(func() { fill(p.b, poison) }) }
