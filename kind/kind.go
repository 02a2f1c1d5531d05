// Package kind describes what the file of a pipeline can name: kinds of sources, plugins and sinks, with their settings, and how each is
// made. From one description come the check of the file, its JSON Schema, the reference page and what the command line explains.
//
// A kind's settings are a struct. Its fields say all there is to say about them:
//
//	Path string `yaml:"path" jsonschema:"required,example=./in.ndjson" jsonschema_description:"File to read."`
//
// The tag yaml names the key; jsonschema may say required, enum=..., minimum=..., example=...; jsonschema_description is a sentence for
// people. Fields are strings, booleans, numbers, [time.Duration], [Size], [Rate], [Secret], any other encoding.TextUnmarshaler, structs,
// pointers to structs, slices of those and maps from strings to them; a field of type any takes whatever is written. Defaults are the
// values of the struct that a kind is registered with.
package kind

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// Role is what a kind is good for.
type Role string

// The roles.
const (
	RoleSource Role = "source"
	RolePlugin Role = "plugin"
	RoleSink   Role = "sink"
)

// About is what people read about a kind.
type About struct {
	Name    string // as the file names it
	Summary string // one sentence
	Doc     string // paragraphs of Markdown; may be empty
	Example string // YAML of one entry as it stands under its name, with the settings that one needs most
}

// Env is what a kind may use as it makes a source, a plugin or a sink.
type Env struct {
	Name      string   // of the entry in the pipeline
	Emits     []string // plugin: the streams that it may emit to
	Frame     string   // source: lines, u32, varint or whole; empty for the kind's default
	Delimiter string   // source: of lines; empty for a newline
	// Listen opens a listener, as [net.ListenConfig.Listen] does. Sources must use it: while a file is loaded again, the listener of the
	// source that ends goes on to the one that takes its place, so that no connection is refused in between.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Kind is a kind of source, plugin or sink.
type Kind struct {
	About
	Role     Role
	Native   bool // a plugin compiled into the binary: it is named by `native: NAME`, and its settings stand under config
	Settings any  // a struct with the defaults; nil if the kind takes any settings, or none

	source func(settings any, env Env) (source.Source, error)
	plugin func(settings any, env Env) (func() (plugin.Handler, error), error)
	sink   func(settings any, env Env) (sink.Sink, error)
}

// Source describes a kind of source. build gets settings that have been checked; it opens nothing.
func Source[S any](about About, defaults S, build func(s S, env Env) (source.Source, error)) Kind {
	return Kind{About: about, Role: RoleSource, Settings: defaults, source: func(s any, env Env) (source.Source, error) {
		return build(s.(S), env)
	}}
}

// Sink describes a kind of sink. build gets settings that have been checked; it opens nothing.
func Sink[S any](about About, defaults S, build func(s S, env Env) (sink.Sink, error)) Kind {
	return Kind{About: about, Role: RoleSink, Settings: defaults, sink: func(s any, env Env) (sink.Sink, error) {
		return build(s.(S), env)
	}}
}

// Plugin describes a kind of plugin that is built in. build checks what it can, and returns what makes an instance.
func Plugin[S any](about About, defaults S, build func(s S, env Env) (func() (plugin.Handler, error), error)) Kind {
	return Kind{About: about, Role: RolePlugin, Settings: defaults, plugin: func(s any, env Env) (func() (plugin.Handler, error), error) {
		return build(s.(S), env)
	}}
}

// Native describes a plugin of the user's that is compiled into the binary. Its settings are free: its Starter gets them as JSON.
func Native(name string, create func() (plugin.Handler, error)) Kind {
	return Kind{
		About: About{Name: name, Summary: "A plugin that this binary brings along."}, Role: RolePlugin, Native: true,
		plugin: func(any, Env) (func() (plugin.Handler, error), error) { return create, nil },
	}
}

// NativeWith describes a plugin of the user's whose settings are a struct, so that they are checked with the file.
func NativeWith[S any](about About, defaults S, create func(s S) (plugin.Handler, error)) Kind {
	k := Plugin(about, defaults, func(s S, _ Env) (func() (plugin.Handler, error), error) {
		return func() (plugin.Handler, error) { return create(s) }, nil
	})
	k.Native = true
	return k
}

// NewSource makes a source. settings is of the type of k.Settings.
func (k *Kind) NewSource(settings any, env Env) (source.Source, error) {
	return k.source(settings, env)
}

// NewSink makes a sink. settings is of the type of k.Settings.
func (k *Kind) NewSink(settings any, env Env) (sink.Sink, error) { return k.sink(settings, env) }

// NewPlugin returns what makes instances of a plugin. settings is of the type of k.Settings; where that is nil, they are not used.
func (k *Kind) NewPlugin(settings any, env Env) (func() (plugin.Handler, error), error) {
	return k.plugin(settings, env)
}

// Problem is something wrong with settings that their types do not tell.
type Problem struct {
	Field   string // keys from the settings down, with dots: "tls.cert"; empty for the settings as a whole
	Message string // what is wrong, and what to do
}

// Checked is an optional interface of settings: Check says what is wrong with them. It opens nothing.
type Checked interface {
	Check() []Problem
}

// Claimer is an optional interface of settings: Claims names what only one entry of a pipeline may have, such as
// "file /var/log/out.ndjson" or "tcp 127.0.0.1:9000". Two entries with the same claim are an error. "read PATH" says that a file is read:
// others may read it too, but nobody may claim "file PATH".
type Claimer interface {
	Claims() []string
}

// Registry is the kinds that a binary knows. It is filled before it is used, and may then be read concurrently.
type Registry struct {
	kinds map[Role]map[string]Kind
}

// NewRegistry makes a registry of some kinds. It panics if two have one name, as Add does.
func NewRegistry(kinds ...Kind) *Registry {
	r := &Registry{kinds: map[Role]map[string]Kind{RoleSource: {}, RolePlugin: {}, RoleSink: {}}}
	for _, k := range kinds {
		r.Add(k)
	}
	return r
}

// Add adds a kind. It panics if there is one of that role and name already, which is a mistake in the program.
func (r *Registry) Add(k Kind) {
	if _, ok := r.kinds[k.Role][k.Name]; ok {
		panic(fmt.Sprintf("kind: two kinds of %s are called %q", k.Role, k.Name))
	}
	r.kinds[k.Role][k.Name] = k
}

// Lookup finds a kind.
func (r *Registry) Lookup(role Role, name string) (Kind, bool) {
	k, ok := r.kinds[role][name]
	return k, ok
}

// Kinds are all kinds of a role, by name.
func (r *Registry) Kinds(role Role) []Kind {
	out := make([]Kind, 0, len(r.kinds[role]))
	for _, name := range slices.Sorted(maps.Keys(r.kinds[role])) {
		out = append(out, r.kinds[role][name])
	}
	return out
}
