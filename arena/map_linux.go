package arena

import "golang.org/x/sys/unix"

const mapNoReserve = unix.MAP_NORESERVE

// plainPages keeps the operating system from backing b with huge pages, of which one touched byte takes 2 MiB: the budget counts what is
// touched. (Measured: huge pages make copying through slabs no faster.)
func plainPages(b []byte) {
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) // fails where there are no huge pages
}

// giveBack lets the operating system have the memory under b; its contents are lost, its addresses stay.
func giveBack(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }
