package socket

import (
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// TCPSettings is what the file of a pipeline says of a source of kind tcp.
type TCPSettings struct {
	Address        string          `yaml:"address" jsonschema:"required,example=127.0.0.1:9000" jsonschema_description:"Host and port to listen at. A host that is not loopback needs tls, and token or tls.client_ca."`
	TLS            *kind.ServerTLS `yaml:"tls" jsonschema_description:"Certificate to serve TLS with; without it connections are in the clear."`
	Token          kind.Secret     `yaml:"token" jsonschema:"example=${TOKEN}" jsonschema_description:"What the first message of each connection must be. It is no message of the stream."`
	Insecure       bool            `yaml:"insecure" jsonschema_description:"Listen at an address that is not loopback without TLS or without asking who connects. Unsafe."`
	Acks           bool            `yaml:"acks" jsonschema_description:"Answer each connection with the number of its messages that are settled, so that a producer knows what to send again."`
	IdleTimeout    time.Duration   `yaml:"idle_timeout" jsonschema:"example=10m" jsonschema_description:"Close a connection that has sent nothing for so long; 0 for never."`
	MaxConnections int             `yaml:"max_connections" jsonschema:"minimum=1" jsonschema_description:"The most connections at one time; those beyond are refused."`
}

// UnixSettings is what the file of a pipeline says of a source of kind unix.
type UnixSettings struct {
	Path           string        `yaml:"path" jsonschema:"required,example=/run/penstock/in.sock" jsonschema_description:"Socket file to make. One that nobody listens at is replaced."`
	Mode           Permission    `yaml:"mode" jsonschema:"example=0660" jsonschema_description:"Permissions of the socket file, in octal: who may write to it may connect."`
	Token          kind.Secret   `yaml:"token" jsonschema:"example=${TOKEN}" jsonschema_description:"What the first message of each connection must be. It is no message of the stream."`
	Acks           bool          `yaml:"acks" jsonschema_description:"Answer each connection with the number of its messages that are settled, so that a producer knows what to send again."`
	IdleTimeout    time.Duration `yaml:"idle_timeout" jsonschema:"example=10m" jsonschema_description:"Close a connection that has sent nothing for so long; 0 for never."`
	MaxConnections int           `yaml:"max_connections" jsonschema:"minimum=1" jsonschema_description:"The most connections at one time; those beyond are refused."`
}

// Permission is the permission bits of a file, written in octal as 0600.
type Permission fs.FileMode

// UnmarshalText reads permissions.
func (p *Permission) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is no permission: write it in octal, from 0000 to 0777, as in 0600", text)
	}
	*p = Permission(n)
	return nil
}

// String is the permissions in octal.
func (p Permission) String() string { return fmt.Sprintf("%04o", uint32(p)) }

// MarshalText writes the permissions as String does.
func (p Permission) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

var (
	_ kind.Checked = TCPSettings{}
	_ kind.Checked = UnixSettings{}
	_ kind.Claimer = TCPSettings{}
	_ kind.Claimer = UnixSettings{}
)

// TCP is the kind of source that listens at a TCP address.
func TCP() kind.Kind {
	about := kind.About{
		Name:    "tcp",
		Summary: "Messages that producers send over TCP connections, with TLS, a shared token and acknowledgements on request.",
		Doc: "Each connection is a stream of frames. Without `acks` delivery is at most once over a crash: a producer cannot know what " +
			"has been settled. An idle connection holds no memory of the budget.",
		Example: "tcp: { address: 127.0.0.1:9000 }\nframe: lines\n",
	}
	return kind.Source(about, TCPSettings{MaxConnections: DefaultMaxConnections},
		func(t TCPSettings, env kind.Env) (source.Source, error) {
			return New(Config{
				Network: "tcp", Address: t.Address, Framing: env.Frame, Delimiter: env.Delimiter, TLS: t.TLS, Token: t.Token, Acks: t.Acks,
				IdleTimeout: t.IdleTimeout, MaxConnections: t.MaxConnections, Listen: env.Listen,
			})
		})
}

// Unix is the kind of source that listens at a socket file.
func Unix() kind.Kind {
	about := kind.About{
		Name:    "unix",
		Summary: "Messages that producers on this machine send over a socket file, with a shared token and acknowledgements on request.",
		Doc: "Each connection is a stream of frames. Without `acks` delivery is at most once over a crash: a producer cannot know what " +
			"has been settled. The permissions of the file say who may connect.",
		Example: "unix: { path: /run/penstock/in.sock }\nframe: lines\n",
	}
	return kind.Source(about, UnixSettings{Mode: DefaultMode, MaxConnections: DefaultMaxConnections},
		func(u UnixSettings, env kind.Env) (source.Source, error) {
			return New(Config{
				Network: "unix", Address: u.Path, Mode: fs.FileMode(u.Mode), Framing: env.Frame, Delimiter: env.Delimiter, Token: u.Token,
				Acks: u.Acks, IdleTimeout: u.IdleTimeout, MaxConnections: u.MaxConnections, Listen: env.Listen,
			})
		})
}

// Check says what is wrong with the settings.
func (t TCPSettings) Check() []kind.Problem {
	out := checkLimits(t.IdleTimeout, t.MaxConnections, t.Token)
	_, port, err := net.SplitHostPort(t.Address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return append(out, kind.Problem{Field: "address", Message: fmt.Sprintf(
			"%q is no address to listen at (%v): write host:port, as in 127.0.0.1:9000", t.Address, err)})
	}
	if t.TLS != nil && (t.TLS.Cert == "" || t.TLS.Key == "") {
		out = append(out, kind.Problem{Field: "tls", Message: "TLS needs a certificate and its key: set cert and key"})
	}
	if missing := kind.Exposed(t.Address, t.TLS, t.Token != ""); missing != "" && !t.Insecure {
		out = append(out, kind.Problem{Field: "address", Message: fmt.Sprintf(
			"others can reach this address: add %s, listen on 127.0.0.1, or say insecure: true", missing)})
	}
	return out
}

// Claims names the address.
func (t TCPSettings) Claims() []string { return []string{"tcp " + t.Address} }

// Check says what is wrong with the settings.
func (u UnixSettings) Check() []kind.Problem {
	out := checkLimits(u.IdleTimeout, u.MaxConnections, u.Token)
	if u.Path == "" {
		out = append(out, kind.Problem{Field: "path", Message: "empty: say which socket file to make"})
	}
	return out
}

// Claims names the file.
func (u UnixSettings) Claims() []string {
	path, err := filepath.Abs(u.Path)
	if err != nil {
		path = u.Path
	}
	return []string{"file " + path}
}

func checkLimits(idle time.Duration, connections int, token kind.Secret) (out []kind.Problem) {
	if idle < 0 {
		out = append(out, kind.Problem{Field: "idle_timeout", Message: fmt.Sprintf("%v is negative: give a time, or 0 for never", idle)})
	}
	if connections < 1 || connections > mostConnections {
		out = append(out, kind.Problem{Field: "max_connections", Message: fmt.Sprintf("%d: give 1 to %d", connections, mostConnections)})
	}
	if len(token) > maxToken {
		out = append(out, kind.Problem{Field: "token", Message: fmt.Sprintf("longer than %d bytes", maxToken)})
	}
	return out
}
