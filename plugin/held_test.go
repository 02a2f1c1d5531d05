package plugin_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// Promise: a held message takes one verdict, whichever it is, and lets go of its memory with it.
func TestHeldTakesOneVerdict(t *testing.T) {
	cause := errors.New("cause")
	verdicts := map[string]struct {
		give func(h *plugin.Held) error
		want plugin.HeldVerdict
	}{
		"ack": {(*plugin.Held).Ack, plugin.HeldVerdict{Kind: plugin.KindAck}},
		"retry": {
			func(h *plugin.Held) error { return h.Retry(cause, time.Second) },
			plugin.HeldVerdict{Kind: plugin.KindRetry, After: time.Second, Cause: cause},
		},
		"reject":         {func(h *plugin.Held) error { return h.Reject(cause) }, plugin.HeldVerdict{Kind: plugin.KindReject, Cause: cause}},
		"resolve nil":    {func(h *plugin.Held) error { return h.Resolve(nil) }, plugin.HeldVerdict{Kind: plugin.KindAck}},
		"resolve failed": {func(h *plugin.Held) error { return h.Resolve(cause) }, plugin.HeldVerdict{Kind: plugin.KindFail, Cause: cause}},
	}
	for name, tt := range verdicts {
		for _, early := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				h := newHost(t)
				held := h.held(batch(t, h.arena, h.account, [3]string{"payload", "key"}))
				if !early {
					held.Register(key)
				}
				if string(held.Payload()) != "payload" || string(held.Key()) != "key" || held.Stream() != "in" || held.Attempt() != 3 {
					t.Errorf("shows %q %q %q %d", held.Payload(), held.Key(), held.Stream(), held.Attempt())
				}
				if err := tt.give(held); err != nil {
					t.Fatal(err)
				}
				if early { // the loop must hear of the hold first
					if len(h.verdicts) != 0 {
						t.Errorf("the verdict went out before the hold")
					}
					held.Register(key)
				}
				tt.want.Token = plugin.Token{Epoch: 1, Seq: 7}
				if len(h.verdicts) != 1 || h.verdicts[0].Kind != tt.want.Kind || h.verdicts[0].After != tt.want.After ||
					h.verdicts[0].Cause != tt.want.Cause || h.verdicts[0].Token != tt.want.Token {
					t.Errorf("the loop hears %+v, want %+v", h.verdicts, tt.want)
				}
				for other, tt := range verdicts {
					if err := tt.give(held); !errors.Is(err, plugin.ErrVerdictGiven) {
						t.Errorf("second verdict, %s: %v", other, err)
					}
				}
				if err := held.Extend(time.Second); !errors.Is(err, plugin.ErrVerdictGiven) || len(h.extended) != 0 {
					t.Errorf("Extend after the verdict: %v, %d extensions", err, len(h.extended))
				}
				if held.Lapse(key) {
					t.Error("lapses after the verdict")
				}
				if len(h.verdicts) != 1 || held.Payload() != nil || held.Key() != nil || held.Header("h") != nil || h.leases() != 0 {
					t.Errorf("%d verdicts, payload %q, %d leases", len(h.verdicts), held.Payload(), h.leases())
				}
			})
		}
	}
}

// Promise: after a lapse every verdict answers ErrLeaseLost, and a late reader reads old bytes until it tries one.
func TestHeldAfterLapse(t *testing.T) {
	h := newHost(t)
	held := h.registered()
	if err := held.Emit("out", []byte("child")); err != nil {
		t.Fatal(err)
	}
	if !held.Lapse(key) {
		t.Fatal("does not lapse")
	}
	if held.Lapse(key) {
		t.Error("lapses twice")
	}
	if string(held.Payload()) != "payload" || string(held.Header("h")) != "v" || string(held.Clone().Key()) != "key" || h.leases() != 1 {
		t.Errorf("after the lapse it shows %q, and %d leases", held.Payload(), h.leases())
	}
	if err := held.Emit("out", []byte("child")); !errors.Is(err, plugin.ErrLeaseLost) || h.leases() != 1 {
		t.Errorf("Emit: %v, %d leases", err, h.leases())
	}
	if err := held.Extend(time.Second); !errors.Is(err, plugin.ErrLeaseLost) {
		t.Errorf("Extend: %v", err)
	}
	for range 2 {
		if err := held.Ack(); !errors.Is(err, plugin.ErrLeaseLost) {
			t.Errorf("Ack: %v", err)
		}
	}
	if held.Payload() != nil || held.Clone().Payload() != nil || h.leases() != 0 || len(h.verdicts) != 0 {
		t.Errorf("payload %q, %d leases, %d verdicts", held.Payload(), h.leases(), len(h.verdicts))
	}
}

// Promise: Ack releases what was emitted; every other verdict drops it.
func TestHeldEmitsGoWithAckOnly(t *testing.T) {
	for _, ack := range []bool{true, false} {
		h := newHost(t)
		held := h.registered()
		for range 2 {
			if err := held.Emit("out", []byte("child")); err != nil {
				t.Fatal(err)
			}
		}
		if err := held.Extend(time.Minute); err != nil || len(h.extended) != 1 || h.extended[0] != time.Minute {
			t.Errorf("Extend: %v, %v", err, h.extended)
		}
		if ack {
			_ = held.Ack()
		} else {
			_ = held.Retry(nil, 0)
		}
		got := h.verdicts[0].Emits
		if ack && (len(got) != 2 || got[0].Stream != "out") || !ack && len(got) != 0 {
			t.Errorf("ack %v: %d emits", ack, len(got))
		}
		for _, e := range got {
			e.Batch.Free()
		}
		if h.leases() != 0 {
			t.Errorf("ack %v: %d leases", ack, h.leases())
		}
	}
}

