//go:build !penstock_mutate

package mutate

// Enabled is false in this build: there are no planted bugs.
const Enabled = false

// On is false.
func On(ID) bool { return false }
