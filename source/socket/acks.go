package socket

import (
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	lingerTime  = time.Second // how long a peer is heard out so that it can read our last words
	lingerBytes = 1 << 20
)

// acks is what a connection is to be told, and its end. Whoever has news starts a goroutine that writes, if there is none; that one writes
// the newest count until there is no newer one. So a peer that does not read keeps one goroutine, and nobody waits for it.
type acks struct {
	mu      sync.Mutex
	ledger  ledger
	told    uint64 // the last count that was written
	total   uint64 // messages accepted, once ended
	writing bool   // a goroutine writes
	ended   bool   // no further message is accepted
	closing bool   // the source is being closed: what is not settled by now will not be
	broken  bool   // nothing can be written any more
	lingers bool   // the peer is being heard out: reading must not be interrupted
	why     string // to be said before the end
}

// settled notes that n messages are settled, the first of which has that number in the slot.
func (c *conn) settled(number, n uint64) {
	from := (number - c.base) & numberMask
	if from > numberMask/2 {
		return // of an earlier connection in the slot
	}
	a := &c.acks
	a.mu.Lock()
	a.ledger.settle(from, from+n)
	c.kick()
	a.mu.Unlock()
}

// end says that no further message is accepted, and what the peer is to be told before the connection is closed.
func (c *conn) end(why string) {
	a := &c.acks
	a.mu.Lock()
	a.ended, a.why, a.total = true, why, c.accepted
	_ = c.socket.SetWriteDeadline(time.Now().Add(patience)) // for a write that has been waiting
	c.kick()
	a.mu.Unlock()
}

// finish says that nothing more will be settled.
func (c *conn) finish() {
	a := &c.acks
	a.mu.Lock()
	a.closing = true
	_ = c.socket.SetWriteDeadline(time.Now().Add(lingerTime))
	c.kick()
	a.mu.Unlock()
}

// news says whether there is a newer count to tell. The caller holds acks.mu.
func (c *conn) news() bool {
	return c.s.cfg.Acks && !c.acks.broken && c.acks.ledger.prefix != c.acks.told
}

// over says whether, news aside, the connection may be closed. The caller holds acks.mu.
func (c *conn) over() bool {
	a := &c.acks
	return a.ended && (a.closing || a.broken || !c.s.cfg.Acks || a.ledger.prefix == a.total)
}

// allSettled says whether the peer has nothing to wait for.
func (c *conn) allSettled() bool {
	c.acks.mu.Lock()
	defer c.acks.mu.Unlock()
	return !c.s.cfg.Acks || c.acks.ledger.prefix == c.counted.Load()
}

// kick has somebody write if there is something to write. The caller holds acks.mu.
func (c *conn) kick() {
	if !c.acks.writing && (c.news() || c.over()) {
		c.acks.writing = true
		go c.tell()
	}
}

// tell writes the newest count until there is none, and closes the connection if it is over.
func (c *conn) tell() {
	a := &c.acks
	var room [64]byte
	for {
		a.mu.Lock()
		switch {
		case c.news():
			n, peer := a.ledger.prefix, c.peer
			if a.ended {
				_ = c.socket.SetWriteDeadline(time.Now().Add(c.lastWrite()))
			}
			a.mu.Unlock()
			var digits [20]byte
			_, err := peer.Write(c.s.dialect.appendFrame(room[:0], strconv.AppendUint(digits[:0], n, 10)))
			a.mu.Lock()
			a.told = n
			if err != nil {
				a.broken = true
				c.hangUp() // the reader hears of it
			}
			a.mu.Unlock()
		case c.over():
			a.mu.Unlock()
			c.bye()
			return
		default:
			a.writing = false
			a.mu.Unlock()
			return
		}
	}
}

// lastWrite is how long a write at the end of a connection may take. The caller holds acks.mu.
func (c *conn) lastWrite() time.Duration {
	if c.acks.closing {
		return lingerTime
	}
	return patience
}

// bye closes the connection, after the last words if there are any.
func (c *conn) bye() {
	a := &c.acks
	a.mu.Lock()
	words := a.why != "" && !a.broken
	polite := !c.heardEnd && !a.broken && (words || c.s.cfg.Acks && a.total > 0)
	a.lingers = polite
	_ = c.socket.SetWriteDeadline(time.Now().Add(lingerTime))
	peer := c.peer
	a.mu.Unlock()
	if words {
		_, _ = peer.Write(c.s.dialect.appendFrame(nil, []byte(a.why))) // a peer that is gone need not hear it
	}
	if polite {
		linger(peer, c.socket)
	}
	_ = peer.Close() // nothing that was written waits here; TLS says that it ends
	c.s.release(c)
}

// linger ends what is written, and reads for a while what the peer still sends: closing a socket that has unread bytes would destroy what
// the peer has not read yet.
func linger(peer, socket net.Conn) {
	if half, ok := peer.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() != nil {
			return
		}
	}
	_ = socket.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, onlyReader{socket}, lingerBytes)
}

// onlyReader keeps io.Copy from other methods of a connection.
type onlyReader struct{ io.Reader }
