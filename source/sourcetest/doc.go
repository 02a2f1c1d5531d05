// Package sourcetest is the exam that every source sits: the promises of package source, tried on a real arena.
//
//	func TestConformance(t *testing.T) {
//		sourcetest.Run(t, sourcetest.Features{Cursor: true}, func(t *testing.T) sourcetest.Fixture { return newFixture(t) })
//	}
//
// # What it checks
//
// All messages come once and unchanged, in the order in which they were put (per partition); also those larger than a slab. Ready is asked
// before each batch, and while it blocks nothing is read. When the budget is exhausted the source waits, and goes on when there is room. Run
// ends promptly with its context and when the runtime takes no more, and leaves no goroutine, slab or batch. Each batch has one receipt per
// frame, no receipt comes twice in an assignment, and its epoch is that of its partition. Settle returns while everything else is stuck.
// What is not settled comes again after a restart, what is settled does not, and a hole is never committed over. A settlement of a revoked
// assignment changes nothing. What is returned comes again. Which of these are asked of a source is for [Features] to say.
//
// # What it does not check
//
// Throughput and allocations. Crashes: a restart is Run ending, then Close, then a new source; only the exam of Checkpoint leaves Close out.
// A torn write of a cursor file. Broken connections and what a server does then. Empty messages, keys and headers. The order of messages
// that come again. More than one open source at a time (two members of a group). Time: it uses the machine's clock, and waits for an event
// up to Features.Patience before it gives up.
package sourcetest
