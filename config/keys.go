package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
)

// FileKeys is what stands at the top of a file, beside sources, plugins and sinks.
type FileKeys struct {
	Listen     string          `yaml:"listen" jsonschema:"example=127.0.0.1:7070" jsonschema_description:"Address of the port for health, metrics and control; off for none. One that others can reach needs tls and token."`
	TLS        *kind.ServerTLS `yaml:"tls" jsonschema_description:"TLS for that port."`
	Token      kind.Secret     `yaml:"token" jsonschema:"example=${PENSTOCK_TOKEN}" jsonschema_description:"Bearer token that requests to that port must show."`
	Data       string          `yaml:"data" jsonschema:"minLength=1,example=/var/lib/penstock" jsonschema_description:"Directory for cursors and dead letters. It is made at the start, and only one process may have it."`
	Memory     kind.Size       `yaml:"memory" jsonschema:"minimum=1,example=512MiB" jsonschema_description:"Budget for messages in memory."`
	MaxMessage kind.Size       `yaml:"max_message" jsonschema:"minimum=1,example=4MiB" jsonschema_description:"The largest message."`
	Drain      time.Duration   `yaml:"drain" jsonschema:"minimum=1ms,example=10s" jsonschema_description:"How long a stop may take while messages are finished."`
	Log        Log             `yaml:"log" jsonschema_description:"What is logged, and how."`
	Tracing    Tracing         `yaml:"tracing" jsonschema_description:"OpenTelemetry traces."`
}

// Log is the settings of the log.
type Log struct {
	Level  string `yaml:"level" jsonschema:"enum=debug,enum=info,enum=warn,enum=error" jsonschema_description:"The least level that is logged."`
	Format string `yaml:"format" jsonschema:"enum=text,enum=json" jsonschema_description:"Lines for people, or JSON for machines."`
}

// SlogLevel is Level for package slog.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// Tracing is the settings of traces.
type Tracing struct {
	Sample float64 `yaml:"sample" jsonschema:"minimum=0,maximum=1,example=0.01" jsonschema_description:"The part of all batches that is traced, from 0 to 1."`
}

// SourceKeys is what any source can have beside its kind.
type SourceKeys struct {
	Frame     string  `yaml:"frame" jsonschema:"enum=lines,enum=u32,enum=varint,enum=whole" jsonschema_description:"How messages are told apart: by line, by a length of four bytes or as a varint in front, or not at all. Default: what suits the kind."`
	Delimiter string  `yaml:"delimiter" jsonschema:"minLength=1,example=;" jsonschema_description:"What ends a message, with frame lines. Default: a newline."`
	Key       KeyPath `yaml:"key" jsonschema:"example=$.origin" jsonschema_description:"Where the key of a message is in its JSON. Order goes by it."`
	Limit     int     `yaml:"limit" jsonschema:"minimum=1,example=1000" jsonschema_description:"Messages that may be unsettled at one time."`
}

// PluginKeys is what any plugin can have beside its kind.
type PluginKeys struct {
	From    Names         `yaml:"from" jsonschema:"required,minItems=1,example=flights" jsonschema_description:"The streams that it gets: names of sources, or what plugins emit."`
	Emits   Names         `yaml:"emits" jsonschema:"example=late" jsonschema_description:"The streams that it may emit to."`
	Version string        `yaml:"version" jsonschema:"minLength=1,example=2" jsonschema_description:"Of the plugin's code. A reload with another version swaps it."`
	Mode    string        `yaml:"mode" jsonschema:"enum=actor,enum=pool" jsonschema_description:"One message after another, or several at one time."`
	Workers int           `yaml:"workers" jsonschema:"minimum=1,maximum=1024,example=4" jsonschema_description:"Messages at one time, with mode pool. Default: the number of processors."`
	Order   string        `yaml:"order" jsonschema:"enum=none,enum=key" jsonschema_description:"With key, a message that waits keeps later ones of its key waiting, and no others."`
	Timeout time.Duration `yaml:"timeout" jsonschema:"example=5s" jsonschema_description:"A message that takes longer is cancelled and tried again; negative for never."`
	Retry   Retry         `yaml:"retry" jsonschema_description:"How often, and how soon, a message is tried again."`
	Mailbox Mailbox       `yaml:"mailbox" jsonschema_description:"What may wait for the plugin."`
}

