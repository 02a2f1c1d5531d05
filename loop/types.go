package loop

import (
	"fmt"
	"time"

	"github.com/penstock-dev/penstock/arena"
)

// ConsumerID is a consumer's index in its Graph.
type ConsumerID int32

// StreamID is a stream's index in its Graph.
type StreamID int32

// UnitID names a unit of one core: an index and a generation. The zero value names none, and one that is stale is ignored.
type UnitID uint64

// Ticks is the core's time: milliseconds of a monotonic clock, from any origin.
type Ticks int64

// TicksOf is d in ticks, rounded up.
func TicksOf(d time.Duration) Ticks { return Ticks((d + time.Millisecond - 1) / time.Millisecond) }

// Overflow says what happens when a consumer is behind by more than its mailbox.
type Overflow uint8

// The policies.
const (
	Block      Overflow = iota // its messages wait, and in the end its source does
	DropOldest                 // the oldest waiting are dropped: settled, counted
)

// RetryPolicy bounds and spaces the attempts at one message by one consumer.
type RetryPolicy struct {
	Attempts int   // the most deliveries, then the dead letters; 0 for no bound
	Backoff  Ticks // after the first attempt; doubled after each
	Max      Ticks // the longest backoff
}

// Stream is an edge of the graph.
type Stream struct {
	Name      string
	Consumers []ConsumerID
}

// Consumer is a plugin or a sink as the core sees it.
type Consumer struct {
	Name     string
	Order    bool       // order by key
	Overflow Overflow   // when it is behind
	Mailbox  int64      // bytes that may wait for it: bound of DropOldest, and mark above which its producers pause
	Items    int        // credit: deliveries in its mailbox at one time
	Bytes    int64      // credit: bytes in its mailbox at one time; one delivery is always allowed
	Emits    []StreamID // the streams that it emits to
	Retry    RetryPolicy
	Epoch    uint32 // of the instance that runs at the start
	Paused   bool   // it begins paused
	Gone     bool   // it reads no stream any more, and gets what is owed to it; see Reshape
}

// Graph is the part of a pipeline that one source's messages can reach. Streams[0] is the source's own. It is acyclic, and never
// changes while a core uses it: Reshape gives the core another, in which what was there has the same place.
type Graph struct {
	Streams   []Stream
	Consumers []Consumer
}

// Window bounds what a source may have unsettled.
type Window struct {
	Messages int
	Bytes    int64
}

// Delivery is a batch, or a part of it, on loan to one consumer; or, with Batch nil, only word that keys go on.
type Delivery struct {
	Batch    *arena.Batch
	Special  *Special // nil for a whole, first delivery
	Lane     *Lane    // where the actor reports; set by the driver
	Unit     UnitID
	Bytes    int64
	Attempt  int32
	Stream   StreamID
	Consumer ConsumerID
}

// Special is what most deliveries do not have. It belongs to the receiver of the delivery.
type Special struct {
	Pick   []uint32 // the messages meant, ascending; nil for all
	Resume []uint64 // keys that the consumer no longer keeps back, from this delivery on
	Solo   bool     // a message that has left its batch: it is answered by an Outcome in any case
}

// Len is the number of messages in d.
func (d *Delivery) Len() int {
	switch {
	case d.Batch == nil:
		return 0
	case d.Special != nil && d.Special.Pick != nil:
		return len(d.Special.Pick)
	default:
		return d.Batch.Len()
	}
}

// What says what became of an exceptional message.
type What uint8

// What can become of it.
const (
	Failed   What = iota // an error: the policy decides
	Retried              // asked to come again
	Rejected             // to the dead letters
	Held                 // the verdict comes later
	Deferred             // not shown to the handler: a message of its key is not done with
	Revoked              // not shown to the handler, or its verdict no longer counts: the instance was replaced
)

var whatNames = [...]string{"failed", "retried", "rejected", "held", "deferred", "revoked"}

