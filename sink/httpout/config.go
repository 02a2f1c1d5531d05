package httpout

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
)

// Format is how messages stand in a request.
type Format string

// The formats.
const (
	NDJSON    Format = "ndjson"     // each followed by a newline
	JSONArray Format = "json_array" // as the elements of an array
	Single    Format = "single"     // one message, as it is
)

// Compression is how a request's body is packed.
type Compression string

// The compressions.
const (
	None Compression = "none"
	Gzip Compression = "gzip"
)

// Config is the settings of an http sink, in Go and in a pipeline's file. [Defaults] has what is not said.
type Config struct {
	URL            string                 `yaml:"url" jsonschema:"required,example=https://ingest.example.com/events" jsonschema_description:"Where requests go. Logs and errors show its host only."`
	Method         string                 `yaml:"method" jsonschema:"enum=POST,enum=PUT,enum=PATCH" jsonschema_description:"Method of the requests."`
	Headers        map[string]kind.Secret `yaml:"headers" jsonschema_description:"Headers of each request; their values are never shown."`
	Token          kind.Secret            `yaml:"token" jsonschema:"example=${TOKEN}" jsonschema_description:"Sent as Authorization: Bearer."`
	TLS            *kind.ClientTLS        `yaml:"tls" jsonschema_description:"Certificates, for an https URL."`
	Batch          Batch                  `yaml:"batch" jsonschema_description:"How much goes into one request. No request waits to be filled: see flush."`
	Format         Format                 `yaml:"format" jsonschema:"enum=ndjson,enum=json_array,enum=single" jsonschema_description:"A message a line, a JSON array, or one message per request."`
	Compression    Compression            `yaml:"compression" jsonschema:"enum=none,enum=gzip" jsonschema_description:"How bodies are packed."`
	Timeout        time.Duration          `yaml:"timeout" jsonschema_description:"Longest that one request may take, its answer included."`
	Concurrency    int                    `yaml:"concurrency" jsonschema:"minimum=1" jsonschema_description:"Requests under way at once; 1 keeps the order of messages, but for those that are tried again."`
	Breaker        Breaker                `yaml:"breaker" jsonschema_description:"When to leave the endpoint alone for a while."`
	IdempotencyKey bool                   `yaml:"idempotency_key" jsonschema_description:"Send the header Idempotency-Key, a hash of the request's messages. Messages that are equal on purpose then look like repeats."`
}

// Batch bounds one request. A message that is larger than Bytes goes alone.
type Batch struct {
	Messages int       `yaml:"messages" jsonschema:"minimum=1" jsonschema_description:"Most messages of one request."`
	Bytes    kind.Size `yaml:"bytes" jsonschema_description:"Most bytes of payload of one request; a larger message goes alone."`
}

// Breaker is when the sink stops sending for a while.
type Breaker struct {
	Failures int           `yaml:"failures" jsonschema:"minimum=0" jsonschema_description:"So many failed requests in a row open the breaker; 0 for none."`
	OpenFor  time.Duration `yaml:"open_for" jsonschema_description:"How long nothing is sent, before one request tries again."`
}

const (
	maxMessages    = 100_000
	maxConcurrency = 1024
)

// Defaults is the settings of a sink that nobody has said anything about but the URL.
func Defaults() Config {
	return Config{
		Method: http.MethodPost, Batch: Batch{Messages: 500, Bytes: 1 << 20}, Format: NDJSON, Compression: None, Timeout: 30 * time.Second,
		Concurrency: 4, Breaker: Breaker{Failures: 5, OpenFor: 30 * time.Second},
	}
}

