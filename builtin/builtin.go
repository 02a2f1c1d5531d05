// Package builtin is the plugins that need no code: filter, map, dedupe, route and throttle. They are configured by expressions; see
// docs/expressions.md.
//
// Every one works in both modes, actor and pool, and in order by key.
package builtin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// Kinds are all kinds of this package.
func Kinds() []kind.Kind { return []kind.Kind{Filter(), Map(), Dedupe(), Route(), Throttle()} }

// What becomes of a message for which an expression has no value.
const (
	reject = "reject" // to the dead letters, with the reason
	drop   = "drop"   // acknowledged, and counted
	pass   = "pass"   // forwarded as it is
	skip   = "skip"   // route: as if the condition were false
	wait   = "wait"   // throttle: until there is room
)

// problems gathers what is wrong with settings.
type problems []kind.Problem

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, kind.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

// choice checks a setting that is one of some words.
func (p *problems) choice(field, value string, of ...string) {
	for _, o := range of {
		if value == o {
			return
		}
	}
	p.add(field, "%q is not known: write one of %s", value, strings.Join(of, ", "))
}

// condition compiles a condition.
func (p *problems) condition(field, source string) *expr.Program {
	return p.program(field, source, expr.CompileBool)
}

// value compiles an expression of any type.
func (p *problems) value(field, source string) *expr.Program {
	return p.program(field, source, expr.CompileValue)
}

func (p *problems) program(field, source string, compile func(string) (*expr.Program, error)) *expr.Program {
	program, err := compile(source)
	if err != nil {
		p.add(field, "%v", err)
	}
	return program
}

// err is the problems as an error; nil if there are none.
func (p problems) err() error {
	errs := make([]error, 0, len(p))
	for _, x := range p {
		if x.Field == "" {
			errs = append(errs, errors.New(x.Message))
		} else {
			errs = append(errs, fmt.Errorf("%s: %s", x.Field, x.Message))
		}
	}
	return errors.Join(errs...)
}

// onlyStream is the one stream that a plugin of this kind emits to.
func onlyStream(name string, env kind.Env) (string, error) {
	if len(env.Emits) != 1 {
		return "", fmt.Errorf("plugin %q: a %s emits to exactly one stream, and emits names %d: write one, as in emits: big",
			env.Name, name, len(env.Emits))
	}
	return env.Emits[0], nil
}

// field turns a path as the key of a source has it, $.a['b c'][0], into an expression; anything else is one already.
func field(source string) string {
	rest, ok := strings.CutPrefix(source, "$")
	if !ok {
		return source
	}
	var b strings.Builder
	b.WriteString("msg")
	for rest != "" {
		end := 0
		switch {
		case strings.HasPrefix(rest, "['"):
			end = strings.Index(rest, "']") + 2
			if end < 2 {
				return source
			}
			b.WriteString("[" + strconv.Quote(rest[2:end-2]) + "]")
		case rest[0] == '[':
			end = strings.IndexByte(rest, ']') + 1
			b.WriteString(rest[:end])
		case rest[0] == '.':
			end = 1 + len(rest[1:])
			if n := strings.IndexAny(rest[1:], ".["); n >= 0 {
				end = 1 + n
			}
			b.WriteString("[" + strconv.Quote(rest[1:end]) + "]")
		}
		if end == 0 {
			return source
		}
		rest = rest[end:]
	}
	return b.String()
}

// tally counts what a plugin drops, and tells at its end. Its methods may be called concurrently.
type tally struct {
	kind    string
	logger  *slog.Logger
	dropped atomic.Uint64
}

// Start implements plugin.Starter.
func (t *tally) Start(_ context.Context, env plugin.Env) error {
	t.logger = env.Logger
	return nil
}

// Stop implements plugin.Stopper.
func (t *tally) Stop(ctx context.Context) error {
	if n := t.dropped.Load(); n > 0 && t.logger != nil {
		t.logger.InfoContext(ctx, "messages dropped, as configured", "kind", t.kind, "dropped", n)
	}
	return nil
}

func (t *tally) drop() error {
	t.dropped.Add(1)
	return nil
}

// inputs are messages as expressions see them, for one call each: a plugin in mode pool is called by many workers.
type inputs struct{ pool sync.Pool }

func (p *inputs) get(m *plugin.Message) *input {
	in, _ := p.pool.Get().(*input)
	if in == nil {
		in = new(input)
	}
	in.Set(m.Payload(), m.Key(), m.Headers(), m.Stream(), m.Attempt())
	return in
}

func (p *inputs) put(in *input) {
	if cap(in.out)+cap(in.key) > keepBytes {
		in.out, in.key = nil, nil
	}
	in.Set(nil, nil, nil, "", 0)
	p.pool.Put(in)
}

const keepBytes = 64 << 10 // buffers that are larger are not kept

// input is a message as expressions see it, and room for what they give.
type input struct {
	expr.Input
	out, key []byte
	to       []string // of route
}

// fails gives the verdict on a message for which an expression has no value.
func (t *tally) fails(m *plugin.Message, mode, stream, field string, err error) error {
	switch mode {
	case pass:
		return m.Forward(stream)
	case drop:
		return t.drop()
	}
	return plugin.Reject(fmt.Errorf("%s: %s: %w", t.kind, field, err))
}