// SinkKeys is what any sink can have beside its kind.
type SinkKeys struct {
	From  Names         `yaml:"from" jsonschema:"required,minItems=1,example=late" jsonschema_description:"The streams that it gets: names of sources, or what plugins emit."`
	Flush time.Duration `yaml:"flush" jsonschema:"minimum=1ms,example=200ms" jsonschema_description:"The longest that a message waits to be written out while more keep coming."`
	Retry Retry         `yaml:"retry" jsonschema_description:"How often, and how soon, a message is tried again."`
}

// Retry bounds and spaces attempts at a message.
type Retry struct {
	Attempts int           `yaml:"attempts" jsonschema:"minimum=-1,example=3" jsonschema_description:"The most deliveries; then a message goes to the dead letters. -1 for no bound."`
	Backoff  time.Duration `yaml:"backoff" jsonschema:"minimum=1ms,example=1s" jsonschema_description:"Wait after the first attempt. It doubles with each attempt, and its upper half is random."`
	Max      time.Duration `yaml:"max" jsonschema:"minimum=1ms,example=1m" jsonschema_description:"The longest wait."`
}

// Mailbox bounds what waits for a plugin.
type Mailbox struct {
	Bytes    kind.Size `yaml:"bytes" jsonschema:"minimum=1,example=64MiB" jsonschema_description:"Bytes of messages that may wait."`
	Overflow string    `yaml:"overflow" jsonschema:"enum=block,enum=drop_oldest" jsonschema_description:"When it is full: its sources wait, or what has waited longest is settled without being handled."`
}

// Names is the names of streams: in a file, one name or a list.
type Names []Name

// Name is a name with its place.
type Name struct {
	Text string
	Pos  Pos
	raw  string // as the file has it, variables and all: for messages
}

// Texts is the names themselves.
func (n Names) Texts() []string {
	out := make([]string, len(n))
	for i := range n {
		out[i] = n[i].Text
	}
	return out
}

// KeyPath is where the key of a message is: $.a.b is the field b of the object a of a JSON object. Fields with other characters than
// letters, digits, _ and - are written $['a.b'], and items of a list $.a[0].
type KeyPath struct{ path []string }

// Path is the names on the way, for [github.com/penstock-dev/penstock.JSONKey]; empty for no key.
func (k KeyPath) Path() []string { return k.path }

// String is the path as it is written.
func (k KeyPath) String() string {
	if len(k.path) == 0 {
		return ""
	}
	var out strings.Builder
	out.WriteByte('$')
	for _, p := range k.path {
		switch {
		case p[0] == '[':
			out.WriteString(p)
		case strings.IndexFunc(p, notInName) < 0:
			out.WriteString("." + p)
		default:
			out.WriteString("['" + p + "']")
		}
	}
	return out.String()
}

