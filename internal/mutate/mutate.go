// Package mutate switches planted bugs on: small mutations of the core, which the simulator must find, so that one knows what it is
// worth. Without the build tag penstock_mutate all of them are off for good: On is a constant then, and the compiler leaves the code
// behind it out. With the tag one at a time can be on, for the whole process; only the simulator's tests are built with it.
package mutate

// ID names a planted bug.
type ID uint32

// The planted bugs.
const (
	None                 ID = iota
	SettleBeforeChild       // an emitted message does not count towards its parent
	ReleaseEarly            // a slab is let go of before the last borrower has returned
	ForgetDeferred          // the last message that waited behind a key is forgotten
	CommitOverHole          // the cursor moves over messages that are not settled
	CursorBackwards         // a settled run remembers its first receipt, not its last
	DrainReversed           // what waited behind a key goes on in reverse
	LateTickLapses          // a late tick ends all leases
	RetryToAnother          // a retry goes to another consumer of the stream
	EmitsOnFailure          // a failed attempt's emits are released
	CreditOverrun           // one delivery more than the mailbox has room for
	CreditNotAsked          // the core does not ask to be told of credit
	GateStuck               // a producer that was paused is never let go on
	ResumeUnanswered        // a key goes on before the actor has answered the word
	BypassBlockedKey        // a new message is delivered though its key is blocked
	InsertUnsorted          // deferred messages queue in the order in which they come back
	DeadBeforeDurable       // a dead letter is settled before it is durable
	BurialFailureIgnored    // a dead letter that was refused counts as durable
	LapseUncounted          // an attempt that ends with its lease is not counted
	ExtendIgnored           // a lease is not extended
	ExtendEarlyLost         // a lease that is extended before the loop knows of it is not
	LapseUnasked            // a lease ends without its holder being asked
	LapseUntold             // a lease ends without its holder knowing
	DropKeepsBatch          // a dropped batch is not returned
	DropFromBlocking        // a consumer that blocks drops
	RevokedSettles          // an assignment that has ended is settled
	DoubleSettle            // messages that are open are settled with the whole
	OpenNotHoisted          // an open message of a child is not owed for its parent
	LinkEarly               // a parent of an aggregate does not wait for it
	WheelLosesTimer         // a timer that moves down a level is lost
	WindowStuck             // the window stays closed after memory was short
	WindowIgnored           // the window is always open
	DrainTooSoon            // drained is said with a message outstanding
	GiveBackSettled         // settled messages are given back at the end
	KeyNotHeldBack          // the actor shows later messages of a key that is not done with
	KeysOfAllLanes          // a key that one loop lets go of is let go for all
	KeysForgotten           // the actor forgets at a restart which keys it holds back
	PanicAcked              // a message that made the handler panic is acknowledged
	ShareUncounted          // memory is shared without a reference
	QuietWithHolds          // a paused consumer is quiet while it holds messages
	QuietWithMail           // a paused consumer is quiet while deliveries are out
	SoloTwice               // a lone message is delivered again while it is out
	SwapReverses            // queues behind keys are reversed by a swap
	RevokedCounted          // a revoked hold counts as an attempt
	RetryTooEarly           // a retry does not wait for its backoff
	EmitReorders            // an emit is added to a batch before one of its stream's
	AttemptsUnbounded       // a message is never buried for its attempts
	OldVersionServes        // a swap does not change the instance
	RetiredWhileOwed        // a consumer that is gone is retired while messages are queued for it
	RetiredWithMail         // it is retired while deliveries are out
	RetiredTwice            // it is retired again and again
	GoneStillReads          // it goes on to read its streams
	GoneNeverBuried         // what it is owed is never buried
	BuriedTooSoon           // what it is owed is buried before its time is up
	BuriedUnsettled         // what was buried for it is not settled
	RemovedHoldLost         // what it holds when its time is up is lost
	LentNotBuried           // what was lent to it when its time was up goes to it again
	LatecomerGetsOld        // who joins a stream gets what had come before
	ReshapeForgetsGates     // another graph lets paused producers go on, and forgets to pause them again
	ReshapeKeepsWindow      // another graph leaves the window as it was
	JoinsAwake              // a consumer that is to begin paused does not
	PauseNumberIgnored      // word that a pause was quiet counts for the next pause
	Count                   // the number of them, and None
)

var names = [...]string{
	"none", "settle before child", "release early", "forget deferred", "commit over hole", "cursor backwards", "drain reversed",
	"late tick lapses", "retry to another", "emits on failure", "credit overrun", "credit not asked", "gate stuck", "resume unanswered",
	"bypass blocked key", "insert unsorted", "dead before durable", "burial failure ignored", "lapse uncounted", "extend ignored",
	"extend early lost", "lapse unasked", "lapse untold", "drop keeps batch", "drop from blocking", "revoked settles", "double settle",
	"open not hoisted", "link early", "wheel loses timer", "window stuck", "window ignored", "drain too soon", "give back settled",
	"key not held back", "keys of all lanes", "keys forgotten", "panic acked", "share uncounted", "quiet with holds", "quiet with mail",
	"solo twice", "swap reverses", "revoked counted", "retry too early", "emit reorders", "attempts unbounded", "old version serves",
	"retired while owed", "retired with mail", "retired twice", "gone still reads", "gone never buried", "buried too soon",
	"buried unsettled", "removed hold lost", "lent not buried", "latecomer gets old", "reshape forgets gates", "reshape keeps window",
	"joins awake", "pause number ignored",
}

// String is the bug in a few words.
func (id ID) String() string { return names[id] }
