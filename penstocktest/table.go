package penstocktest

import (
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
)

// Case is a row of a table: a message, and what is to become of it. A Case that wants nothing else wants it acknowledged, with no emits.
type Case struct {
	Name    string
	Message Message
	Want    Verdict
	After   time.Duration // with Want Retried: how long it asks to wait; 0 for any
	Is      error         // what its error is, as errors.Is says; nil for any
	Dead    bool          // it goes to the dead letters though it is not rejected: its last attempt has failed
	Emits   []Emit        // exactly these
	Then    []Then        // the verdicts that follow on the same message
}

// Then is a further verdict on the message of a Case.
type Then struct {
	Do      func(r Result) // is called first, with the result before, for example to acknowledge r.Held; nil for nothing
	Advance time.Duration  // then time goes on by that much; 0: as far as the next verdict needs, see [Result.Next]
	Want    Verdict
	After   time.Duration
	Is      error
	Dead    bool
	Emits   []Emit
}

// Run gives each case, as a subtest with a plugin of its own, its message, and fails if what becomes of it is not what is wanted.
func Run(t *testing.T, p penstock.Plugin, cases []Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Helper()
			c.run(t, p)
		})
	}
}

func (c *Case) run(t testing.TB, p penstock.Plugin) {
	t.Helper()
	h := New(t, p)
	r := h.Send(c.Message)
	if !h.expect(r, Want{Verdict: c.Want, After: c.After, Is: c.Is, Dead: c.Dead, Emits: c.Emits}) {
		return // what follows would only repeat it
	}
	for _, then := range c.Then {
		if then.Do != nil {
			then.Do(r)
		}
		if then.Advance > 0 {
			h.Advance(then.Advance)
		}
		r = r.Next()
		if !h.expect(r, Want{Verdict: then.Want, After: then.After, Is: then.Is, Dead: then.Dead, Emits: then.Emits}) {
			return
		}
	}
}

// expect fails the test if r is not what is wanted.
func (h *Harness) expect(r Result, w Want) bool {
	h.t.Helper()
	diff := r.Diff(w)
	if diff != "" {
		h.t.Errorf("%v, attempt %d:\n%s", r.of, r.Attempt, diff)
	}
	return diff == ""
}