// MarshalText writes the path as String does.
func (k KeyPath) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func notInName(r rune) bool {
	return !(r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
}

const maxPath = 16

// UnmarshalText reads a path.
func (k *KeyPath) UnmarshalText(text []byte) error {
	rest, ok := strings.CutPrefix(string(text), "$")
	wrong := fmt.Errorf("%q is not a path: write $ and the fields on the way, as in $.origin or $.user['e-mail'] or $.legs[0].from", text)
	if !ok || rest == "" {
		return wrong
	}
	var path []string
	for rest != "" {
		name := ""
		switch {
		case strings.HasPrefix(rest, "['"):
			if name, rest, ok = strings.Cut(rest[2:], "']"); !ok || name == "" || name[0] == '[' {
				return wrong
			}
		case rest[0] == '[':
			if name, rest, ok = strings.Cut(rest[1:], "]"); !ok {
				return wrong
			}
			if n, err := strconv.ParseUint(name, 10, 31); err != nil || strconv.FormatUint(n, 10) != name {
				return wrong
			}
			name = "[" + name + "]"
		case rest[0] == '.':
			end := strings.IndexFunc(rest[1:], notInName)
			if end < 0 {
				end = len(rest) - 1
			}
			if name, rest = rest[1:end+1], rest[end+1:]; name == "" {
				return wrong
			}
		default:
			return wrong
		}
		path = append(path, name)
	}
	if len(path) > maxPath {
		return errors.New("a path has at most 16 fields")
	}
	k.path = path
	return nil
}

// What a file without a key has.
const (
	defaultListen  = "127.0.0.1:7070"
	defaultMailbox = 8 << 20
)

func defaultFile() FileKeys {
	return FileKeys{
		Listen: defaultListen, Data: "data", Memory: 256 << 20, MaxMessage: 1 << 20, Drain: 30 * time.Second,
		Log: Log{Level: "info", Format: "text"}, Tracing: Tracing{Sample: 0},
	}
}

func defaultSource() SourceKeys { return SourceKeys{Limit: 100_000} }

func defaultPlugin() PluginKeys {
	return PluginKeys{
		Version: "1", Mode: "actor", Order: "none", Timeout: 30 * time.Second,
		Retry: Retry{Attempts: 5, Backoff: 100 * time.Millisecond, Max: 30 * time.Second}, Mailbox: Mailbox{Bytes: defaultMailbox, Overflow: "block"},
	}
}

func defaultSink() SinkKeys {
	return SinkKeys{Flush: time.Second, Retry: Retry{Attempts: -1, Backoff: 100 * time.Millisecond, Max: 30 * time.Second}}
}

// Check finds what the types do not tell.
func (k FileKeys) Check() (out []kind.Problem) {
	say := func(field, format string, args ...any) {
		out = append(out, kind.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if k.MaxMessage > 1<<30 {
		say("max_message", "want at most 1GiB, got %v", k.MaxMessage)
	}
	if k.Listen == "" {
		return out
	}
	_, port, err := net.SplitHostPort(k.Listen)
	if _, number := strconv.ParseUint(port, 10, 16); err != nil || number != nil {
		say("listen", "want an address such as 127.0.0.1:7070, or off")
		return out
	}
	if missing := kind.Exposed(k.Listen, k.TLS, k.Token != ""); missing != "" {
		say("listen", "others can reach this address: add %s, or listen on 127.0.0.1", missing)
	}
	return out
}

// Check finds what the types do not tell.
func (k SourceKeys) Check() (out []kind.Problem) {
	if k.Delimiter != "" && k.Frame != "" && k.Frame != "lines" {
		message := fmt.Sprintf("frame %s has no delimiter: take it out, or set frame: lines", k.Frame)
		out = append(out, kind.Problem{Field: "delimiter", Message: message})
	}
	return out
}

// Check finds what the types do not tell.
func (k PluginKeys) Check() []kind.Problem {
	out := k.Retry.check()
	if k.Workers > 0 && k.Mode != "pool" {
		out = append(out, kind.Problem{Field: "workers", Message: "only mode pool has workers: set mode: pool, or take it out"})
	}
	if k.Timeout == 0 {
		out = append(out, kind.Problem{Field: "timeout", Message: "no message is handled in no time: give a longer one, or a negative one for never"})
	}
	return out
}

// Check finds what the types do not tell.
func (k SinkKeys) Check() []kind.Problem { return k.Retry.check() }

func (r Retry) check() (out []kind.Problem) {
	if r.Attempts == 0 {
		out = append(out, kind.Problem{Field: "retry.attempts", Message: "a message is delivered at least once: give 1 or more, or -1 for no bound"})
	}
	if r.Max < r.Backoff && r.Max > 0 {
		message := fmt.Sprintf("the longest wait, %v, is shorter than the first, backoff %v", duration(r.Max), duration(r.Backoff))
		out = append(out, kind.Problem{Field: "retry.max", Message: message})
	}
	return out
}
