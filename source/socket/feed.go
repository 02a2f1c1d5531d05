package socket

import "net"

// feed is the bytes of a connection, without waiting for them unless asked to: whoever would wait gives back its memory first. It belongs
// to one goroutine; a read deadline or closing the connection ends what it waits for.
type feed interface {
	// read reads what is there; notReady if that is nothing.
	read(p []byte) (int, error)
	// wait returns when a read will find something, an end or an error. Before it has to wait it calls idle, once.
	wait(idle func()) error
	// drained says that the last read took all that was there.
	drained() bool
}

// smallRead is how much a bufferedFeed reads at most, and holds.
const smallRead = 8 << 10

// bufferedFeed is the feed of a connection that cannot be asked whether there is something: it waits by reading into a small buffer.
type bufferedFeed struct {
	conn   net.Conn
	buf    []byte
	unread []byte
	err    error
}

func (f *bufferedFeed) read(p []byte) (int, error) {
	if len(f.unread) > 0 {
		n := copy(p, f.unread)
		f.unread = f.unread[n:]
		return n, nil
	}
	if err := f.err; err != nil {
		f.err = nil
		return 0, err
	}
	return 0, notReady{}
}

func (f *bufferedFeed) wait(idle func()) error {
	if len(f.unread) > 0 || f.err != nil {
		return nil
	}
	idle()
	if f.buf == nil {
		f.buf = make([]byte, smallRead)
	}
	n, err := f.conn.Read(f.buf)
	f.unread, f.err = f.buf[:n], err
	return nil
}

func (f *bufferedFeed) drained() bool { return len(f.unread) == 0 && f.err == nil }
