// Package arena holds the bytes of messages: memory off the Go heap, under a budget, lent by reference count.
//
// # The memory
//
// A budget is one mapping, cut in slabs of equal size. Memory is taken from the operating system as slabs are first used.
//
//	budget     [ slab 0 | slab 1 | slab 2 | slab 3 | slab 4 |  ...  ]
//	             leased   free     carved   free     leased
//	                               [ 1 KiB x 4 | 2.5 KiB x 8 | ... ]     sized leases: messages that stay, beginnings of split frames
//
//	large      [ usable, charged ......|        reserved only         ]   messages larger than a slab: a mapping each, charged as it grows
//
// Slabs that are free are a stack: what was released last is leased first, so a system that keeps up works in cache. When large leases
// need the room, the memory of the coldest free slabs goes back to the operating system, so that the resident memory of all slabs and
// large leases is never more than the budget. (Slot tables and batches are on the Go heap, outside of it.)
//
// # Who may have how much
//
// The budget is parted in three [Class]es that never borrow from each other, and each class among [Account]s: an account has a
// guarantee, a limit, and between them its part of what is left. A lease that finds no room fails at once with [ErrBudget]; the caller
// stops reading, and asks [Account.Wait] or [Account.AfterRoom] to be told.
//
//	budget   [            sources 70 %            |  emits 20 %  | evacuation 10 % ]
//	class    [ guaranteed to A | to B |       shared, up to each account's limit   ]
//
// # Who may read, and for how long
//
// Every lease, be it of a slab, a chunk or a large reservation, has a slot: an index that never changes, and one word that does.
//
//	slot   [ generation: 44 bits | references: 20 bits ]
//	Ref    { generation, slot, offset, length }
//
// A [Slab] is shared with Retain and Release, each one atomic operation. The last Release moves the generation on, so that every [Ref] to
// what was there is stale at once: [Arena.Resolve] compares and counts in one step, and yields the bytes or nothing. A slot whose
// generations have run out is never used again.
//
// # What helps to find mistakes
//
//   - A release too many panics, with the slab's name.
//   - Race builds keep slabs on the Go heap, because the race detector does not see mapped memory.
//   - Race builds, and builds with the tag penstock_invariants, fill what is released with 0xDB.
//   - Builds with the tag penstock_trace remember a stack for each lease, retain and release: see [Arena.Holders] and [LeakError].
//   - Strict mode copies a message to pages that become inaccessible: see [Arena.StrictCopy].
package arena