// Promise: a parent of an aggregate is held until the aggregate's attempt is acknowledged, and held as before if it is not.
func TestHeldLink(t *testing.T) {
	h := newHost(t)
	fresh := h.held(batch(t, h.arena, h.account, [3]string{"payload"}))
	if err := fresh.Link(key); err == nil {
		t.Error("a hold that the loop does not know of can be a parent")
	}
	fresh.Register(key)
	_ = fresh.Ack()
	h.verdicts = nil
	if err := fresh.Link(key); !errors.Is(err, plugin.ErrVerdictGiven) {
		t.Errorf("Link after the verdict: %v", err)
	}

	held := h.registered()
	if err := held.Link(key); err != nil {
		t.Fatal(err)
	}
	if err := held.Link(key); !errors.Is(err, plugin.ErrVerdictGiven) {
		t.Errorf("second Link: %v", err)
	}
	if err := held.Ack(); !errors.Is(err, plugin.ErrVerdictGiven) {
		t.Errorf("Ack while linked: %v", err)
	}
	if held.Lapse(key) {
		t.Error("lapses while linked")
	}
	if string(held.Payload()) != "payload" {
		t.Errorf("a refused verdict has taken the bytes of a linked parent: %q", held.Payload())
	}
	held.Unlink(key)
	if h.reopened != 1 || held.Extend(time.Second) != nil {
		t.Error("not held as before")
	}
	if err := held.GiveLinked(key, 5); err == nil {
		t.Error("GiveLinked works on one that is not linked")
	}
	if string(held.Payload()) != "payload" {
		t.Errorf("a refused verdict has taken the bytes: %q", held.Payload())
	}
	if err := held.Link(key); err != nil {
		t.Fatal(err)
	}
	if err := held.GiveLinked(key, 6); err != nil {
		t.Fatal(err)
	}
	if len(h.verdicts) != 1 || h.verdicts[0].Link != 6 || h.verdicts[0].Kind != plugin.KindAck || h.leases() != 0 {
		t.Errorf("verdicts %+v, %d leases", h.verdicts, h.leases())
	}
}

// Promise: what the function of Go returns is the verdict, a panic too; if Go fails the message stays held.
func TestHeldGoGivesTheVerdict(t *testing.T) {
	h := newHost(t)
	tests := map[string]struct {
		f    func(m plugin.OwnedMessage) error
		want plugin.Kind
	}{
		"nil":   {func(plugin.OwnedMessage) error { return nil }, plugin.KindAck},
		"retry": {func(plugin.OwnedMessage) error { return plugin.Retry(nil, time.Second) }, plugin.KindRetry},
		"panic": {func(plugin.OwnedMessage) error { panic("boom") }, plugin.KindFail},
	}
	for name, tt := range tests {
		h.verdicts = nil
		err := h.registered().Go(func(_ context.Context, m plugin.OwnedMessage) error {
			if string(m.Payload()) != "payload" || string(m.Header("h")) != "v" {
				t.Errorf("%s: gets %q", name, m.Payload())
			}
			return tt.f(m)
		})
		if err != nil || len(h.verdicts) != 1 || h.verdicts[0].Kind != tt.want {
			t.Errorf("%s: %v, %+v", name, err, h.verdicts)
		}
		if name == "panic" && !errors.Is(h.verdicts[0].Cause, plugin.ErrPanic) {
			t.Errorf("cause is %v", h.verdicts[0].Cause)
		}
	}
	h.goErr = errors.New("too many")
	h.verdicts = nil
	held := h.registered()
	if err := held.Go(func(context.Context, plugin.OwnedMessage) error { return nil }); err != h.goErr || len(h.verdicts) != 0 {
		t.Errorf("%v, %d verdicts", err, len(h.verdicts))
	}
	if err := held.Ack(); err != nil {
		t.Error(err)
	}
}

// Promise: of verdicts given at the same time exactly one counts, also against a lapse.
func TestHeldVerdictsRace(t *testing.T) {
	h := newHost(t)
	for range 100 {
		h.verdicts = nil
		held := h.held(batch(t, h.arena, h.account, [3]string{"payload"}))
		var wg sync.WaitGroup
		var lapsed bool
		wg.Go(func() { held.Register(key) })
		wg.Go(func() { lapsed = held.Lapse(key) })
		for range 3 {
			wg.Go(func() { _ = held.Ack() })
			wg.Go(func() { _ = held.Emit("out", nil) })
		}
		wg.Wait()
		for _, v := range h.verdicts {
			for _, e := range v.Emits {
				e.Batch.Free()
			}
		}
		if lapsed == (len(h.verdicts) == 1) || len(h.verdicts) > 1 {
			t.Fatalf("lapsed %v, %d verdicts", lapsed, len(h.verdicts))
		}
		_ = held.Ack()
		if h.leases() != 0 {
			t.Fatalf("%d leases", h.leases())
		}
	}
}

// Promise: a Held that is dropped gives its memory back when it is collected.
func TestHeldThatIsDroppedFreesItsMemory(t *testing.T) {
	h := newHost(t)
	func() {
		held := h.registered()
		held.Lapse(key)
	}()
	for range 1000 {
		runtime.GC()
		if h.leases() == 0 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d leases", h.leases())
}
