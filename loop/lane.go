package loop

import "sync/atomic"

// Lane is the way between one loop and one consumer: deliveries go out by the consumer's mailbox, a channel that it shares with the lanes
// of other loops, and reports and credit come back. An actor may use the lanes of its deliveries from any goroutine.
type Lane struct {
	driver  *Driver
	id      ConsumerID
	mailbox chan<- Delivery

	taken atomic.Uint64 // deliveries that it is done with, ever
	bytes atomic.Int64
	want  atomic.Uint64 // tell the loop when taken has come this far; 0 for not
}

// Report posts an Outcome about a delivery of this lane. It comes before the Done of that delivery.
func (l *Lane) Report(u UnitID, last bool, d *Detail) {
	l.driver.Post(Event{Kind: Outcome, Consumer: l.id, Unit: u, Last: last, Detail: d})
}

// Post posts another event about this lane's consumer.
func (l *Lane) Post(k EventKind, d *Detail) {
	l.driver.Post(Event{Kind: k, Consumer: l.id, Detail: d})
}

// Done gives the credit of a delivery back. Deliveries may be done with in any order.
func (l *Lane) Done(d *Delivery) {
	l.bytes.Add(d.Bytes)
	taken := l.taken.Add(1)
	if want := l.want.Load(); want != 0 && taken >= want && l.want.CompareAndSwap(want, 0) {
		l.driver.Post(Event{Kind: Credit, Consumer: l.id, Detail: &Detail{Items: taken, Bytes: l.bytes.Load()}})
	}
}

// Stream is the name of a stream of this lane's loop.
func (l *Lane) Stream(s StreamID) string { return l.driver.shape.Load().graph.Streams[s].Name }

// StreamID finds a stream by its name in this lane's loop.
func (l *Lane) StreamID(name string) (StreamID, bool) {
	s, ok := l.driver.shape.Load().streams[name]
	return s, ok
}

// watch asks for a Credit event when taken has come to level, at once if it has.
func (l *Lane) watch(level uint64) {
	l.want.Store(level)
	if taken := l.taken.Load(); taken >= level && l.want.CompareAndSwap(level, 0) {
		l.driver.Post(Event{Kind: Credit, Consumer: l.id, Detail: &Detail{Items: taken, Bytes: l.bytes.Load()}})
	}
}
