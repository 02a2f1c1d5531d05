package tcp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
)

// Framing says where messages end on the connection.
type Framing string

// The framings, as sources have them too.
const (
	Lines  Framing = "lines"  // a delimiter behind each message
	U32    Framing = "u32"    // its length before each message, in four bytes, big-endian
	Varint Framing = "varint" // its length before each message, in unsigned LEB128
)

// Config is the settings of a tcp sink, in Go and in a pipeline's file. [Defaults] has what is not said.
type Config struct {
	Address        string          `yaml:"address" jsonschema:"required,example=127.0.0.1:9000" jsonschema_description:"Host and port to connect to."`
	Frame          Framing         `yaml:"frame" jsonschema:"enum=lines,enum=u32,enum=varint" jsonschema_description:"Where messages end: at a delimiter, or by a length before each, in four bytes (big-endian) or in LEB128."`
	Delimiter      string          `yaml:"delimiter" jsonschema_description:"What ends each message with frame lines, at most 64 bytes."`
	TLS            *kind.ClientTLS `yaml:"tls" jsonschema_description:"With it, even an empty one, the connection is encrypted."`
	Token          kind.Secret     `yaml:"token" jsonschema:"example=${TOKEN}" jsonschema_description:"Sent as the first message of each connection."`
	Acks           bool            `yaml:"acks" jsonschema_description:"A message is settled when the peer says so, as Penstock's own tcp source does; otherwise when the operating system has it."`
	MaxUnacked     int             `yaml:"max_unacked" jsonschema:"minimum=1" jsonschema_description:"With acks: messages that may wait for the peer's word before more are sent."`
	MaxMessage     kind.Size       `yaml:"max_message" jsonschema:"example=1MiB" jsonschema_description:"Largest message that the peer takes; larger ones go to the dead letters. 0 for no bound."`
	ConnectTimeout time.Duration   `yaml:"connect_timeout" jsonschema_description:"Longest that a connection, its TLS included, may take to make."`
	WriteTimeout   time.Duration   `yaml:"write_timeout" jsonschema_description:"Longest that one write may wait for a peer that does not read."`
	Backoff        Backoff         `yaml:"backoff" jsonschema_description:"Pauses between attempts to connect; each is shortened by up to a half, at random."`
}

// Backoff is the pauses between attempts: Initial, then twice as long each time, up to Max.
type Backoff struct {
	Initial time.Duration `yaml:"initial" jsonschema_description:"First pause."`
	Max     time.Duration `yaml:"max" jsonschema_description:"Longest pause."`
}

const (
	maxDelimiter = 64
	maxToken     = 1 << 10
)

// Defaults is the settings of a sink that nobody has said anything about but the address.
func Defaults() Config {
	return Config{
		Frame: Lines, Delimiter: "\n", MaxUnacked: 64 << 10, ConnectTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		Backoff: Backoff{Initial: 100 * time.Millisecond, Max: 30 * time.Second},
	}
}

// Check says what is wrong with the settings.
func (c Config) Check() (out []kind.Problem) {
	refuse := func(bad bool, field, format string, args ...any) {
		if bad {
			out = append(out, kind.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
		}
	}
	if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" {
		refuse(true, "address", "address %q: write a host and a port, as in 127.0.0.1:9000", c.Address)
	}
	refuse(c.Frame != Lines && c.Frame != U32 && c.Frame != Varint, "frame", "frame %q: want %s, %s or %s", c.Frame, Lines, U32, Varint)
	refuse(c.Frame == Lines && c.Delimiter == "", "delimiter", "delimiter is empty: with frame lines something must end a message")
	refuse(len(c.Delimiter) > maxDelimiter, "delimiter", "delimiter has %d bytes: at most %d", len(c.Delimiter), maxDelimiter)
	refuse(len(c.Token) > maxToken, "token", "token has %d bytes: at most %d", len(c.Token), maxToken)
	refuse(c.Frame == Lines && c.Delimiter != "" && strings.Contains(c.Token.Reveal(), c.Delimiter), "token",
		"token contains the delimiter: it would be read as two messages")
	refuse(c.MaxUnacked < 1, "max_unacked", "max_unacked is %d: at least 1", c.MaxUnacked)
	refuse(c.MaxMessage < 0, "max_message", "max_message is %d: 0 for no bound, or a size such as 1MiB", c.MaxMessage)
	refuse(c.ConnectTimeout <= 0, "connect_timeout", "connect_timeout is %v: give some time, such as 5s", c.ConnectTimeout)
	refuse(c.WriteTimeout <= 0, "write_timeout", "write_timeout is %v: give some time, such as 10s", c.WriteTimeout)
	refuse(c.Backoff.Initial <= 0, "backoff.initial", "initial is %v: give some time, such as 100ms", c.Backoff.Initial)
	refuse(c.Backoff.Max < c.Backoff.Initial, "backoff.max", "max is %v: at least initial, %v", c.Backoff.Max, c.Backoff.Initial)
	return out
}

var _ kind.Checked = Config{}

// Kind describes the tcp sink to pipelines that are written in YAML.
func Kind() kind.Kind {
	return kind.Sink(kind.About{
		Name:    "tcp",
		Summary: "Sends messages over a TCP connection.",
		Doc: "With `acks: true` a message is settled when the peer says so; otherwise when the operating system has it, and what is on the way " +
			"when the connection breaks is lost. A broken connection is made again at the next message, with growing pauses.",
		Example: "from: late\ntcp: { address: 127.0.0.1:9000, frame: u32, acks: true }\n",
	}, Defaults(), func(c Config, _ kind.Env) (sink.Sink, error) { return New(c) })
}

// Error is a connection that could not be made, or broke. Messages that fail with it may have arrived all the same.
type Error struct {
	Op      string // connect, write, read
	Address string
	Hint    string // what to do about it; may be empty
	Err     error
}

// Error names the operation, address and cause, and what to do.
func (e *Error) Error() string {
	text := fmt.Sprintf("tcp sink: %s %s: %v", e.Op, e.Address, e.Err)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Reasons for which a connection is given up, or a message is not sent. They are wrapped in an [Error] or a verdict.
var (
	// ErrRefused says that the peer has sent an error.
	ErrRefused = errors.New("the peer refuses")
	// ErrProtocol says that the peer has sent something other than acknowledgements.
	ErrProtocol = errors.New("the peer does not send acknowledgements as it should")
	// ErrDelimiter rejects a message that contains the delimiter: the peer would read two.
	ErrDelimiter = errors.New("the message contains the delimiter: send it with frame u32 or varint, or with another delimiter")
	// ErrTooLarge rejects a message of more than max_message bytes.
	ErrTooLarge = errors.New("the message is larger than max_message")
)

func (c *Config) contains(p []byte, delim []byte) bool {
	return c.Frame == Lines && bytes.Contains(p, delim)
}