// String is the name in lower case.
func (w What) String() string {
	if int(w) < len(whatNames) {
		return whatNames[w]
	}
	return fmt.Sprintf("what(%d)", uint8(w))
}

// Token names a hold: the epoch of the instance that made it, and its number there.
type Token struct {
	Epoch uint32
	Seq   uint64
}

// Exception is a message of a delivery that was not simply acknowledged.
type Exception struct {
	Index uint32 // in the delivery's batch
	What  What
	After Ticks        // Failed, Retried: wait this long, 0 for the policy's backoff. Held: the lease
	Cause error        // Failed, Retried, Rejected
	Token Token        // Held
	Into  *arena.Batch // Held: the message's own copy, one frame; the core owns it from now on
	From  Handle       // Held: whom to tell when the lease lapses
}

// Handle is the holder's end of a hold. The core only keeps it, and gives it back with LapseHold.
type Handle any

// Emit is a batch of messages that a consumer emitted. Batch.Parents holds, for each, the index of its parent in the unit that the
// Outcome is about; it is empty for messages without a parent.
type Emit struct {
	Stream StreamID
	Batch  *arena.Batch
	Links  []uint64 // announced by LinkSettled once all of the batch has settled
}

// EventKind says which event an Event is.
type EventKind uint8

// The events, and the fields that each uses.
const (
	Arrived      EventKind = iota // Batch, of the source, and its Bytes
	Emitted                       // Detail.Emits, without parents
	Outcome                       // Consumer, Unit, Last, Detail.Exceptions, Detail.Emits
	HeldVerdict                   // Consumer, Token, Detail.Exceptions[0] (Retried, Rejected, Failed; none to acknowledge), .Emits, .Link
	HoldExtended                  // Consumer, Token, After
	HoldReopened                  // Consumer, Token: the verdict that was under way is withdrawn
	HoldLapsed                    // Consumer, Token: the answer to LapseHold, when no verdict came first
	LinkSettled                   // Link: everything emitted under it has settled
	Credit                        // Consumer, Items and Bytes: how much it has taken from its mailbox, in all
	Resumed                       // Consumer, Keys: it keeps these back no longer, and all it kept back has been reported
	Buried                        // Unit, Err: the dead letter is durable, or is not
	Pause                         // Consumer, After, Pause: deliver nothing more; Quiet when it has returned all; holds lapse after that long
	Unpause                       // Consumer, Epoch: deliver again; holds of older epochs no longer count; On: what waits for a backoff, too
	Assign                        // Partition, Epoch: a new assignment
	Revoke                        // Partition: nothing of it is settled any more
	Pressure                      // On: there is no memory for what must stay; the source waits
	Tick                          // Now
	Drain                         // After: no more arrivals; Drained when all has settled, or after that long, 0 for no bound
	Reshape                       // Graph, Window, After: another graph; Retired when who is gone is owed nothing; that is buried after that time
	Mark                          // remember the time, to tell ages by
)

var eventNames = [...]string{
	"arrived", "emitted", "outcome", "held-verdict", "hold-extended", "hold-reopened", "hold-lapsed",
	"link-settled", "credit", "resumed", "buried", "pause", "unpause", "assign", "revoke", "pressure", "tick", "drain",
	"reshape", "mark",
}

// String is the name as scenarios write it.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// Event is something that has happened. What its fields mean, and which are used, depends on Kind.
type Event struct {
	Kind     EventKind
	Last     bool // Outcome: the last borrower of the batch has returned
	Consumer ConsumerID
	Unit     UnitID
	Batch    *arena.Batch
	Bytes    int64   // Arrived: the batch's, so that they are added up once
	Detail   *Detail // what rare events carry
}

// Detail is the part of an Event that a clean batch does not need. It belongs to the core once the event has been given.
type Detail struct {
	Exceptions []Exception
	Emits      []Emit
	Token      Token
	Link       uint64
	Keys       []uint64
	Items      uint64
	Bytes      int64
	Partition  uint32
	Epoch      uint32
	After      Ticks
	Now        Ticks
	On         bool
	Err        error
	Pause      uint64 // its number
	Graph      *Graph
	Window     Window // the zero value leaves it as it is
}

