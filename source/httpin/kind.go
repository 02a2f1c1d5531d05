// Package httpin is the source that takes messages by HTTP: a request brings one message or a batch of them, and is answered when the
// pipeline is done with all of them.
//
//	client ── POST ──> door: token, path, method, size, room ──> body ──> slab ──> Accept ──> ...
//	   ^                                                                                       │
//	   └── 200 {"accepted":n} ── request finds that all its messages are settled <── Settle ──┘
//
// A request is known by its receipts: the upper 40 bits of a receipt are the request's, the lower 24 count its messages. Settle finds
// the request once for each run of receipts, never once for each message.
//
// A batch lies in the slab that it was read into, with the request's kept headers written once behind it; small bodies are copied to
// memory made for their size, so that they do not pin a slab while they wait. A connection without a request holds no slab.
//
//	slab   [ m0 | m1 | m2 | ...  unread ... | room ... | header block ]
//	          all frames point to the one block ───────────^
package httpin

import (
	"context"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// maxToken is the longest token in bytes, so that a long one costs nothing.
const maxToken = 1024

// maxHeaders is how many request headers may be kept.
const maxHeaders = 64

// Settings of the source.
type Settings struct {
	Address       string          `yaml:"address" jsonschema:"required,example=127.0.0.1:8080" jsonschema_description:"Host and port to listen on."`
	Path          string          `yaml:"path" jsonschema:"example=/ingest" jsonschema_description:"Where messages are sent to. Others answer 404."`
	TLS           *kind.ServerTLS `yaml:"tls" jsonschema_description:"Serve HTTPS. Needed where other machines can reach the address."`
	Tokens        []kind.Secret   `yaml:"tokens" jsonschema_description:"A request must show one of these as Authorization: Bearer TOKEN."`
	Insecure      bool            `yaml:"insecure" jsonschema_description:"Let other machines in without tls or tokens. Unsafe: anybody can send."`
	Headers       []string        `yaml:"headers" jsonschema:"example=content-type" jsonschema_description:"Request headers that messages keep."`
	SettleTimeout time.Duration   `yaml:"settle_timeout" jsonschema_description:"How long a request waits to be settled; then it is answered 504."`
	BodyTimeout   time.Duration   `yaml:"body_timeout" jsonschema_description:"How long a body may bring no byte before it is answered 408."`
	MaxBody       kind.Size       `yaml:"max_body" jsonschema_description:"Largest body, also when decompressed. A larger one is answered 413."`
	MaxRequests   int             `yaml:"max_requests" jsonschema:"minimum=1" jsonschema_description:"Requests at once; more are answered 503."`
}

// Defaults are the settings of a source that says only its address.
func Defaults() Settings {
	return Settings{
		Path: "/", Headers: []string{"content-type", "traceparent", "tracestate", "idempotency-key"},
		SettleTimeout: 30 * time.Second, BodyTimeout: 10 * time.Second, MaxBody: 16 << 20, MaxRequests: 1024,
	}
}

var (
	_ kind.Checked = Settings{}
	_ kind.Claimer = Settings{}
)

// Check says what is wrong with the settings. It opens nothing.
func (s Settings) Check() []kind.Problem {
	var out []kind.Problem
	wrong := func(field, format string, args ...any) {
		out = append(out, kind.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if err := checkAddress(s.Address); err != nil {
		wrong("address", "%v: give host and port, as in 127.0.0.1:8080", err)
	} else if missing := kind.Exposed(s.Address, s.TLS, len(s.Tokens) > 0); missing != "" && !s.Insecure {
		wrong("address", "others can reach this address: add %s, listen on 127.0.0.1, or say insecure: true", missing)
	}
	if !strings.HasPrefix(s.Path, "/") || strings.ContainsAny(s.Path, "?# \r\n") {
		wrong("path", "%q is no path: begin with /, without ? and #", s.Path)
	}
	for i, t := range s.Tokens {
		if n := len(t); n == 0 || n > maxToken || strings.ContainsAny(t.Reveal(), " \t\r\n") {
			wrong(fmt.Sprintf("tokens[%d]", i), "the token has %d bytes, or has white space: give 1 to %d bytes without it", n, maxToken)
		}
	}
	if len(s.Headers) > maxHeaders {
		wrong("headers", "%d names: keep at most %d", len(s.Headers), maxHeaders)
	}
	for i, name := range s.Headers {
		if !headerName(name) {
			wrong(fmt.Sprintf("headers[%d]", i), "%q is no name of a header", name)
		} else if strings.EqualFold(name, "authorization") {
			wrong(fmt.Sprintf("headers[%d]", i), "authorization holds a secret, which must not go along with messages: leave it out")
		}
	}
	for _, d := range []struct {
		field string
		value int64
	}{
		{"settle_timeout", int64(s.SettleTimeout)},
		{"body_timeout", int64(s.BodyTimeout)},
		{"max_body", int64(s.MaxBody)},
		{"max_requests", int64(s.MaxRequests)},
	} {
		if d.value <= 0 {
			wrong(d.field, "must be more than 0")
		}
	}
	return out
}

// Claims is the address, if its port is given.
func (s Settings) Claims() []string {
	if _, port, err := net.SplitHostPort(s.Address); err != nil || port == "0" {
		return nil
	}
	return []string{"tcp " + s.Address}
}

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is no port", port)
	}
	return nil
}

// headerName reports whether name is a token of RFC 9110.
func headerName(name string) bool {
	if name == "" || len(name) > 256 {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// header is one that is kept: its name in the request, and with the message.
type header struct{ canonical, name string }

func keptHeaders(names []string) []header {
	out := make([]header, 0, len(names))
	for _, n := range names {
		out = append(out, header{textproto.CanonicalMIMEHeaderKey(n), strings.ToLower(n)})
	}
	return out
}

// Kind describes the source to a registry.
func Kind() kind.Kind {
	return kind.Source(kind.About{
		Name:    "http",
		Summary: "Takes messages by HTTP POST, one or an ndjson batch a request, and answers when they are settled.",
		Doc: "Frame `whole` (the default) makes a body one message, `lines`, `u32` and `varint` a batch. " +
			"A body of type `application/x-ndjson` is always a batch of lines.",
		Example: "http: { address: 127.0.0.1:8080, path: /ingest }",
	}, Defaults(), func(s Settings, env kind.Env) (source.Source, error) {
		src, err := New(s, env)
		if err != nil {
			return nil, err
		}
		return src, nil
	})
}

// listener is how a listener is opened.
type listener func(ctx context.Context, network, address string) (net.Listener, error)
