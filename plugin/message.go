package plugin

import (
	"bytes"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
)

// Message is a message on loan: a window on the memory where its source, or the plugin that emitted it, has put it.
//
//	batch ──> slab  [ ... | header block | key | payload | ... ]
//	frame ──────────┘ offsets within the slab
//
// It belongs to one worker of one plugin, which points it at message after message; so it, and every slice that it returns, is valid
// until Handle returns. All its bytes are read-only. It must not be used by two goroutines at once.
type Message struct {
	mem      []byte        // the slab's memory, or a private copy's
	frames   []arena.Frame // into mem; nil outside of a call
	at       int           // the message in hand, in frames
	off, end uint32        // its payload, in mem
	index    int           // the message in hand, in batch
	batch    *arena.Batch
	attempt  int
	stream   string
	host     Host
	held     *Held
	forward  Emission // of Forward: a local one would be allocated each time
}

// Host is the runtime's side of a Message: an actor, or the test harness. Only Penstock's own packages can implement it.
type Host interface {
	Hold(k lend.Key, m *Message, lease time.Duration) (*Held, error)
	Emit(k lend.Key, m *Message, stream string, payload []byte, e *Emission) error
	Resolve(k lend.Key, m *Message, r arena.Ref) ([]byte, bool)
	Flush(k lend.Key)
}

// Payload is the message's payload, lent.
func (m *Message) Payload() []byte { return m.mem[m.off:m.end:m.end] }

// Key is the message's key, lent; nil if it has none.
func (m *Message) Key() []byte {
	f := &m.frames[m.at]
	if f.KeyLen == 0 {
		return nil
	}
	return m.mem[f.KeyOff : f.KeyOff+f.KeyLen : f.KeyOff+f.KeyLen]
}

// Header is the value of the first header called name, lent; nil if there is none.
func (m *Message) Header(name string) []byte { return arena.Header(m.Headers(), name) }

// Headers is the whole header block, lent, for [arena.NextHeader].
func (m *Message) Headers() []byte {
	f := &m.frames[m.at]
	if f.HdrLen == 0 {
		return nil
	}
	return m.mem[f.HdrOff : f.HdrOff+f.HdrLen : f.HdrOff+f.HdrLen]
}

// Stream is the stream that the message came by.
func (m *Message) Stream() string { return m.stream }

// Attempt counts the deliveries of this message to this plugin: 1 for the first.
func (m *Message) Attempt() int { return m.attempt }

// Ref names the payload. It may be kept for ever; it resolves only while the message lives.
func (m *Message) Ref() arena.Ref {
	f := &m.batch.Frames[m.index]
	return m.batch.Slab.Ref(f.Off, f.Len)
}

// Resolve yields the bytes that r names, valid until Handle returns, or false if they are gone.
func (m *Message) Resolve(r arena.Ref) ([]byte, bool) { return m.host.Resolve(lend.Key{}, m, r) }

// Clone is a copy that belongs to the caller.
func (m *Message) Clone() OwnedMessage {
	return OwnedMessage{
		payload: bytes.Clone(m.Payload()), key: bytes.Clone(m.Key()), headers: bytes.Clone(m.Headers()),
		stream: m.stream, attempt: m.attempt,
	}
}

// Hold defers the verdict: it will come through the Held, from any goroutine, within lease. A lease that lapses is a retry. The
// message's bytes are kept for the Held, with at most one copy. Hold fails with [ErrAlreadyHeld] on a second call.
func (m *Message) Hold(lease time.Duration) (*Held, error) {
	if m.frames == nil {
		return nil, ErrReturned
	}
	if m.held != nil {
		return nil, ErrAlreadyHeld
	}
	h, err := m.host.Hold(lend.Key{}, m, lease)
	if err != nil {
		return nil, err
	}
	m.held = h
	return h, nil
}

// Emit sends a message to a stream that the plugin declares in its emits. The payload is copied before Emit returns. What one attempt
// emits is released together when it acknowledges, and discarded otherwise, so a retry emits once. It fails with [ErrUndeclared] or
// [ErrEmitTooLarge]; it waits while consumers of earlier emits are behind.
func (m *Message) Emit(stream string, payload []byte, opts ...EmitOption) error {
	if m.frames == nil {
		return ErrReturned
	}
	var e Emission
	for _, o := range opts {
		o(&e)
	}
	return m.host.Emit(lend.Key{}, m, stream, payload, &e)
}

// Forward emits the message as it is: its payload, key and headers. It is an emit like any other, and allocates nothing.
func (m *Message) Forward(stream string) error {
	if m.frames == nil {
		return ErrReturned
	}
	return m.ForwardAs(stream, m.Key(), m.Payload())
}

// ForwardAs emits another key and payload with the message's headers. An empty key is none. Both are copied before it returns. It is an
// emit like any other, and allocates nothing.
func (m *Message) ForwardAs(stream string, key, payload []byte) error {
	if m.frames == nil {
		return ErrReturned
	}
	m.forward.Key, m.forward.Headers = key, m.Headers()
	return m.host.Emit(lend.Key{}, m, stream, payload, &m.forward)
}

