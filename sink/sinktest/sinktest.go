// Package sinktest is the exam that every sink sits: those of Penstock, and those that others write.
//
//	func TestConformance(t *testing.T) {
//		sinktest.Run(t, func(t *testing.T) sinktest.Fixture { ... })
//	}
//
// The kit lends batches as the runtime does. It overwrites the bytes of each message as soon as the message is done, so a sink that
// uses them later delivers garbage and fails; run it with -race too, which finds sinks that write to what they were lent.
package sinktest

import (
	"testing"
	"time"

	"github.com/penstock-dev/penstock/sink"
)

// Fixture is one empty destination and the way to it. Every exam gets a new one.
type Fixture struct {
	// New makes a sink on the destination; the kit opens and closes it. It is called a second time, after the first sink has been closed,
	// if Promises.Keeps is set.
	New func() (sink.Sink, error)
	// Env is given to Open.
	Env sink.Env
	// Read is all messages that have arrived at the destination, in order. The kit calls it also from within Batch.Done, so it must not
	// take a lock that the sink holds then. The result belongs to the kit.
	Read func() ([]Message, error)
	// Break makes the destination refuse everything after about that many more bytes; 0: at once. nil if it cannot be broken: then the
	// exams about failure are skipped.
	Break func(after int)
	// Mend ends Break. It is needed where Break is.
	Mend func()
	// Promises is what the sink promises beyond the contract.
	Promises Promises

	patience time.Duration // 0: the usual
}

// Promises switches exams on that not every sink can pass.
type Promises struct {
	Exact   bool // a message that failed has not arrived, so that trying again makes no duplicate
	Binary  bool // payloads arrive whatever bytes they hold
	Headers bool // keys and headers arrive
	Keeps   bool // a sink that is opened on the same destination again adds to what is there
}

// Message is a message as it arrived. Key and Headers count only with Promises.Headers.
type Message struct {
	Payload []byte
	Key     []byte
	Headers []Header
}

// Header is one header.
type Header struct {
	Name  string
	Value []byte
}

// Run holds all exams, each as a subtest on a fixture of its own.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	for _, e := range exams() {
		t.Run(e.name, func(t *testing.T) {
			fx := fixture(t)
			if why := e.skip(fx); why != "" {
				t.Skip(why)
			}
			e.hold(t, fx)
		})
	}
}

// exam is one promise and its proof.
type exam struct {
	name  string
	needs func(fx Fixture) (ok bool, what string) // nil: nothing
	run   func(r *rig)
}

func (e exam) skip(fx Fixture) string {
	if e.needs != nil {
		if ok, what := e.needs(fx); !ok {
			return "the fixture does not offer " + what
		}
	}
	return ""
}

func (e exam) hold(t testing.TB, fx Fixture) {
	r := newRig(t, fx)
	e.run(r)
	r.finish()
}

func canBreak(fx Fixture) (bool, string) { return fx.Break != nil && fx.Mend != nil, "Break and Mend" }
func isBinary(fx Fixture) (bool, string) { return fx.Promises.Binary, "Promises.Binary" }
func keeps(fx Fixture) (bool, string)    { return fx.Promises.Keeps, "Promises.Keeps" }
