// Package loop is the heart of Penstock: the state machine that knows who is owed which message, and the driver that runs it.
//
// [Core] is pure. It is given events, the time among them, and answers with effects; it does no I/O, reads no clock, starts no
// goroutine, and takes no lock. All that one source's messages cause, down to the last message emitted from them, belongs to the one
// Core of that source. [Driver] runs a Core with goroutines and channels.
//
//	events                                     effects
//	Arrived, Emitted      batches       Deliver                       to a mailbox, within its credit
//	Outcome               from actors   Settle                        to the source: receipts and cursor
//	HeldVerdict, ...      from holds    Evacuate, Release, Free       memory
//	Credit, Resumed       mailboxes     DeadLetter                    to be written down, then Buried
//	Buried                dead letters  LapseHold, LinkSettled        to those who hold
//	Pause, Unpause        swaps         Window                        how much the source may have under way
//	Tick, Drain           time, end     Timer, WantCredit, Quiet, Drained
//
// # Units
//
// The core keeps one unit for each batch. What is still owed for it is counted in two places: whole, which is about all its messages at
// once (that the borrowers have not all returned; units of messages emitted from it), and open, one count a message, for what is owed
// for that message alone. Message i is settled when whole and open[i] are both zero.
//
//	root unit      whole: borrowers, child units             open[i]: solos of i, open messages of child units
//	  ├─ child     the messages that one delivery emitted    parent: Batch.Parents
//	  └─ solo      one message that one consumer has not done with: retried, held, deferred, dying
//
// A clean batch never touches open: one event when its last borrower returns, and the whole batch settles.
package loop
