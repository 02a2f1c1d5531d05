package plugin

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/internal/mutate"
)

// Held is a message whose verdict comes later. Its methods may be called from any goroutine, concurrently. It takes one verdict: Ack,
// Retry, Reject, or what the function given to Go returns. Once the lease has lapsed, or the delivery was revoked, every verdict
// answers [ErrLeaseLost].
//
// The bytes it shows do not move until its verdict. After a lapse they stay in memory until a verdict is tried or the Held is collected,
// so that a reader who is late reads old bytes and never another message's.
type Held struct {
	host    HeldHost
	token   Token
	stream  string
	attempt int

	mu         sync.Mutex
	state      heldState
	registered bool          // the loop knows of the hold
	verdict    HeldVerdict   // once state is given
	extended   time.Duration // a lease asked for before the loop knew of the hold; 0 for none
	batch      *arena.Batch  // one frame; the Held owns a reference to its slab
	emits      []HeldEmit    // released by Ack
	cleanup    runtime.Cleanup
}

type heldState uint8

const (
	heldOpen   heldState = iota
	heldLinked           // its verdict is that of an emit made from it
	heldGiven
	heldLapsed
)

// Token names one hold. Epoch is that of the instance that made it; Seq counts the holds of a plugin.
type Token struct {
	Epoch uint32
	Seq   uint64
}

// HeldEmit is a message that waits for its Held to be acknowledged.
type HeldEmit struct {
	Stream string
	Batch  *arena.Batch
}

// HeldVerdict is the verdict of a Held on its way to the loop.
type HeldVerdict struct {
	Token Token
	Kind  Kind
	After time.Duration
	Cause error
	Emits []HeldEmit // with KindAck
	Link  uint64     // with KindAck: not settled before this link is; 0 for none
}

// HeldHost is the runtime's side of a Held. Only Penstock's own packages can implement it.
type HeldHost interface {
	HeldVerdict(k lend.Key, v HeldVerdict)
	HeldLapsed(k lend.Key) // under the Held's lock
	HeldExtend(k lend.Key, t Token, lease time.Duration)
	HeldReopen(k lend.Key, t Token)
	HeldEmit(k lend.Key, stream string, payload []byte, e *Emission) (HeldEmit, error)
	HeldGo(k lend.Key, f func(ctx context.Context)) error
}

// NewHeld makes a Held over the single message in b, whose slab reference it takes over. It is called by the runtime.
func NewHeld(_ lend.Key, host HeldHost, t Token, b *arena.Batch, stream string, attempt int) *Held {
	h := &Held{host: host, token: t, batch: b, stream: stream, attempt: attempt}
	h.cleanup = runtime.AddCleanup(h, func(b *arena.Batch) { b.Free() }, b)
	return h
}

// Payload is the payload, nil after the verdict. It is valid until the verdict, and read-only.
func (h *Held) Payload() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.batch == nil {
		return nil
	}
	return h.batch.Payload(0)
}

// Key is the key, nil if there is none or after the verdict. It is valid until the verdict, and read-only.
func (h *Held) Key() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.batch == nil {
		return nil
	}
	return h.batch.Key(0)
}

// Header is the value of the first header called name, nil if there is none or after the verdict. It is valid until the verdict.
func (h *Held) Header(name string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.batch == nil {
		return nil
	}
	return arena.Header(h.batch.Headers(0), name)
}

// Stream is the stream that the message came by.
func (h *Held) Stream() string { return h.stream }

// Attempt counts the deliveries to this plugin, from 1.
func (h *Held) Attempt() int { return h.attempt }

// Clone is a copy that belongs to the caller; its payload is nil after the verdict.
func (h *Held) Clone() OwnedMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := OwnedMessage{stream: h.stream, attempt: h.attempt}
	if b := h.batch; b != nil {
		m.payload, m.key, m.headers = bytes.Clone(b.Payload(0)), bytes.Clone(b.Key(0)), bytes.Clone(b.Headers(0))
	}
	return m
}

// Ack acknowledges, and releases what was emitted.
func (h *Held) Ack() error { return h.give(HeldVerdict{Kind: KindAck}) }

// Retry asks for the message again, after that long or by the plugin's backoff if after is 0.
func (h *Held) Retry(cause error, after time.Duration) error {
	return h.give(HeldVerdict{Kind: KindRetry, Cause: cause, After: after})
}

// Reject sends the message to the dead letters.
func (h *Held) Reject(cause error) error { return h.give(HeldVerdict{Kind: KindReject, Cause: cause}) }

// Resolve gives the verdict that err carries, as if Handle had returned it.
func (h *Held) Resolve(err error) error {
	k, after := Classify(err)
	return h.give(HeldVerdict{Kind: k, Cause: err, After: after})
}

// Extend makes the lease run for that long from now. It answers ErrLeaseLost if it has lapsed.
func (h *Held) Extend(lease time.Duration) error {
	if lease <= 0 {
		return fmt.Errorf("extend the lease of a held message to %v: a lease must be positive", lease)
	}
	h.mu.Lock()
	err := h.openLocked()
	post := err == nil && h.registered
	if err == nil && !post {
		h.extended = lease
	}
	h.mu.Unlock()
	if post {
		h.host.HeldExtend(lend.Key{}, h.token, lease)
	}
	return err
}

