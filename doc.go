// Package penstock runs message handlers as hot-swappable plugins over streams of messages.
//
// A [Pipeline] names sources, plugins and sinks, and the streams between them; [New] checks it, [Runtime.Run] runs it. Every message is
// read once into memory off the Go heap, lent to each plugin that wants it, and tracked until each has said what became of it:
// acknowledged, to be tried again, held for later, or rejected to the dead letters. Only then is it settled with its source.
//
// A handler is an ordinary function. In its safe form, [Owned], it gets a copy; in its fast form, [Handler], it gets the message on loan,
// valid until Handle returns.
//
// Packages plugin, source and sink hold the contracts for those who write handlers and connectors; penstocktest runs a handler over a
// table of messages.
package penstock
