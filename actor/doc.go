// Package actor runs one plugin: it owns the plugin's mailbox, its instance, and its life.
//
//	loops ──> mailbox ──> worker ──> Handler      one worker in mode actor, n in mode pool
//	  ^                     |
//	  └── Outcome, credit ──┘
//
// The mailbox outlives instances: a plugin that panics is restarted, and one that is replaced hands over, without a message leaving the
// mailbox. What the handler does not acknowledge becomes an exception in the report to the loop that the delivery came from; what it
// emits is copied into a slab of the plugin's own and goes out with the report. The actor keeps no dispatch state but the keys that it
// holds back: those of which a message is not done with.
package actor
