package penstock

import (
	"context"
	"log/slog"
	"time"

	"github.com/penstock-dev/penstock/actor"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/deadletter"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// What the author of a plugin needs; package plugin has the rest.
type (
	// Handler handles the messages of one plugin, lent for the call.
	Handler = plugin.Handler
	// Message is a message on loan, valid until Handle returns.
	Message = plugin.Message
	// OwnedMessage is a copy of a message.
	OwnedMessage = plugin.OwnedMessage
	// Held is a message whose verdict comes later.
	Held = plugin.Held
	// Version is another version of a plugin, for [Runtime.Swap].
	Version = actor.Version
	// Swapped says how a swap went.
	Swapped = actor.Swapped
)

// Owned is the safe form of a handler: f gets a copy that it may keep, change, and hand to other goroutines.
func Owned(f func(ctx context.Context, m OwnedMessage) error) Handler { return plugin.Owned(f) }

// Retry is the verdict "let it come again after that long"; with 0 the plugin's backoff decides.
func Retry(cause error, after time.Duration) error { return plugin.Retry(cause, after) }

// Reject is the verdict "never again": the message goes to the dead letters.
func Reject(cause error) error { return plugin.Reject(cause) }

// WithKey gives an emitted message its key. key is read before Emit returns.
func WithKey(key []byte) plugin.EmitOption { return plugin.WithKey(key) }

// Pipeline is sources, plugins and sinks, and how messages flow between them. The graph of streams must be acyclic. Zero values mean the
// defaults that are named.
type Pipeline struct {
	Sources []Source
	Plugins []Plugin
	Sinks   []Sink

	Memory     int64         // budget for messages in bytes, off the Go heap; default 256 MiB
	MaxMessage int           // the largest message in bytes; default 1 MiB
	Data       string        // directory for cursors and dead letters, made when it is needed; default "data"
	Drain      time.Duration // how long Run goes on when its context ends; default 30 s

	DeadLetters deadletter.Store // where rejected messages go; default a file in Data. Run does not close one that was given
	Logger      *slog.Logger     // default slog.Default()
	Tracer      Tracer           // follows some batches; nil for none
	Clock       plugin.Clock     // default the machine's
	Linger      bool             // Run goes on when all sources have ended, until ctx ends: a reload may bring others
	Strict      bool             // each handler gets a private copy that cannot be read after Handle returns: for tests; slow
}

// Tracer chooses batches of sources to be followed on their way.
type Tracer interface {
	// Begin is called for each batch that a source gives, with the number of its messages and the header traceparent of the first one (nil
	// if it has none; lent, valid until Begin returns). It returns nil, and does so quickly, for a batch that is not to be followed. It may be
	// called concurrently.
	Begin(source string, messages int, traceparent []byte) arena.Trail
}

// Source is where the messages of one stream come from. The stream has the source's name.
type Source struct {
	Name  string
	From  source.Source
	Key   KeyFunc // order and sessions go by it; nil for none
	Limit int     // messages that may be unsettled at one time; default 100,000

	// Identity says what From is, with all its settings, and KeyName what Key is: see [Runtime.Reload]. An empty Identity is like nothing
	// else. A source of which only KeyName or Limit change goes on, with the other Key and Limit.
	Identity string
	KeyName  string
}

// Plugin is a handler, the streams that it gets, and how it is run.
type Plugin struct {
	Name    string
	Version string                  // of the handler that New makes; default "1"
	New     func() (Handler, error) // makes an instance; called again after a panic
	From    []string                // the streams it gets
	Emits   []string                // the streams it may emit to
	Config  any                     // the plugin's own settings, given to its Starter as JSON

	Workers int           // 0: mode actor, one message after another. n: mode pool, n calls of Handle at one time
	ByKey   bool          // order by key: a message that is retried or held keeps later ones of its key waiting, and no others
	Timeout time.Duration // a Handle that takes longer is cancelled and named; default 30 s, negative for never
	Retry   RetryPolicy
	Mailbox Mailbox

	// Identity says what New makes, and of which Config and Version: see [Runtime.Reload]. Empty: like nothing else. A plugin of another
	// Kind, which may be empty, takes no state over from the one that had its name.
	Identity string
	Kind     string
}

// Sink is where messages of some streams go.
type Sink struct {
	Name  string
	From  []string
	To    sink.Sink
	Flush time.Duration // the longest that a message waits to be written out while more keep coming; default 1 s
	Retry RetryPolicy   // the default has no bound on attempts: a sink that is down rejects nothing

	// Identity says what To is, with all its settings: see [Runtime.Reload]. Empty: like nothing else.
	Identity string
}

// RetryPolicy bounds and spaces the attempts at a message. The backoff doubles with each attempt; its upper half is random.
type RetryPolicy struct {
	Attempts int           // the most deliveries, then the dead letters; default 5, negative for no bound
	Backoff  time.Duration // after the first attempt; default 100 ms
	Max      time.Duration // the longest backoff; default 30 s
}

// Mailbox bounds what waits for a plugin.
type Mailbox struct {
	Bytes      int64 // default 8 MiB
	DropOldest bool  // when it is full, drop what has waited longest: settled and counted, but not handled. Otherwise its sources wait
}

// Row is what has become of the messages of one source, plugin or sink.
type Row struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`                // source, plugin or sink
	State     string `json:"state,omitempty"`     // source: running, draining, ended, failed; plugin: as actor.State; sink: what it says of itself
	Version   string `json:"version,omitempty"`   // plugin: that serves
	Error     string `json:"error,omitempty"`     // source: why it failed; sink: what is the matter with it
	Accepted  uint64 `json:"accepted,omitempty"`  // source: taken from its producer
	Settled   uint64 `json:"settled,omitempty"`   // source: done with, by everybody
	Returned  uint64 `json:"returned,omitempty"`  // source: given back unsettled at the end
	Bad       uint64 `json:"bad,omitempty"`       // source: input that was refused
	Delivered uint64 `json:"delivered,omitempty"` // plugin, sink: given to it, repeats included
	Retried   uint64 `json:"retried,omitempty"`
	Held      uint64 `json:"held,omitempty"`
	Deferred  uint64 `json:"deferred,omitempty"` // waited behind its key
	Dead      uint64 `json:"dead,omitempty"`
	Dropped   uint64 `json:"dropped,omitempty"`
	Emitted   uint64 `json:"emitted,omitempty"`
	Lapsed    uint64 `json:"lapsed,omitempty"`   // leases of holds that ran out
	Failures  uint64 `json:"failures,omitempty"` // sink: calls that failed
	Waiting   int    `json:"waiting,omitempty"`  // batches and messages owed to it now, and not in its mailbox
	Mailbox   int    `json:"mailbox,omitempty"`  // deliveries in its mailbox, or in its hands
	Panics    uint64 `json:"panics,omitempty"`
	Restarts  uint64 `json:"restarts,omitempty"`
	Overdue   uint64 `json:"overdue,omitempty"` // calls that took longer than the timeout

	// Oldest says for how long the oldest message has been unsettled (source), or owed (plugin, sink), to about a second; 0 for none.
	Oldest time.Duration `json:"oldest_ns,omitempty"`
}

// Summary is what has become of all messages.
type Summary struct {
	Accepted uint64 `json:"accepted"` // by sources
	Settled  uint64 `json:"settled"`  // of those
	Retried  uint64 `json:"retried"`  // attempts that were repeated
	Held     uint64 `json:"held"`
	Dead     uint64 `json:"dead"`
	Dropped  uint64 `json:"dropped"`
	Bad      uint64 `json:"bad"`      // input that was refused, too large for example: it is not among those accepted
	Returned uint64 `json:"returned"` // given back to their source unsettled, when Run was ended
	Rows     []Row  `json:"rows"`
}
