//go:build penstock_mutate

package mutate

import "sync/atomic"

// Enabled is true in this build: a planted bug can be switched on.
const Enabled = true

// active is the bug that is on. It is the one process-wide switch of the project, and exists under a test-only tag: carried through
// configurations it would be in every build.
var active atomic.Uint32

// On says whether a bug is on. It may be called from any goroutine.
func On(id ID) bool { return active.Load() == uint32(id) }

// Set switches one bug on, and the one before off; None is none.
func Set(id ID) { active.Store(uint32(id)) }
