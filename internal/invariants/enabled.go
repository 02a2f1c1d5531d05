//go:build race || penstock_invariants

package invariants

// Enabled is true in this build: invariants are checked and freed memory is poisoned.
const Enabled = true
