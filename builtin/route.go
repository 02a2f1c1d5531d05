package builtin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// RouteTo is one way out of a route.
type RouteTo struct {
	Where string `yaml:"where" jsonschema:"required,example=msg.delay >= 60" jsonschema_description:"Condition of this way."`
	To    string `yaml:"to" jsonschema:"required,example=late" jsonschema_description:"Stream that messages for which the condition is true go to. It must be in the plugin's emits."`
}

// RouteSettings are the settings of a route.
type RouteSettings struct {
	Routes  []RouteTo `yaml:"routes" jsonschema:"required" jsonschema_description:"The ways, looked at in this order."`
	Default string    `yaml:"default" jsonschema:"example=rest" jsonschema_description:"Stream of messages that no way takes; empty: they are counted and done with."`
	All     bool      `yaml:"all" jsonschema_description:"Send a message to every way whose condition is true, not only to the first. A stream gets it once."`
	OnError string    `yaml:"on_error" jsonschema:"enum=reject,enum=drop,enum=skip" jsonschema_description:"What becomes of a message for which a condition has no value: reject sends it to the dead letters with the reason, drop counts it and is done with it, skip goes on as if the condition were false."`
}

// Route is the kind of plugin that sends messages to one of several streams.
func Route() kind.Kind {
	return kind.Plugin(kind.About{
		Name: "route", Summary: "Sends messages to one of several streams, by conditions.",
		Doc: "A message goes to the first stream whose condition is true, or with all: true to each of them.",
		Example: "route:\n  routes:\n    - { where: msg.delay >= 60, to: late }\n    - { where: msg.delay >= 0, to: punctual }\n  default: early\n" +
			"from: flights\nemits: [late, punctual, early]\n",
	}, RouteSettings{OnError: reject}, newRouter)
}

// Check implements kind.Checked.
func (s RouteSettings) Check() []kind.Problem {
	_, p := s.compile()
	return p
}

func (s RouteSettings) compile() ([]way, problems) {
	var p problems
	p.choice("on_error", s.OnError, reject, drop, skip)
	if len(s.Routes) == 0 {
		p.add("routes", "a route needs at least one way: write - { where: ..., to: ... }")
	}
	var ways []way
	for i, r := range s.Routes {
		at := fmt.Sprintf("routes[%d].", i)
		if r.To == "" {
			p.add(at+"to", "the stream is missing: name one of the plugin's emits")
		}
		if where := p.condition(at+"where", r.Where); where != nil {
			ways = append(ways, way{where: where, to: r.To, name: at + "where"})
		}
	}
	return ways, p
}

func newRouter(s RouteSettings, env kind.Env) (func() (plugin.Handler, error), error) {
	ways, p := s.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	var missing []string
	for _, to := range append(targets(ways), s.Default) {
		if to != "" && !slices.Contains(env.Emits, to) && !slices.Contains(missing, to) {
			missing = append(missing, to)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("plugin %q: it routes to %s, which its emits do not name: add them there, now [%s]",
			env.Name, strings.Join(missing, ", "), strings.Join(env.Emits, ", "))
	}
	return func() (plugin.Handler, error) {
		return &router{tally: tally{kind: "route"}, ways: ways, rest: s.Default, all: s.All, onError: s.OnError}, nil
	}, nil
}

func targets(ways []way) (out []string) {
	for _, w := range ways {
		out = append(out, w.to)
	}
	return out
}

// way is a RouteTo that can be used.
type way struct {
	where    *expr.Program
	to, name string
}

type router struct {
	tally
	inputs
	ways    []way
	rest    string
	all     bool
	onError string
}

var _ plugin.Handler = (*router)(nil)

// Handle implements plugin.Handler.
func (r *router) Handle(_ context.Context, m *plugin.Message) error {
	in := r.get(m)
	defer r.put(in)
	in.to = in.to[:0]
	for i := range r.ways { // nothing goes out before all conditions have been looked at
		w := &r.ways[i]
		yes, err := w.where.Bool(&in.Input)
		if err != nil && r.onError != skip {
			return r.fails(m, r.onError, "", w.name, err)
		}
		if err == nil && yes && !slices.Contains(in.to, w.to) {
			in.to = append(in.to, w.to)
			if !r.all {
				break
			}
		}
	}
	if len(in.to) == 0 {
		if r.rest == "" {
			return r.drop()
		}
		return m.Forward(r.rest)
	}
	for _, to := range in.to {
		if err := m.Forward(to); err != nil {
			return err
		}
	}
	return nil
}
