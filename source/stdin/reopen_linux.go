package stdin

import (
	"io"
	"os"
	"strconv"
	"syscall"
)

// reopen opens a pipe again, so that its reads can be ended: a file descriptor that the process was started with blocks, and making it
// not do so would change it for all who share it. opened is nil if r is no pipe, or cannot be opened again.
func reopen(r io.Reader) (_ io.Reader, opened *os.File) {
	f, ok := r.(*os.File)
	if !ok {
		return r, nil
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return r, nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return r, nil
	}
	err = raw.Control(func(fd uintptr) {
		opened, _ = os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(fd)), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	})
	if err != nil || opened == nil {
		return r, nil
	}
	return opened, opened
}