// Flush sends what earlier calls have emitted on its way. It goes by itself when the handler is done with the batch that the message is
// of; a handler that is about to wait calls Flush first, so that others need not wait with it. What this call emits goes with its verdict.
func (m *Message) Flush() {
	if m.frames != nil {
		m.host.Flush(lend.Key{})
	}
}

// WithKey gives an emitted message its key. key is read before Emit returns.
func WithKey(key []byte) EmitOption { return func(e *Emission) { e.Key = key } }

// WithHeader adds a header to an emitted message. value is read before Emit returns.
func WithHeader(name string, value []byte) EmitOption {
	return func(e *Emission) { e.Headers = arena.AppendHeader(e.Headers, name, value) }
}

// EmitFrom makes an emitted message the child of held messages too, as an aggregate is of what went into it: the acknowledgement that
// releases the emit acknowledges them, and they settle when it has settled. If the attempt is not acknowledged they stay held.
func EmitFrom(parents ...*Held) EmitOption {
	return func(e *Emission) { e.Parents = append(e.Parents, parents...) }
}

// Open points m at message i of b. It is called by the runtime, before a handler is called.
func (m *Message) Open(_ lend.Key, b *arena.Batch, i int) {
	m.batch, m.mem, m.frames = b, b.Slab.Bytes(), b.Frames
	m.Next(lend.Key{}, i)
}

// Next points m at message i of the batch that it is open on. It is Open without what stays the same, for the hot path: it stores no
// pointer.
func (m *Message) Next(_ lend.Key, i int) {
	f := &m.frames[i]
	m.at, m.index = i, i
	m.off, m.end = f.Off, f.Off+f.Len
}

// Show makes m read from a private copy instead, whose only frame is in frames: strict mode. Open ends it.
func (m *Message) Show(_ lend.Key, mem []byte, frames []arena.Frame) {
	f := &frames[0]
	m.mem, m.frames, m.at = mem, frames, 0
	m.off, m.end = f.Off, f.Off+f.Len
}

// Describe sets what does not change from message to message.
func (m *Message) Describe(_ lend.Key, host Host, stream string, attempt int) {
	m.host, m.stream, m.attempt = host, stream, attempt
}

// Shut ends the lend: m answers ErrReturned, or panics, until it is opened again. It returns the hold that was made, if any.
func (m *Message) Shut(lend.Key) *Held {
	h := m.held
	m.held, m.mem, m.frames = nil, nil, nil
	m.off, m.end = 0, 0
	return h
}

// Held is the hold made in the current call, or nil.
func (m *Message) Held(lend.Key) *Held { return m.held }

// Index is the message's place in its batch.
func (m *Message) Index(lend.Key) int { return m.index }

// Batch is the batch that m is open on.
func (m *Message) Batch(lend.Key) *arena.Batch { return m.batch }

// OwnedMessage is a copy of a message. It belongs to whoever has it, like any value of Go.
type OwnedMessage struct {
	payload, key, headers []byte
	stream                string
	attempt               int
}

// Payload is the payload.
func (m OwnedMessage) Payload() []byte { return m.payload }

// Key is the key, nil if the message has none.
func (m OwnedMessage) Key() []byte { return m.key }

// Header is the value of the first header called name, nil if there is none.
func (m OwnedMessage) Header(name string) []byte { return arena.Header(m.headers, name) }

// Stream is the stream that the message came by.
func (m OwnedMessage) Stream() string { return m.stream }

// Attempt counts the deliveries to this plugin, from 1.
func (m OwnedMessage) Attempt() int { return m.attempt }

// Messages is a batch on loan to a [BatchHandler], valid until HandleBatch returns. It must not be used by two goroutines at once.
type Messages struct {
	at  func(i int) *Message
	n   int
	own []own
}

// Len is the number of messages.
func (ms *Messages) Len() int { return ms.n }

// At is message i. It is valid until the next call of At or until HandleBatch returns.
func (ms *Messages) At(i int) *Message { return ms.at(i) }

// Fail gives message i a verdict of its own, as if Handle had returned err for it; nil acknowledges it.
func (ms *Messages) Fail(i int, err error) { ms.own[i] = own{true, err} }

// Bind makes ms show n messages through at. It is called by the runtime.
func (ms *Messages) Bind(_ lend.Key, n int, at func(i int) *Message) {
	ms.at, ms.n = at, n
	ms.own = append(ms.own[:0], make([]own, n)...)
}

// Verdict is the error of message i: its own where it was marked, else that of the whole.
func (ms *Messages) Verdict(_ lend.Key, i int, whole error) error {
	if o := ms.own[i]; o.given {
		return o.err
	}
	return whole
}

// own is the verdict that a batch handler gave one message.
type own struct {
	given bool
	err   error
}
