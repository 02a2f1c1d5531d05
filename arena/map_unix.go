//go:build unix

package arena

import "golang.org/x/sys/unix"

// mapAnon maps n bytes of anonymous memory, without taking any before it is touched.
func mapAnon(n, prot int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, prot, unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReserve)
}
