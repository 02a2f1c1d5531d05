package builtin

import (
	"context"

	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// FilterSettings are the settings of a filter.
type FilterSettings struct {
	Where   string `yaml:"where" jsonschema:"required,example=msg.delay >= 60" jsonschema_description:"Condition: messages for which it is true are forwarded, the others are done with."`
	OnError string `yaml:"on_error" jsonschema:"enum=reject,enum=drop,enum=pass" jsonschema_description:"What becomes of a message for which the condition has no value, for example because it lacks the field: reject sends it to the dead letters with the reason, drop counts it and is done with it, pass forwards it."`
}

// Filter is the kind of plugin that forwards the messages for which a condition is true.
func Filter() kind.Kind {
	return kind.Plugin(kind.About{
		Name: "filter", Summary: "Forwards the messages for which a condition is true.",
		Doc:     "The condition is an expression; one that only compares fields with literals is evaluated without decoding the payload.",
		Example: "filter: { where: 'msg.delay >= 60 && msg.origin == \"SEA\"' }\nfrom: flights\nemits: late\n",
	}, FilterSettings{OnError: reject}, newFilter)
}

// Check implements kind.Checked.
func (s FilterSettings) Check() []kind.Problem {
	_, p := s.compile()
	return p
}

func (s FilterSettings) compile() (*expr.Program, problems) {
	var p problems
	where := p.condition("where", s.Where)
	p.choice("on_error", s.OnError, reject, drop, pass)
	return where, p
}

func newFilter(s FilterSettings, env kind.Env) (func() (plugin.Handler, error), error) {
	stream, err := onlyStream("filter", env)
	if err != nil {
		return nil, err
	}
	where, p := s.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	return func() (plugin.Handler, error) {
		return &filter{tally: tally{kind: "filter"}, where: where, stream: stream, onError: s.OnError}, nil
	}, nil
}

type filter struct {
	tally
	inputs
	where   *expr.Program
	stream  string
	onError string
}

var _ plugin.Handler = (*filter)(nil)

// Handle implements plugin.Handler.
func (f *filter) Handle(_ context.Context, m *plugin.Message) error {
	in := f.get(m)
	yes, err := f.where.Bool(&in.Input)
	f.put(in)
	switch {
	case err != nil:
		return f.fails(m, f.onError, f.stream, "where", err)
	case yes:
		return m.Forward(f.stream)
	}
	return nil
}
