// Package sim runs the core of Penstock under a seeded schedule, and checks everything that must always hold.
//
// What runs is real: drivers, cores, actors, sinks and arena. What the simulator plays is the world around them: sources with
// partitions, handlers that fail, hold, emit and panic, dead letters that refuse, time that jumps, versions that are swapped, memory
// that is too small. It makes one step after another, in one goroutine at a time, so a seed is a history: the same seed makes the same
// one, event by event.
//
//	graph.go    a random pipeline            source.go   arrivals, partitions, window
//	model.go    who owes what, by the model  world.go    effects on the world, and what they must obey
//	handler.go  scripted handlers            sink.go     scripted sinks
//	swap.go     versions                     step.go     the schedule
//	reload.go   another pipeline meanwhile
//
// Two goroutines are not the simulator's own: that of a swap and that of a sink. They run while the simulator waits for them to stand
// still, which package testing/synctest makes possible: so [Run] is called within a bubble.
package sim