// EffectKind says which effect an Effect is.
type EffectKind uint8

// The effects, and the fields that each uses.
const (
	Deliver      EffectKind = iota // Delivery, to its Consumer's mailbox, which has room for it
	Settle                         // Settlement
	Release                        // Batch: let go of its slab
	Free                           // Batch: give it back
	Evacuate                       // From, Index, Into: copy one message to memory of its own
	Share                          // From, Into: give Into a reference to the memory of From, a batch of one message
	DeadLetter                     // Letter
	LapseHold                      // Consumer, Token, Handle: end the lease; HoldLapsed if no verdict came first
	AnnounceLink                   // Link: LinkSettled, to every loop that may hold one of its parents
	SetWindow                      // Window: how much the source may have unsettled
	SetTimer                       // At: Tick not later than then; 0 for none
	WantCredit                     // Consumer, Items: Credit when it has taken so many in all
	Quiet                          // Consumer: in this Pause, nothing of it is out; Count is what was redelivered or will be
	Drained                        // nothing is left; Count is what was given back to the source
	Retired                        // Consumer: it is gone, and nothing is owed to it
)

var effectNames = [...]string{
	"deliver", "settle", "release", "free", "evacuate", "share", "dead-letter", "lapse-hold", "announce-link",
	"window", "timer", "want-credit", "quiet", "drained",
	"retired",
}

// String is the name as scenarios write it.
func (k EffectKind) String() string {
	if int(k) < len(effectNames) {
		return effectNames[k]
	}
	return fmt.Sprintf("effect(%d)", uint8(k))
}

// Effect is something to be done, in the order of the slice that it is in. Which fields are used depends on Kind.
type Effect struct {
	Kind       EffectKind
	Consumer   ConsumerID
	Unit       UnitID
	Batch      *arena.Batch
	Into       *arena.Batch
	Index      uint32
	Count      int
	Pause      uint64
	At         Ticks
	Items      uint64
	Link       uint64
	Token      Token
	Handle     Handle
	Window     Window
	Delivery   Delivery
	Settlement Settlement
	Letter     Letter
}

// Settlement is what a source is told. Receipts are valid until the next Step.
type Settlement struct {
	Returned  bool // given back unsettled: the runtime stops
	Void      bool // of an assignment that has ended: only the window hears of it
	Messages  int
	Partition uint32
	Epoch     uint32
	Receipts  []uint64
	Cursor    uint64
	HasCursor bool
	Bytes     int64
}

// Letter is a message on its way to the dead letters. Its bytes are Batch's, of one frame, until Buried.
type Letter struct {
	Stream    StreamID
	Attempts  int
	Cause     error
	First     Ticks  // when it left its batch: its first attempt had ended
	Partition uint32 // of the source's message that it comes from
	Receipt   uint64 // of that message; 0 if it comes from none
}

// Counts is what a core has seen. Messages, unless it says otherwise.
type Counts struct {
	Accepted, Settled, Returned uint64
	Oldest                      Ticks // the oldest message has been unsettled for at least that long; as exact as Mark comes often
	Consumers                   []ConsumerCounts
}

// ConsumerCounts is what a core has seen of one consumer.
type ConsumerCounts struct {
	Delivered uint64 // to its mailbox, again included
	Retried   uint64 // verdicts that asked for another attempt, lapsed leases included
	Held      uint64
	Deferred  uint64
	Lapsed    uint64 // leases
	Dead      uint64
	Dropped   uint64
	Emitted   uint64
	Revoked   uint64
	Waiting   int   // owed, not delivered
	Blocked   int   // keys
	Out       int   // deliveries in its mailbox, or at it
	Oldest    Ticks // the oldest message that it is owed came to the source at least that long ago; as exact as Mark comes often
}
