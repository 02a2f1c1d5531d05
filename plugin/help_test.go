package plugin_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/plugin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key lend.Key

// memory is an arena that must be empty at the end of the test.
func memory(t *testing.T) (*arena.Arena, *arena.Account) {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	account, err := a.Account(arena.Evacuation, "test", 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a, account
}

// batch puts messages, each of payload, key and headers, into memory.
func batch(t *testing.T, a *arena.Arena, account *arena.Account, messages ...[3]string) *arena.Batch {
	t.Helper()
	slab, err := account.LeaseSized(4096)
	if err != nil {
		t.Fatal(err)
	}
	b := a.NewBatch()
	b.Slab = slab
	at := uint32(0)
	put := func(s string) (off, n uint32) {
		off = at
		at += uint32(copy(slab.Bytes()[at:], s))
		return off, uint32(len(s))
	}
	for _, m := range messages {
		var f arena.Frame
		f.Off, f.Len = put(m[0])
		f.KeyOff, f.KeyLen = put(m[1])
		f.HdrOff, f.HdrLen = put(m[2])
		b.Frames = append(b.Frames, f)
	}
	return b
}

// host plays the runtime's side of a Held and of a Message.
type host struct {
	t       *testing.T
	arena   *arena.Arena
	account *arena.Account

	mu       sync.Mutex
	verdicts []plugin.HeldVerdict
	extended []time.Duration
	reopened int
	goErr    error
}

var (
	_ plugin.HeldHost = (*host)(nil)
	_ plugin.Host     = (*host)(nil)
)

func (h *host) HeldVerdict(_ lend.Key, v plugin.HeldVerdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdicts = append(h.verdicts, v)
}

func (h *host) HeldExtend(_ lend.Key, _ plugin.Token, lease time.Duration) {
	h.extended = append(h.extended, lease)
}

func (h *host) HeldLapsed(lend.Key) {}

func (h *host) HeldReopen(lend.Key, plugin.Token) { h.reopened++ }

func (h *host) HeldEmit(_ lend.Key, stream string, payload []byte, _ *plugin.Emission) (plugin.HeldEmit, error) {
	return plugin.HeldEmit{Stream: stream, Batch: batch(h.t, h.arena, h.account, [3]string{string(payload)})}, nil
}

func (h *host) HeldGo(_ lend.Key, f func(ctx context.Context)) error {
	if h.goErr == nil {
		f(h.t.Context())
	}
	return h.goErr
}

func (h *host) Hold(_ lend.Key, m *plugin.Message, _ time.Duration) (*plugin.Held, error) {
	return h.held(batch(h.t, h.arena, h.account, [3]string{string(m.Payload())})), nil
}

func (h *host) Emit(lend.Key, *plugin.Message, string, []byte, *plugin.Emission) error { return nil }

func (h *host) Flush(lend.Key) {}

func (h *host) Resolve(lend.Key, *plugin.Message, arena.Ref) ([]byte, bool) { return nil, false }

func newHost(t *testing.T) *host {
	a, account := memory(t)
	return &host{t: t, arena: a, account: account}
}

func (h *host) held(b *arena.Batch) *plugin.Held {
	return plugin.NewHeld(key, h, plugin.Token{Epoch: 1, Seq: 7}, b, "in", 3)
}

// registered is a Held that the loop knows of.
func (h *host) registered() *plugin.Held {
	held := h.held(batch(h.t, h.arena, h.account, [3]string{"payload", "key", string(arena.AppendHeader(nil, "h", []byte("v")))}))
	held.Register(key)
	return held
}

func (h *host) leases() int { return h.arena.Stats().Leases }
