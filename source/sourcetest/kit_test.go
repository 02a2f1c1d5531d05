package sourcetest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	perMessage = Features{Append: true, PerMessage: true, Returned: true, Partitions: 3, Binary: true}
	cumulative = Features{Append: true, Cursor: true, Partitions: 3, Binary: true}
)

func TestBrokerPerMessage(t *testing.T) {
	Run(t, perMessage, func(*testing.T) Fixture { return NewBroker(3) })
}

func TestBrokerCumulative(t *testing.T) {
	Run(t, cumulative, func(*testing.T) Fixture {
		b := NewBroker(3)
		b.Cumulative = true
		return b
	})
}

// Promise: the kit finds each fault, in the exam that is about it.
func TestKitFindsFaults(t *testing.T) {
	tests := []struct {
		fault    fault
		features Features
		exam     string // part of the name of an exam that must fail
		says     string // part of what it must say
	}{
		{loseMessage, perMessage, "once, in order", "waited"},
		{duplicateMessage, perMessage, "once, in order", "came 2 times"},
		{reorderMessages, perMessage, "once, in order", "came after message"},
		{corruptPayload, perMessage, "once, in order", "is not what was put"},
		{missReceipt, perMessage, "once, in order", "receipts"},
		{repeatReceipt, perMessage, "once, in order", "came twice"},
		{emptyBatch, perMessage, "once, in order", "empty batch"},
		{staleEpoch, perMessage, "once, in order", "never assigned"},
		{ignoreReady, perMessage, "full window", "without a Ready"},
		{ignoreContext, perMessage, "ends with its context", "did not return"},
		{giveUpOnBudget, perMessage, "exhausted budget", "Run returned"},
		{leakSlab, perMessage, "once, in order", "not released"},
		{leakGoroutine, perMessage, "once, in order", "unexpected goroutines"},
		{blockSettle, perMessage, "Settle does not block", "did not return"},
		{settleRevoked, cumulative, "revoked assignment", "waited"},
		{settleRevoked, perMessage, "revoked assignment", "waited"},
		{commitOverHole, cumulative, "hole is not committed", "waited"},
		{redeliverSettled, perMessage, "after a restart", "though it was settled"},
		{redeliverSettled, cumulative, "after a restart", "though it was settled"},
		{forgetSettled, perMessage, "after a restart", "though it was settled"},
		{redeliverSettled, perMessage, "outlives a crash", "though it was settled"},
		{deafToNew, perMessage, "put later", "waited"},
		{ignoreStopped, perMessage, "takes no more", "did not return"},
		{forgetLate, cumulative, "settled out of order", "though it was settled"},
		{leakSlab, perMessage, "large messages", "not released"},
		{forgetReturned, perMessage, "returned messages", "waited"},
	}
	for _, tt := range tests {
		t.Run(string(tt.fault), func(t *testing.T) {
			b := NewBroker(3)
			b.Cumulative = tt.features.Cursor
			b.fault = tt.fault
			f := tt.features
			f.Patience = 500 * time.Millisecond
			held := false
			for _, e := range exams {
				if !strings.Contains(e.name, tt.exam) || e.applies != nil && !e.applies(f) {
					continue
				}
				held = true
				said := fails(t, func(t testing.TB) { e.hold(t, f, b) })
				if !strings.Contains(said, tt.says) {
					t.Errorf("the exam %q said %q, want something with %q", e.name, said, tt.says)
				}
			}
			if !held {
				t.Errorf("there is no exam %q", tt.exam)
			}
		})
	}
}

// fails runs an exam against a stand-in of t and returns what it had to say.
func fails(t *testing.T, exam func(testing.TB)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // an exam that fails ends its goroutine
		defer close(done)
		exam(r)
	}()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.said, "\n")
}

// recorder is a testing.TB that keeps failures to itself.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said []string
}

func (r *recorder) say(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, s)
}

func (r *recorder) Error(args ...any)                 { r.say(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.say(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }
