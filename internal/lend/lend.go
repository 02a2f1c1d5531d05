// Package lend holds the key that the runtime shows when it binds messages to memory. A method that takes a Key can be called by
// Penstock's own packages only: others cannot name the type, so the interfaces that mention it are sealed and may grow.
package lend

// Key proves that the caller is part of Penstock.
type Key struct{}
