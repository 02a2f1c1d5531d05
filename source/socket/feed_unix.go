//go:build unix

package socket

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketFeed is the feed of a socket. It allocates nothing after it has been made.
type socketFeed struct {
	raw    syscall.RawConn
	doRead func(fd uintptr) bool
	doWait func(fd uintptr) bool

	// of the call that is under way
	buf  []byte
	n    int
	err  error
	idle func()

	short bool // the last read was not filled
	fds   [1]unix.PollFd
}

// newFeed makes the feed of conn.
func newFeed(conn net.Conn) feed {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return &bufferedFeed{conn: conn}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return &bufferedFeed{conn: conn}
	}
	f := &socketFeed{raw: raw, short: true}
	f.doRead, f.doWait = f.tryRead, f.tryWait
	return f
}

func (f *socketFeed) drained() bool { return f.short }

func (f *socketFeed) read(p []byte) (int, error) {
	f.buf = p
	err := f.raw.Read(f.doRead)
	f.buf = nil
	if err != nil {
		return 0, err
	}
	f.short = f.n < len(p)
	return f.n, f.err
}

// tryRead reads once. It always says that it is done, so that RawConn.Read does not wait.
func (f *socketFeed) tryRead(fd uintptr) bool {
	f.n, f.err = 0, nil
	for {
		n, err := syscall.Read(int(fd), f.buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			f.err = notReady{}
		case err != nil:
			f.err = os.NewSyscallError("read", err)
		case n == 0 && len(f.buf) > 0:
			f.err = io.EOF
		default:
			f.n = n
		}
		return true
	}
}

func (f *socketFeed) wait(idle func()) error {
	f.idle = idle
	err := f.raw.Read(f.doWait)
	f.idle = nil
	return err
}

// tryWait says whether there is something to read. It looks itself each time, for the poller may bring word of what has been read since.
func (f *socketFeed) tryWait(fd uintptr) bool {
	f.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		n, err := unix.Poll(f.fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		if n > 0 || err != nil { // what is wrong with it a read will say
			return true
		}
		if f.idle != nil {
			f.idle()
			f.idle = nil
		}
		return false
	}
}