// Emit sends a message to a declared stream when the Held is acknowledged. The payload is copied before Emit returns. Its memory comes
// from the budget for messages that stay; when that is used up Emit fails with arena.ErrBudget, and does not wait.
func (h *Held) Emit(stream string, payload []byte, opts ...EmitOption) error {
	var e Emission
	for _, o := range opts {
		o(&e)
	}
	emit, err := h.host.HeldEmit(lend.Key{}, stream, payload, &e)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.openLocked(); err != nil {
		emit.Batch.Free()
		return err
	}
	h.emits = append(h.emits, emit)
	return nil
}

// Go runs f on a copy of the message, in a goroutine of its own; what f returns is the verdict. ctx ends when the plugin is stopped.
// The number of goroutines of a plugin is bounded: Go fails when there are too many, and the message stays held.
func (h *Held) Go(f func(ctx context.Context, m OwnedMessage) error) error {
	m := h.Clone()
	return h.host.HeldGo(lend.Key{}, func(ctx context.Context) {
		err := protect(func() error { return f(ctx, m) })
		_ = h.Resolve(err) // the lease may have lapsed meanwhile: then the message is on its way again
	})
}

func (h *Held) openLocked() error {
	switch h.state {
	case heldLapsed:
		return ErrLeaseLost
	case heldOpen:
		return nil
	default:
		return ErrVerdictGiven
	}
}

func (h *Held) give(v HeldVerdict) error { return h.giveIn(heldOpen, v) }

// giveIn records v if h is in state want, and sends it on.
func (h *Held) giveIn(want heldState, v HeldVerdict) error {
	h.mu.Lock()
	if h.state != want {
		err := h.openLocked()
		switch h.state {
		case heldOpen:
			err = errNotLinked
		case heldLapsed: // its reader has been told, and is done with the bytes
			h.dropLocked()
		}
		h.mu.Unlock()
		return err
	}
	h.state = heldGiven
	v.Token = h.token
	if v.Kind == KindAck {
		v.Emits, h.emits = h.emits, nil
	}
	h.verdict = v
	h.dropLocked()
	post := h.registered
	h.mu.Unlock()
	if post {
		h.host.HeldVerdict(lend.Key{}, v)
	}
	return nil
}

// dropLocked lets go of the bytes and of emits that nobody released.
func (h *Held) dropLocked() {
	if h.batch != nil {
		h.cleanup.Stop()
		h.batch.Free()
		h.batch = nil
	}
	for _, e := range h.emits {
		e.Batch.Free()
	}
	h.emits = nil
}

// Register says that the loop has been told of the hold; a verdict that was given before goes out now. It is called by the runtime.
func (h *Held) Register(k lend.Key) {
	h.mu.Lock()
	h.registered = true
	v, post, extended := h.verdict, h.state == heldGiven, h.extended
	h.mu.Unlock()
	switch {
	case post:
		h.host.HeldVerdict(k, v)
	case extended > 0 && !mutate.On(mutate.ExtendEarlyLost):
		h.host.HeldExtend(k, h.token, extended)
	}
}

// Adopt makes e, which the message emitted before it was held, wait for the verdict. It is called by the runtime, before Register.
func (h *Held) Adopt(_ lend.Key, e HeldEmit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.state == heldOpen:
		h.emits = append(h.emits, e)
	case h.state == heldGiven && h.verdict.Kind == KindAck: // given within the call
		h.verdict.Emits = append(h.verdict.Emits, e)
	default:
		e.Batch.Free()
	}
}

// Lapse ends the lease, unless a verdict came first. It is called by the runtime.
func (h *Held) Lapse(lend.Key) (lapsed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != heldOpen {
		return false
	}
	if mutate.On(mutate.LapseUntold) {
		return true
	}
	h.state = heldLapsed
	h.host.HeldLapsed(lend.Key{})
	for _, e := range h.emits {
		e.Batch.Free()
	}
	h.emits = nil
	return true
}

// Link ties the verdict to an emit that is made from h. It is called by the runtime.
func (h *Held) Link(lend.Key) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.openLocked(); err != nil {
		return err
	}
	if !h.registered {
		return ErrAlreadyHeld
	}
	h.state = heldLinked
	return nil
}

// Unlink undoes Link: the emit was discarded, h is held as before. It is called by the runtime.
func (h *Held) Unlink(k lend.Key) {
	h.mu.Lock()
	h.state = heldOpen
	h.mu.Unlock()
	h.host.HeldReopen(k, h.token)
}

// GiveLinked acknowledges h by the emit that it was linked to. It is called by the runtime.
func (h *Held) GiveLinked(_ lend.Key, link uint64) error {
	return h.giveIn(heldLinked, HeldVerdict{Kind: KindAck, Link: link})
}

// Token is the hold's name. It is called by the runtime.
func (h *Held) Token(lend.Key) Token { return h.token }
