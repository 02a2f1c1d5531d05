//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package fsx

import (
	"os"
	"syscall"
)

// tryLock takes an flock, which belongs to the open file: it ends with its Close or with the process, and a second one in the same
// process conflicts too.
func tryLock(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	err = conn.Control(func(fd uintptr) {
		for {
			lockErr = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB)
			if lockErr != syscall.EINTR {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if lockErr == syscall.EWOULDBLOCK {
		return ErrLocked
	}
	return lockErr
}
