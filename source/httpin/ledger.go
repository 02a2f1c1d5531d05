package httpin

import (
	"sync"

	"github.com/penstock-dev/penstock/source"
)

// A receipt is [ request: 40 bits | message: 24 bits ]. A request with more messages than its lower bits count takes another number.
const (
	messageBits = 24
	messageMask = 1<<messageBits - 1
	requestMask = 1<<(64-messageBits) - 1
)

// ledger knows the requests that are under way. Its methods may be called concurrently, and do not block.
type ledger struct {
	shut chan struct{} // closed by close: nothing will be settled any more
	idle chan struct{} // closed when no request reads, and none will begin to

	mu       sync.Mutex
	open     map[uint64]*request // by number; a request may have several
	next     uint64
	reading  int
	draining bool
	closed   bool
}

func newLedger() *ledger {
	return &ledger{shut: make(chan struct{}), idle: make(chan struct{}), open: map[uint64]*request{}, next: 1}
}

// begin takes a request in; it reports false if the source is draining. Otherwise stopReading and end must follow.
func (l *ledger) begin(q *request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		return false
	}
	l.reading++
	l.number(q)
	return true
}

// renumber gives q one more number.
func (l *ledger) renumber(q *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number(q)
}

func (l *ledger) number(q *request) {
	id := l.next & requestMask
	l.next++
	l.open[id] = q
	q.ids = append(q.ids, id)
	q.receipt = id << messageBits
}

// stopReading says that q accepts nothing more.
func (l *ledger) stopReading() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading--
	l.still()
}

// still closes idle once there is nobody left who reads. The caller holds l.mu.
func (l *ledger) still() {
	if l.draining && l.reading == 0 {
		close(l.idle)
	}
}

// end forgets q: its receipts are stale from now on.
func (l *ledger) end(q *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range q.ids {
		delete(l.open, id)
	}
}

// drain lets no request begin any more and stops those that read.
func (l *ledger) drain() {
	l.mu.Lock()
	if l.draining {
		l.mu.Unlock()
		return
	}
	l.draining = true
	l.still()
	list := make([]*request, 0, len(l.open))
	for _, q := range l.open {
		list = append(list, q)
	}
	l.mu.Unlock()
	for _, q := range list {
		q.watch.stop(errDraining)
	}
}

// close says that nothing will be settled any more.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.shut)
	}
}

// settle tells the requests of these receipts. Receipts of a request that has been answered are stale, and do nothing.
func (l *ledger) settle(receipts []uint64, outcome source.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; i < len(receipts); {
		id := receipts[i] >> messageBits
		n := 1
		for i+n < len(receipts) && receipts[i+n]>>messageBits == id {
			n++
		}
		i += n
		if q := l.open[id]; q != nil {
			q.count.settle(n, outcome)
		}
	}
}

// count is what has become of the messages of one request.
type count struct {
	done chan struct{} // has one token once all has been accepted and each is settled or returned

	mu       sync.Mutex
	accepted int
	settled  int
	returned int
	complete bool // nothing more will be accepted
}

// add counts n more accepted messages; a negative n takes back what the runtime refused.
func (c *count) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted += n
}

func (c *count) settle(n int, outcome source.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.accepted-c.settled-c.returned)
	if outcome == source.Settled {
		c.settled += n
	} else {
		c.returned += n
	}
	c.look()
}

// finish says that nothing more will be accepted.
func (c *count) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complete = true
	c.look()
}

// look leaves the token. The caller holds c.mu.
func (c *count) look() {
	if c.complete && c.settled+c.returned == c.accepted {
		select {
		case c.done <- struct{}{}:
		default:
		}
	}
}

// tally is what has become of the messages so far.
func (c *count) tally() (accepted, settled, returned int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted, c.settled, c.returned
}
