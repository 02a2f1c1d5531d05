package config_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// quay is settings with a field of every type that there is.
type quay struct {
	Path     string                 `yaml:"path" jsonschema:"required,example=./in.ndjson" jsonschema_description:"File to read."`
	Follow   bool                   `yaml:"follow" jsonschema_description:"Wait for more at the end."`
	Count    int                    `yaml:"count" jsonschema:"minimum=1,maximum=100" jsonschema_description:"How many."`
	Port     uint16                 `yaml:"port" jsonschema_description:"A port."`
	Ratio    float64                `yaml:"ratio" jsonschema:"minimum=0,maximum=1" jsonschema_description:"A part."`
	Poll     time.Duration          `yaml:"poll" jsonschema:"minimum=1ms,example=1s" jsonschema_description:"How often."`
	Buffer   kind.Size              `yaml:"buffer" jsonschema:"example=64KiB" jsonschema_description:"Bytes."`
	Rate     kind.Rate              `yaml:"rate" jsonschema:"example=100/s" jsonschema_description:"How fast."`
	Token    kind.Secret            `yaml:"token" jsonschema:"minLength=4" jsonschema_description:"Shared | secret."`
	Mode     string                 `yaml:"mode" jsonschema:"enum=append,enum=truncate" jsonschema_description:"What to do."`
	TLS      *kind.ServerTLS        `yaml:"tls" jsonschema_description:"Encryption."`
	Tags     []string               `yaml:"tags" jsonschema_description:"Words."`
	Levels   []int                  `yaml:"levels" jsonschema_description:"Numbers."`
	Headers  map[string]kind.Secret `yaml:"headers" jsonschema_description:"Headers."`
	Routes   []route                `yaml:"routes" jsonschema_description:"Where to."`
	Backoff  backoff                `yaml:"backoff" jsonschema_description:"How to wait."`
	Anything any                    `yaml:"anything" jsonschema_description:"Whatever is written."`
}

type route struct {
	To   string `yaml:"to" jsonschema:"required" jsonschema_description:"A stream."`
	When string `yaml:"when" jsonschema_description:"An expression."`
}

type backoff struct {
	First time.Duration `yaml:"first" jsonschema_description:"The first wait."`
	Max   time.Duration `yaml:"max" jsonschema_description:"The longest wait."`
}

// Check has a rule for a field of a map in the settings.
func (q quay) Check() (out []kind.Problem) {
	if q.Backoff.Max < q.Backoff.First {
		out = append(out, kind.Problem{Field: "backoff.max", Message: "shorter than backoff.first"})
	}
	for i, r := range q.Routes {
		if r.To == "nowhere" {
			out = append(out, kind.Problem{Field: fmt.Sprintf("routes[%d].to", i), Message: "there is no such place"})
		}
	}
	return out
}

// Claims is the port, if there is one.
func (q *quay) Claims() []string {
	if q.Port == 0 {
		return nil
	}
	return []string{fmt.Sprintf("tcp 127.0.0.1:%d", q.Port)}
}

type shelf struct {
	Path string `yaml:"path" jsonschema:"required,example=out.ndjson" jsonschema_description:"File to write."`
	Mode string `yaml:"mode" jsonschema:"enum=append,enum=truncate" jsonschema_description:"What becomes of what is there."`
}

func (s shelf) Claims() []string { return []string{"file /" + s.Path} }

type sieve struct {
	Where string `yaml:"where" jsonschema:"required,example=msg.a in [1\\, 2]" jsonschema_description:"An expression of CEL."`
}

type threshold struct {
	Minutes int `yaml:"minutes" jsonschema:"required,minimum=0" jsonschema_description:"Least delay."`
}

var errBuild = errors.New("the expression makes no sense")

type nowhere struct{}

