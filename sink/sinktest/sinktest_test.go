package sinktest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/sink"
)

func memory(bug string, hold int) Fixture {
	st := &store{room: -1}
	return Fixture{
		New: func() (sink.Sink, error) {
			if bug == "opening empties" {
				st.msgs = nil
			}
			return &memSink{st: st, bug: bug, hold: hold}, nil
		},
		Read:     st.read,
		Break:    st.setRoom,
		Mend:     func() { st.setRoom(-1) },
		Promises: Promises{Exact: true, Binary: true, Headers: true, Keeps: true},
	}
}

// A sink that keeps the contract passes, whether it gathers messages or not.
func TestGoodSinkPasses(t *testing.T) {
	for _, hold := range []int{0, 100, 1 << 20} {
		t.Run(fmt.Sprint("hold ", hold), func(t *testing.T) {
			Run(t, func(*testing.T) Fixture { return memory("", hold) })
		})
	}
}

// recorder takes the failures of an exam down instead of failing the test.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// judge holds an exam and returns what it has to say.
func judge(t *testing.T, e exam, fx Fixture) []string {
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.hold(rec, fx)
	}()
	<-done
	return rec.said
}

// The kit proves itself: each broken sink fails at least one exam.
func TestBrokenSinksAreCaught(t *testing.T) {
	bugs := []string{
		"done before it arrives", "keeps lent bytes", "writes to lent bytes", "loses one", "repeats one", "skips empty", "cuts large",
		"cuts at NUL", "forgets keys", "forgets second header", "flush of nothing fails", "reorders", "done twice",
		"says done to what failed", "fails in silence", "leaves a torn message", "fails what has arrived", "writes failed ones later",
		"stays broken", "close drops what is waiting", "close forgets what is waiting", "close fails nobody", "opening empties",
		"never done",
	}
	for _, bug := range bugs {
		t.Run(bug, func(t *testing.T) {
			for _, hold := range []int{100, 1 << 20} {
				for _, e := range exams() {
					if said := judge(t, e, impatient(memory(bug, hold))); len(said) > 0 {
						t.Logf("caught by %q: %s", e.name, said[0])
						return
					}
				}
			}
			t.Error("no exam noticed")
		})
	}
}

// impatient lets the kit wait for a moment only: sinks in memory finish at once.
func impatient(fx Fixture) Fixture {
	fx.patience = 1
	return fx
}

// Without what an exam needs it is skipped, and says what is missing.
func TestExamsThatNeedMoreAreSkipped(t *testing.T) {
	fx := memory("", 0)
	fx.Break, fx.Promises = nil, Promises{}
	skipped := 0
	for _, e := range exams() {
		if why := e.skip(fx); why != "" {
			skipped++
			if !strings.Contains(why, "does not offer") {
				t.Errorf("%s: %q", e.name, why)
			}
		}
	}
	if skipped != 6 {
		t.Errorf("%d exams are skipped without Break and promises, want 6", skipped)
	}
}
