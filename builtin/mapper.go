package builtin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// MapSettings are the settings of a map.
type MapSettings struct {
	Set     map[string]string `yaml:"set" jsonschema_description:"Fields of the payload and the expressions that they get their values from, as in user.name: msg.first + \" \" + msg.last. All see the message as it came."`
	Remove  []string          `yaml:"remove" jsonschema_description:"Fields that are taken away, such as user.password."`
	Value   string            `yaml:"value" jsonschema:"example={\"id\": msg.id}" jsonschema_description:"Expression for the whole payload, instead of set and remove. Its value is written as JSON."`
	Key     string            `yaml:"key" jsonschema:"example=msg.user.id" jsonschema_description:"Expression for the key of the result; default the message's own key."`
	OnError string            `yaml:"on_error" jsonschema:"enum=reject,enum=drop,enum=pass" jsonschema_description:"What becomes of a message for which an expression has no value: reject sends it to the dead letters with the reason, drop counts it and is done with it, pass forwards it unchanged."`
}

// Map is the kind of plugin that changes messages.
func Map() kind.Kind {
	return kind.Plugin(kind.About{
		Name: "map", Summary: "Changes fields of JSON messages, or makes other messages of them.",
		Doc: "What is not named stays as it stands: the order of the fields, and numbers to the last digit.",
		Example: "map:\n  set: { late: msg.delay >= 60, route: 'msg.origin + \"-\" + msg.dest' }\n" +
			"  remove: [crew.phone]\nfrom: flights\nemits: marked\n",
	}, MapSettings{OnError: reject}, newMapper)
}

// Check implements kind.Checked.
func (s MapSettings) Check() []kind.Problem {
	_, p := s.compile()
	return p
}

func (s MapSettings) compile() (mapper, problems) {
	var p problems
	m := mapper{onError: s.OnError}
	p.choice("on_error", s.OnError, reject, drop, pass)
	if s.Key != "" {
		m.newKey = p.value("key", field(s.Key))
	}
	switch {
	case s.Value != "" && len(s.Set)+len(s.Remove) > 0:
		p.add("value", "value gives the whole payload, so set and remove have nothing to do: write either")
	case s.Value != "":
		m.whole = p.value("value", field(s.Value))
	case len(s.Set)+len(s.Remove) == 0 && s.Key == "":
		p.add("", "a map needs something to do: write set, remove, value or key")
	}
	if len(s.Set)+len(s.Remove) == 0 {
		return m, p
	}
	m.change = new(expr.Rewrite)
	for _, name := range slices.Sorted(maps.Keys(s.Set)) {
		if program := p.value("set."+name, field(s.Set[name])); program != nil {
			if err := m.change.Set(path(name), program); err != nil {
				p.add("set."+name, "%v", err)
			}
		}
	}
	for i, name := range s.Remove {
		if err := m.change.Remove(path(name)); err != nil {
			p.add(fmt.Sprintf("remove[%d]", i), "%v", err)
		}
	}
	return m, p
}

// path is a field as settings write it: a.b or $.a.b.
func path(name string) []string { return strings.Split(strings.TrimPrefix(name, "$."), ".") }

func newMapper(s MapSettings, env kind.Env) (func() (plugin.Handler, error), error) {
	stream, err := onlyStream("map", env)
	if err != nil {
		return nil, err
	}
	compiled, p := s.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	compiled.stream = stream
	return func() (plugin.Handler, error) {
		return &mapping{tally: tally{kind: "map"}, mapper: compiled}, nil
	}, nil
}

// mapper is what a map does. It is not changed once it is made.
type mapper struct {
	change  *expr.Rewrite // nil: the payload stays, unless there is a whole
	whole   *expr.Program
	newKey  *expr.Program // nil: the key stays
	stream  string
	onError string
}

type mapping struct {
	tally
	inputs
	mapper
}

var _ plugin.Handler = (*mapping)(nil)

// Handle implements plugin.Handler.
func (p *mapping) Handle(_ context.Context, m *plugin.Message) error {
	in := p.get(m)
	defer p.put(in)
	payload, key := m.Payload(), m.Key()
	var err error
	switch {
	case p.change != nil:
		in.out, err = p.change.Append(in.out[:0], &in.Input)
		payload = in.out
	case p.whole != nil:
		in.out, err = p.whole.AppendJSON(in.out[:0], &in.Input)
		payload = in.out
	}
	if err != nil {
		return p.fails(m, p.onError, p.stream, p.what(), err)
	}
	if p.newKey != nil {
		if in.key, err = p.newKey.AppendText(in.key[:0], &in.Input); err != nil {
			return p.fails(m, p.onError, p.stream, "key", err)
		}
		key = in.key
	}
	err = m.ForwardAs(p.stream, key, payload)
	if errors.Is(err, plugin.ErrEmitTooLarge) { // another attempt would make it no smaller
		return plugin.Reject(err)
	}
	return err
}

func (p *mapping) what() string {
	if p.whole != nil {
		return "value"
	}
	return "set"
}
