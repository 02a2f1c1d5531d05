// Package plugin is what the author of a plugin sees: the handler, the message that it is lent, and the verdicts that it gives.
//
// A handler gets one message at a time, on loan. The bytes that it is shown lie where the source has read them, and other plugins read
// them at the same moment: they are read-only, and they are valid until Handle returns.
//
//	want                 call                      cost
//	read it now          Payload, Key, Header      nothing
//	keep the bytes       Clone, or Owned           a copy
//	give verdict later   Hold                      at most one copy
//	send on              Emit                      a copy into the plugin's own slab
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/penstock-dev/penstock/internal/clock"
)

// Handler handles the messages of one plugin. The verdict is the returned error: nil acknowledges, [Retry] asks for the message again,
// [Reject] sends it to the dead letters, any other error retries by the plugin's policy. A message that has been held has its verdict
// by its [Held]; what Handle returns for it then is ignored, unless it is an error, which the hold takes as its verdict.
//
// In mode actor one Handle runs at a time; in mode pool as many as there are workers. ctx is cancelled with the cause [ErrOverdue] when
// the call takes longer than the plugin's timeout, and ends when Handle returns. m and all bytes got from it are valid until Handle
// returns.
type Handler interface {
	Handle(ctx context.Context, m *Message) error
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, m *Message) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, m *Message) error { return f(ctx, m) }

// Owned is the safe form of a handler: f gets a copy that it may keep, change, and hand to other goroutines.
// It panics if f is nil.
func Owned(f func(ctx context.Context, m OwnedMessage) error) Handler {
	if f == nil {
		panic("plugin: Owned(nil): give it the function that handles messages")
	}
	return HandlerFunc(func(ctx context.Context, m *Message) error { return f(ctx, m.Clone()) })
}

// BatchHandler is an optional interface of a Handler that would rather see what has gathered. Messages that it marks with
// [Messages.Fail] have that verdict; the returned error is the verdict of all others. ms is valid until it returns, and Hold fails in
// it. A plugin with order by key gets its messages by Handle nevertheless: there, one verdict decides whether the next is shown.
type BatchHandler interface {
	HandleBatch(ctx context.Context, ms *Messages) error
}

// Starter is an optional interface of a Handler: Start is called once, before the first message. An error keeps the instance from
// serving; it is started again with backoff.
type Starter interface {
	Start(ctx context.Context, env Env) error
}

// Stopper is an optional interface of a Handler: Stop is called once, after the last message. It is not called for an instance that has
// panicked: its state is not to be trusted.
type Stopper interface {
	Stop(ctx context.Context) error
}

// Checker is an optional interface of a Handler: Check says whether the instance could serve. It may be called while Handle runs.
type Checker interface {
	Check(ctx context.Context) error
}

// Exporter is an optional interface of a Handler with state: Export returns all of it, in a form that Importer of another version reads.
// It is called between messages. The result belongs to the caller.
type Exporter interface {
	Export(ctx context.Context) ([]byte, error)
}

// Importer is the other side of Exporter: Import takes the state over, after Start and before the first message. state is valid until
// Import returns.
type Importer interface {
	Import(ctx context.Context, state []byte) error
}

// Clock is the time that a plugin should go by, so that its tests can run in virtual time.
type Clock = clock.Clock

// Env is what an instance is given at its start.
type Env struct {
	Plugin  string          // the plugin's name in the pipeline
	Version string          // the version of this instance
	Config  json.RawMessage // the plugin's own settings as JSON; nil if there are none
	Logger  *slog.Logger    // tagged with the plugin's name
	Clock   Clock
	// Emit sends a message that has no parent, for example from a timer. It is settled by its consumers alone. It may be called from
	// any goroutine between Start and Stop, and blocks while the stream's consumers are behind. The payload is copied before it returns.
	Emit func(ctx context.Context, stream string, payload []byte, opts ...EmitOption) error
}

// Decode reads the plugin's settings into v. Keys that v does not have are an error.
func (e Env) Decode(v any) error {
	if len(e.Config) == 0 {
		return nil
	}
	if err := strictDecode(e.Config, v); err != nil {
		return fmt.Errorf("plugin %q: config: %w", e.Plugin, err)
	}
	return nil
}

// EmitOption adds to an emitted message.
type EmitOption func(*Emission)

// Emission is an emitted message besides its payload. Its slices are read, and copied, before Emit returns.
type Emission struct {
	Key     []byte
	Headers []byte  // a header block
	Parents []*Held // aggregates: see EmitFrom
}

var errTrailing = errors.New("more than one JSON value")
