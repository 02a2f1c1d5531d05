//go:build unix && !linux

package arena

import "golang.org/x/sys/unix"

const mapNoReserve = 0 // these systems reserve nothing for anonymous memory, or have no such flag

// plainPages does nothing: these systems do not take memory for what is not touched.
func plainPages([]byte) {}

// giveBack lets the operating system have the memory under b; its contents are lost, its addresses stay. (Advice would leave the memory
// where it is on these systems until somebody else wants it.)
func giveBack(b []byte) error { return remap(b, unix.PROT_READ|unix.PROT_WRITE) }