func (nowhere) Run(context.Context, source.Intake) error      { return nil }
func (nowhere) Settle(source.Settlement)                      {}
func (nowhere) Open(context.Context, source.Env) error        { return nil }
func (nowhere) Write(_ context.Context, _ *sink.Batch) error  { return nil }
func (nowhere) Flush(context.Context) error                   { return nil }
func (nowhere) Close(context.Context) error                   { return nil }
func (nowhere) Handle(context.Context, *plugin.Message) error { return nil }

// registry has some kinds of each role.
func registry() *kind.Registry {
	handler := func() (plugin.Handler, error) { return nowhere{}, nil }
	return kind.NewRegistry(
		kind.Source(kind.About{Name: "quay", Summary: "Has everything.", Doc: "It has *all* types.", Example: "quay: {path: in.ndjson}"},
			quay{
				Poll: 250 * time.Millisecond, Buffer: 64 << 10, Mode: "append", Tags: []string{"a", "b"},
				Backoff: backoff{First: time.Second, Max: time.Minute},
			},
			func(quay, kind.Env) (source.Source, error) { return nowhere{}, nil }),
		kind.Source(kind.About{Name: "stdin", Summary: "Reads standard input.", Example: "stdin:"}, struct{}{},
			func(struct{}, kind.Env) (source.Source, error) { return nowhere{}, nil }),
		kind.Plugin(kind.About{
			Name: "filter", Summary: "Lets some through.",
			Example: "  filter: { where: 'msg.a > 1' }\n  from: in\n  emits: out\n",
		}, sieve{},
			func(s sieve, _ kind.Env) (func() (plugin.Handler, error), error) {
				if s.Where == "nonsense" {
					return nil, errBuild
				}
				return handler, nil
			}),
		kind.Native("delays", handler),
		kind.Native("airports", handler),
		kind.NativeWith(kind.About{Name: "late", Summary: "Finds what is late."}, threshold{},
			func(threshold) (plugin.Handler, error) { return nowhere{}, nil }),
		kind.Sink(kind.About{Name: "shelf", Summary: "Writes a file.", Example: "shelf: {path: out.ndjson}"}, shelf{Mode: "append"},
			func(shelf, kind.Env) (sink.Sink, error) { return nowhere{}, nil }),
		kind.Sink(kind.About{Name: "stdout", Summary: "Writes standard output."}, struct{}{},
			func(struct{}, kind.Env) (sink.Sink, error) { return nowhere{}, nil }),
	)
}

// options have some variables of their own.
func options() config.Options {
	env := map[string]string{
		"PORT": "9000", "TOKEN": "s3cr3t: {x}", "DIR": "/var/in", "EMPTY": "", "WORD": "hello", "DIGITS": "12345", "LIST": "[a, b]", "YES": "true",
	}
	return config.Options{Registry: registry(), Getenv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("penstock.yaml", []byte(text), options())
	if err != nil {
		t.Fatalf("the file is good, but: %v", err)
	}
	return c
}

// around is a good file with a source of some settings.
func around(settings string) string {
	return "sources:\n  in:\n    quay: " + settings + "\nsinks:\n  out: { from: in, stdout: }\n"
}

// problems is what is wrong with a file.
func problems(t *testing.T, text string) []config.Problem {
	t.Helper()
	_, err := config.Parse("penstock.yaml", []byte(text), options())
	var bad *config.Error
	if err == nil {
		return nil
	}
	if !errors.As(err, &bad) || len(bad.Problems) == 0 {
		t.Fatalf("error without problems: %v", err)
	}
	if strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("a secret is shown: %v", err)
	}
	return bad.Problems
}

// registerEnv adds a source and a sink called env; the source's environment goes to got.
func registerEnv(reg *kind.Registry, got *kind.Env) {
	reg.Add(kind.Source(kind.About{Name: "env"}, struct{}{}, func(_ struct{}, env kind.Env) (source.Source, error) {
		*got = env
		return nowhere{}, nil
	}))
	reg.Add(kind.Sink(kind.About{Name: "env"}, struct{}{}, func(struct{}, kind.Env) (sink.Sink, error) { return nowhere{}, nil }))
}
