package plugin_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/plugin"
)

// Promise: what Owned hands out is a copy: it stays when the memory is used for something else.
func TestOwnedMessagesAreCopies(t *testing.T) {
	h := newHost(t)
	headers := string(arena.AppendHeader(arena.AppendHeader(nil, "a", []byte("1")), "b", []byte("2")))
	b := batch(t, h.arena, h.account, [3]string{"payload", "key", headers})
	var m plugin.Message
	m.Describe(key, h, "in", 2)
	m.Open(key, b, 0)
	var kept plugin.OwnedMessage
	err := plugin.Owned(func(_ context.Context, m plugin.OwnedMessage) error {
		kept = m
		return nil
	}).Handle(t.Context(), &m)
	if err != nil {
		t.Fatal(err)
	}
	clear(b.Slab.Bytes())
	b.Free()
	if string(kept.Payload()) != "payload" || string(kept.Key()) != "key" || string(kept.Header("b")) != "2" || kept.Header("c") != nil ||
		kept.Stream() != "in" || kept.Attempt() != 2 {
		t.Errorf("the copy shows %q %q %q %q %d", kept.Payload(), kept.Key(), kept.Header("b"), kept.Stream(), kept.Attempt())
	}
}

// Promise: a message shows its own bytes and no others, not even by growing a slice.
func TestMessageShowsItsOwnBytesOnly(t *testing.T) {
	h := newHost(t)
	b := batch(t, h.arena, h.account, [3]string{"first", "k1", ""}, [3]string{"second", "", string(arena.AppendHeader(nil, "h", []byte("v")))})
	defer b.Free()
	var m plugin.Message
	m.Describe(key, h, "in", 1)
	m.Open(key, b, 0)
	if got := append(m.Payload(), "XX"...); string(got) != "firstXX" || string(m.Key()) != "k1" || m.Headers() != nil {
		t.Errorf("message 0 shows %q, key %q, headers %q", got, m.Key(), m.Headers())
	}
	m.Next(key, 1)
	if string(m.Payload()) != "second" || m.Key() != nil || string(m.Header("h")) != "v" || m.Header("x") != nil {
		t.Errorf("message 1 shows %q, key %q, header %q", m.Payload(), m.Key(), m.Header("h"))
	}
	if v, ok := h.arena.Resolve(m.Ref()); !ok || string(v.Bytes()) != "second" {
		t.Error("its ref does not name its payload")
	} else {
		v.Release()
	}
}

// Promise: a message that is used after its call answers ErrReturned; one delivery is held once.
func TestMessageAfterItsCall(t *testing.T) {
	h := newHost(t)
	b := batch(t, h.arena, h.account, [3]string{"payload"})
	defer b.Free()
	var m plugin.Message
	m.Describe(key, h, "in", 1)
	m.Open(key, b, 0)
	held, err := m.Hold(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Hold(time.Second); !errors.Is(err, plugin.ErrAlreadyHeld) {
		t.Errorf("second Hold: %v", err)
	}
	if got := m.Shut(key); got != held {
		t.Errorf("Shut gives %v", got)
	}
	if _, err := m.Hold(time.Second); !errors.Is(err, plugin.ErrReturned) {
		t.Errorf("Hold after the call: %v", err)
	}
	if err := m.Emit("out", nil); !errors.Is(err, plugin.ErrReturned) {
		t.Errorf("Emit after the call: %v", err)
	}
	held.Register(key)
	if err := held.Ack(); err != nil {
		t.Error(err)
	}
}

// Promise: in a batch each message has its own verdict where it was marked, and the whole's where not.
func TestMessagesOwnVerdictGoesFirst(t *testing.T) {
	whole, own := errors.New("whole"), errors.New("own")
	h := newHost(t)
	b := batch(t, h.arena, h.account, [3]string{"0"}, [3]string{"1"}, [3]string{"2"})
	defer b.Free()
	var m plugin.Message
	m.Open(key, b, 0)
	var ms plugin.Messages
	for range 2 { // a second use remembers nothing of the first
		ms.Bind(key, 3, func(i int) *plugin.Message { m.Next(key, i); return &m })
		for i := range 3 {
			if ms.Verdict(key, i, whole) != whole {
				t.Errorf("unmarked message %d has the verdict %v", i, ms.Verdict(key, i, whole))
			}
		}
		if ms.Len() != 3 || string(ms.At(2).Payload()) != "2" || string(ms.At(0).Payload()) != "0" {
			t.Errorf("%d messages, the first is %q", ms.Len(), ms.At(0).Payload())
		}
		ms.Fail(1, own)
		ms.Fail(2, nil)
		for i, want := range []error{whole, own, nil} {
			if got := ms.Verdict(key, i, whole); got != want {
				t.Errorf("message %d: %v, want %v", i, got, want)
			}
		}
	}
}

// copying is a host whose Emit looks at what it gets, and allocates nothing.
type copying struct {
	*host
	stream                string
	payload, key, headers []byte
}

func (h *copying) Emit(_ lend.Key, _ *plugin.Message, stream string, payload []byte, e *plugin.Emission) error {
	h.stream = stream
	h.payload, h.key, h.headers = append(h.payload[:0], payload...), append(h.key[:0], e.Key...), append(h.headers[:0], e.Headers...)
	return nil
}

// Promise: Forward emits payload, key and headers as they are, ForwardAs another payload and key; neither allocates.
func TestForward(t *testing.T) {
	h := &copying{host: newHost(t)}
	headers := string(arena.AppendHeader(nil, "h", []byte("v")))
	b := batch(t, h.arena, h.account, [3]string{"payload", "key", headers})
	defer b.Free()
	var m plugin.Message
	m.Describe(key, h, "in", 1)
	m.Open(key, b, 0)
	if err := m.Forward("out"); err != nil || h.stream != "out" || string(h.payload) != "payload" || string(h.key) != "key" ||
		string(h.headers) != headers {
		t.Errorf("forwarded to %q: %q, key %q, headers %q: %v", h.stream, h.payload, h.key, h.headers, err)
	}
	if err := m.ForwardAs("out", nil, []byte("other")); err != nil || string(h.payload) != "other" || len(h.key) != 0 ||
		string(h.headers) != headers {
		t.Errorf("forwarded as %q, key %q, headers %q: %v", h.payload, h.key, h.headers, err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = m.Forward("out") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	m.Shut(key)
	if err := errors.Join(m.Forward("out"), m.ForwardAs("out", nil, nil)); !errors.Is(err, plugin.ErrReturned) {
		t.Errorf("after the call: %v", err)
	}
}

// Promise: options describe an emit completely.
func TestEmitOptions(t *testing.T) {
	parent := &plugin.Held{}
	var e plugin.Emission
	for _, o := range []plugin.EmitOption{
		plugin.WithKey([]byte("k")), plugin.WithHeader("a", []byte("1")), plugin.WithHeader("b", []byte("2")), plugin.EmitFrom(parent),
	} {
		o(&e)
	}
	if string(e.Key) != "k" || string(arena.Header(e.Headers, "a")) != "1" || string(arena.Header(e.Headers, "b")) != "2" ||
		len(e.Parents) != 1 || e.Parents[0] != parent {
		t.Errorf("got %+v", e)
	}
}
