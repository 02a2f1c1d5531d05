//go:build unix

package stdout

import (
	"io"
	"os"
	"syscall"
)

// openStdout is the standard output under another number: on descriptor 1 Go would end the process when the reader closes the pipe,
// where an error is wanted.
func openStdout() (io.WriteCloser, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Dup(int(os.Stdout.Fd()))
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), os.Stdout.Name()), nil
}
