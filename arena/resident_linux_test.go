package arena

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residentBytes is how much memory the operating system says that b, which begins at a page, takes.
func residentBytes(b []byte) (n int64, err error) {
	page := os.Getpagesize()
	vec := make([]byte, (len(b)+page-1)/page)
	from, to := uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&vec[0]))
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, from, uintptr(len(b)), to); errno != 0 {
		return 0, errno
	}
	for _, v := range vec {
		n += int64(v&1) * int64(page)
	}
	return n, nil
}
