package penstocktest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// Message is a message for the plugin.
type Message struct {
	Payload string
	Key     string   // empty for none
	Headers []Header // in this order
	Stream  string   // one of the plugin's From; empty for the first
}

// Header is one header.
type Header struct{ Name, Value string }

// Emit is a message that the plugin has emitted.
type Emit struct {
	Stream  string
	Payload string
	Key     string // empty for none
	Headers []Header
}

// String shows the emit as failures do.
func (e Emit) String() string {
	s := fmt.Sprintf("%s %q", e.Stream, e.Payload)
	if e.Key != "" {
		s += fmt.Sprintf(" key %q", e.Key)
	}
	for _, h := range e.Headers {
		s += fmt.Sprintf(" %s=%q", h.Name, h.Value)
	}
	return s
}

func (e Emit) equal(f Emit) bool {
	return e.Stream == f.Stream && e.Payload == f.Payload && e.Key == f.Key && slices.Equal(e.Headers, f.Headers)
}

// Verdict is what became of one delivery of a message.
type Verdict uint8

// The verdicts.
const (
	Acked    Verdict = iota // handled; all that it emitted has gone out
	Failed                  // an error that is no verdict, or a panic: it comes again after the plugin's backoff
	Retried                 // the plugin asked for it again, by Retry
	Rejected                // the plugin sent it to the dead letters
	Held                    // the verdict comes later: see [Result.Next]
	Lapsed                  // the lease of the held message ran out: it comes again after the plugin's backoff
)

// String is the verdict in lower case.
func (v Verdict) String() string {
	names := [...]string{"acked", "failed", "retried", "rejected", "held", "lapsed"}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Result is one verdict on one message. It stays valid; its slices belong to the caller.
type Result struct {
	Verdict Verdict
	Attempt int           // deliveries of the message so far
	After   time.Duration // Retried: how long it asked to wait; 0 for the plugin's backoff
	Err     error         // what Handle returned, or the cause given to the Held; nil with Acked
	Dead    bool          // the message went to the dead letters: it was rejected, or this was its last attempt
	Emits   []Emit        // Acked: what went out, in the order of the streams' first emits, then of the calls
	Held    *plugin.Held  // Held: to give the verdict by hand

	of *life
	n  int // its place in the history of the message
}

// Want is what a test expects of a verdict. The zero value expects that the message is acknowledged and nothing emitted.
type Want struct {
	Verdict Verdict
	After   time.Duration // Retried: how long it asked to wait; 0 for any
	Is      error         // Err is this, as errors.Is says; nil for any
	Dead    bool          // the message went to the dead letters although it was not rejected: this was its last attempt
	Emits   []Emit        // exactly these
}

// Diff says how the result is not what is wanted, a line for each difference; "" if it is.
func (r Result) Diff(w Want) string {
	var out []string
	if r.Verdict != w.Verdict {
		line := fmt.Sprintf("verdict is %v, want %v", r.Verdict, w.Verdict)
		if r.Err != nil {
			line += fmt.Sprintf(" (its error: %v)", r.Err)
		}
		out = append(out, line)
	}
	if w.After != 0 && r.After != w.After {
		out = append(out, fmt.Sprintf("it asked to come again after %v, want %v", r.After, w.After))
	}
	if w.Is != nil && !errors.Is(r.Err, w.Is) {
		out = append(out, fmt.Sprintf("error is %v, want one that is: %v", r.Err, w.Is))
	}
	if dead := w.Dead || w.Verdict == Rejected; r.Dead != dead && r.Verdict == w.Verdict {
		out = append(out, fmt.Sprintf("went to the dead letters: %v, want %v", r.Dead, dead))
	}
	for i := range max(len(r.Emits), len(w.Emits)) {
		switch {
		case i >= len(w.Emits):
			out = append(out, fmt.Sprintf("emit %d is %v, want no more", i+1, r.Emits[i]))
		case i >= len(r.Emits):
			out = append(out, fmt.Sprintf("emit %d is missing, want %v", i+1, w.Emits[i]))
		case !r.Emits[i].equal(w.Emits[i]):
			out = append(out, fmt.Sprintf("emit %d is %v\n     want %v", i+1, r.Emits[i], w.Emits[i]))
		}
	}
	return strings.Join(out, "\n")
}

// life is what has become of one message. It is guarded by the harness.
type life struct {
	h       *Harness
	id      uint64 // its receipt, and its key hash: from 1
	pos     int    // in its batch
	message Message
	history []*Result
	handle  *plugin.Held // while it is held
	settled bool
}

// last is the last verdict; the zero Result before the first.
func (l *life) last() *Result {
	if len(l.history) == 0 {
		return &Result{}
	}
	return l.history[len(l.history)-1]
}

func (l *life) String() string { return fmt.Sprintf("message %q", short(l.message.Payload)) }

func short(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}