// Check says what is wrong with the settings.
func (c Config) Check() (out []kind.Problem) {
	refuse := func(bad bool, field, format string, args ...any) {
		if bad {
			out = append(out, kind.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
		}
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		refuse(true, "url", "url is no web address: write it as in https://ingest.example.com/events") // it may hold a password: not shown
	} else {
		refuse(c.TLS != nil && u.Scheme != "https", "tls", "tls is set, but the url begins with http: write https")
	}
	refuse(c.Method != http.MethodPost && c.Method != http.MethodPut && c.Method != http.MethodPatch,
		"method", "method %q: want POST, PUT or PATCH", c.Method)
	refuse(c.Format != NDJSON && c.Format != JSONArray && c.Format != Single,
		"format", "format %q: want %s, %s or %s", c.Format, NDJSON, JSONArray, Single)
	refuse(c.Compression != None && c.Compression != Gzip, "compression", "compression %q: want %s or %s", c.Compression, None, Gzip)
	refuse(c.Batch.Messages < 1 || c.Batch.Messages > maxMessages, "batch.messages", "messages is %d: from 1 to %d", c.Batch.Messages, maxMessages)
	refuse(c.Batch.Bytes < 1, "batch.bytes", "bytes is %d: at least 1", c.Batch.Bytes)
	refuse(c.Timeout <= 0, "timeout", "timeout is %v: give some time, such as 30s", c.Timeout)
	refuse(c.Concurrency < 1 || c.Concurrency > maxConcurrency, "concurrency", "concurrency is %d: from 1 to %d", c.Concurrency, maxConcurrency)
	refuse(c.Breaker.Failures < 0, "breaker.failures", "failures is %d: 0 for no breaker, or how many in a row open it", c.Breaker.Failures)
	refuse(c.Breaker.Failures > 0 && c.Breaker.OpenFor <= 0, "breaker.open_for", "open_for is %v: give some time, such as 30s", c.Breaker.OpenFor)
	refuse(!validValue(c.Token.Reveal()), "token", "token has characters that a header cannot have")
	return append(out, c.checkHeaders()...)
}

func (c Config) checkHeaders() (out []kind.Problem) {
	for name, value := range c.Headers {
		var why string
		switch {
		case !validName(name):
			why = "is no name of a header"
		case !validValue(value.Reveal()):
			why = "has a value with characters that a header cannot have"
		case strings.EqualFold(name, "Content-Length"), strings.EqualFold(name, "Transfer-Encoding"), strings.EqualFold(name, "Content-Encoding"):
			why = "is set by the sink: leave it out"
		case strings.EqualFold(name, "Authorization") && c.Token != "":
			why = "is set by token: leave one of them out"
		default:
			continue
		}
		out = append(out, kind.Problem{Field: "headers." + name, Message: fmt.Sprintf("header %q %s", name, why)})
	}
	return out
}

// validName says whether s is a token as RFC 9110 has it.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func validValue[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

var _ kind.Checked = Config{}

// Kind describes the http sink to pipelines that are written in YAML.
func Kind() kind.Kind {
	return kind.Sink(kind.About{
		Name:    "http",
		Summary: "Sends messages to a web address, in batches.",
		Doc: "A message is settled when the endpoint has answered its request with 2xx. Requests that fail for a while are tried again, " +
			"`Retry-After` is honoured, and a breaker leaves an endpoint alone that keeps failing. What the endpoint will not have goes to the " +
			"dead letters.",
		Example: "from: late\nhttp:\n  url: https://ingest.example.com/events\n  token: ${TOKEN}\n",
	}, Defaults(), func(c Config, _ kind.Env) (sink.Sink, error) { return New(c) })
}

// Error is a request that failed, or a message that is not sent. It has nothing of what is secret: of the URL, no more than the host.
type Error struct {
	URL    string // method, scheme and host
	Status int    // of the answer; 0: there was none
	Body   string // the beginning of the answer
	Hint   string // what to do about it; may be empty
	Err    error  // the cause, where there was no answer
}

// Error names the address, what came of it, and what to do.
func (e *Error) Error() string { return "http sink: " + e.text() }

// text is for where it is plain who says it.
func (e *Error) text() string {
	var b strings.Builder
	b.WriteString(e.URL + ": ")
	if e.Status > 0 {
		fmt.Fprintf(&b, "%d %s", e.Status, http.StatusText(e.Status))
		if e.Body != "" {
			fmt.Fprintf(&b, ": %q", e.Body)
		}
	} else {
		fmt.Fprintf(&b, "%v", e.Err)
	}
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Reasons for which messages fail. They are wrapped in an [Error].
var (
	// ErrOpen says that the sink was closed while the breaker was open: nothing was sent.
	ErrOpen = errors.New("the breaker is open, after failed requests in a row: nothing was sent")
	// ErrTimeout says that a request took longer than timeout.
	ErrTimeout = errors.New("no answer within the timeout")
	// ErrNotJSON rejects a message that cannot stand in the format: in an array it would spoil the others, and with line ends of its own
	// it would be read as several.
	ErrNotJSON = errors.New("the message is no JSON: send it with format single")
	// ErrRedirect says that the endpoint wants the request to go elsewhere.
	ErrRedirect = errors.New("the endpoint redirects")
	// ErrClosed says that the sink was closed before the endpoint had answered.
	ErrClosed = errors.New("closed before the endpoint answered")
)
