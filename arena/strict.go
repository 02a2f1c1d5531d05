package arena

import "fmt"

// StrictCopy copies b to pages of its own, so placed that its end touches an inaccessible page: reading past the end faults, and so
// does writing anywhere in the copy, and every use after [StrictPage.Revoke]. It is for tests and for --strict-borrow: each copy costs
// system calls and whole pages outside of the budget. Where there are no pages to protect (on systems that are not Unix) the copy is
// on the heap and poisoned when it is revoked.
//
// The error wraps ErrNotStrict or ErrClosed, or is that of the operating system. The caller revokes the page. Safe for concurrent use.
func (a *Arena) StrictCopy(b []byte) (*StrictPage, error) {
	if a.strict == nil {
		return nil, fmt.Errorf("arena: strict copy of %d bytes: %w: set Config.Strict", len(b), ErrNotStrict)
	}
	p, err := a.strict.copy(b)
	if err != nil {
		return nil, fmt.Errorf("arena: strict copy of %d bytes: %w", len(b), err)
	}
	return p, nil
}
