package penstock

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/suggest"
)

// ConfigError is all that is wrong with a pipeline.
type ConfigError struct{ Problems []error }

// Error lists the problems, a line each.
func (e *ConfigError) Error() string {
	if len(e.Problems) == 1 {
		return "pipeline: " + e.Problems[0].Error()
	}
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = "  " + p.Error()
	}
	return fmt.Sprintf("pipeline: %d problems:\n%s", len(e.Problems), strings.Join(lines, "\n"))
}

// Unwrap gives the problems to errors.Is and errors.As.
func (e *ConfigError) Unwrap() []error { return e.Problems }

// Defaults, and bounds on what can be asked for.
const (
	defaultMemory     = 256 << 20
	defaultMaxMessage = 1 << 20
	defaultLimit      = 100_000
	defaultMailbox    = 8 << 20
	defaultTimeout    = 30 * time.Second
	defaultDrain      = 30 * time.Second
	defaultAttempts   = 5
	defaultBackoff    = 100 * time.Millisecond
	defaultMaxBackoff = 30 * time.Second
	maxWorkers        = 1024
)

// withDefaults is p with the defaults filled in; its slices are copies.
func (p Pipeline) withDefaults() Pipeline {
	p.Sources, p.Plugins, p.Sinks = slices.Clone(p.Sources), slices.Clone(p.Plugins), slices.Clone(p.Sinks)
	set(&p.Memory, defaultMemory)
	set(&p.MaxMessage, defaultMaxMessage)
	set(&p.Data, "data")
	set(&p.Drain, defaultDrain)
	if p.Logger == nil {
		p.Logger = slog.Default()
	}
	if p.Clock == nil {
		p.Clock = clock.System{}
	}
	for i := range p.Sources {
		set(&p.Sources[i].Limit, defaultLimit)
	}
	for i := range p.Plugins {
		g := &p.Plugins[i]
		set(&g.Version, "1")
		set(&g.Timeout, defaultTimeout)
		set(&g.Mailbox.Bytes, defaultMailbox)
		set(&g.Retry.Attempts, defaultAttempts)
		g.Retry.defaults()
	}
	for i := range p.Sinks {
		set(&p.Sinks[i].Flush, time.Second)
		set(&p.Sinks[i].Retry.Attempts, -1)
		p.Sinks[i].Retry.defaults()
	}
	return p
}

func (r *RetryPolicy) defaults() {
	set(&r.Backoff, defaultBackoff)
	set(&r.Max, max(defaultMaxBackoff, r.Backoff))
}

// set gives v a value if it has none.
func set[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// checker gathers what is wrong.
type checker struct {
	problems []error
	names    map[string]string // name -> what it is of
	streams  map[string]string // stream -> who makes it
	read     map[string]bool
}

func (c *checker) bad(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

// Check finds everything that is wrong with p, as [New] does, and nothing is made for it. The error is a [*ConfigError].
func (p Pipeline) Check() error {
	p = p.withDefaults()
	return p.check()
}

// Needs is the least memory, in bytes, with which p cannot come to a standstill: New wants Memory to be that much.
func (p Pipeline) Needs() int64 {
	p = p.withDefaults()
	return p.needs()
}

// check finds everything that is wrong with p, which has its defaults.
func (p *Pipeline) check() error {
	c := &checker{names: map[string]string{}, streams: map[string]string{}, read: map[string]bool{}}
	if len(p.Sources) == 0 {
		c.bad("no sources: a pipeline needs at least one")
	}
	for _, s := range p.Sources {
		c.source(s)
	}
	for _, g := range p.Plugins {
		c.plugin(g)
	}
	for _, s := range p.Sinks {
		c.sink(s)
	}
	for _, g := range p.Plugins {
		c.reads("plugin", g.Name, g.From)
	}
	for _, s := range p.Sinks {
		c.reads("sink", s.Name, s.From)
	}
	for _, g := range p.Plugins {
		for _, e := range g.Emits {
			if !c.read[e] {
				c.bad("plugin %q: emits to %q, which nobody reads: add a plugin or a sink with From %q, or take it out of Emits", g.Name, e, e)
			}
		}
	}
	for _, s := range p.Sources {
		if !c.read[s.Name] {
			c.bad("source %q: nobody reads its stream: add a plugin or a sink with From %q", s.Name, s.Name)
		}
	}
	c.cycles(p.Plugins)
	c.memory(p)
	if len(c.problems) > 0 {
		return &ConfigError{Problems: c.problems}
	}
	return nil
}

func (c *checker) name(kind, name string) {
	other, taken := c.names[name]
	switch {
	case name == "":
		c.bad("a %s has no name", kind)
	case strings.ContainsAny(name, "/\\ \t\n\"") || name[0] == '.':
		c.bad("%s %q: a name may have no slash, space or quote, and no dot in front: it is used in paths", kind, name)
	case taken && kind == other:
		c.bad("%s %q: there are two of that name", kind, name)
	case taken && kind != "sink" && other != "sink": // a sink is often called like its stream
		c.bad("%s %q: a %s has that name", kind, name, other)
	}
	c.names[name] = kind
}

func (c *checker) source(s Source) {
	c.name("source", s.Name)
	if s.From == nil {
		c.bad("source %q: From is nil: set what it reads", s.Name)
	}
	if s.Limit < 0 {
		c.bad("source %q: Limit is %d: use a positive number, or 0 for the default", s.Name, s.Limit)
	}
	c.streams[s.Name] = "source " + s.Name
}

func (c *checker) plugin(g Plugin) {
	c.name("plugin", g.Name)
	if g.New == nil {
		c.bad("plugin %q: New is nil: set a function that makes its handler", g.Name)
	}
	if g.Workers < 0 || g.Workers > maxWorkers {
		c.bad("plugin %q: Workers is %d: use 0 for one message after another, or 1 to %d", g.Name, g.Workers, maxWorkers)
	}
	if g.Mailbox.Bytes < 0 {
		c.bad("plugin %q: Mailbox.Bytes is %d: use a positive number, or 0 for the default", g.Name, g.Mailbox.Bytes)
	}
	if _, err := json.Marshal(g.Config); err != nil {
		c.bad("plugin %q: Config: %w: set what can be written as JSON", g.Name, err)
	}
	c.retry("plugin", g.Name, g.Retry)
	for i, e := range g.Emits {
		if maker, made := c.streams[e]; made && strings.HasPrefix(maker, "source ") {
			c.bad("plugin %q: emits to %q, which is the stream of a source: choose another name", g.Name, e)
		}
		if slices.Contains(g.Emits[:i], e) {
			c.bad("plugin %q: Emits names %q twice", g.Name, e)
		}
		if e == "" {
			c.bad("plugin %q: Emits has an empty name", g.Name)
		}
		if _, made := c.streams[e]; !made {
			c.streams[e] = "plugin " + g.Name
		}
	}
}

func (c *checker) sink(s Sink) {
	c.name("sink", s.Name)
	if s.To == nil {
		c.bad("sink %q: To is nil: set what it writes to", s.Name)
	}
	if s.Flush < 0 {
		c.bad("sink %q: Flush is %v: use a positive time, or 0 for the default", s.Name, s.Flush)
	}
	c.retry("sink", s.Name, s.Retry)
}

func (c *checker) retry(kind, name string, r RetryPolicy) {
	if r.Backoff < 0 || r.Max < r.Backoff {
		c.bad("%s %q: Retry: backoff %v, max %v: neither may be negative, nor max the shorter", kind, name, r.Backoff, r.Max)
	}
}

// reads checks the streams that a plugin or sink gets.
func (c *checker) reads(kind, name string, from []string) {
	if len(from) == 0 {
		c.bad("%s %q: From is empty: name the streams that it gets", kind, name)
	}
	for i, s := range from {
		c.read[s] = true
		if _, made := c.streams[s]; !made {
			c.bad("%s %q: nobody makes the stream %q%s", kind, name, s, suggest.DidYouMean(s, slices.Collect(maps.Keys(c.streams))))
		}
		if slices.Contains(from[:i], s) {
			c.bad("%s %q: From names %q twice", kind, name, s)
		}
	}
}

// cycles finds plugins that feed themselves, by way of others or not.
func (c *checker) cycles(plugins []Plugin) {
	const (
		unseen = iota
		onPath
		seen
	)
	state := make([]int, len(plugins))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		state[i] = onPath
		path = append(path, plugins[i].Name)
		for j, next := range plugins {
			if !feeds(plugins[i], next.From) {
				continue
			}
			switch state[j] {
			case unseen:
				visit(j)
			case onPath:
				round := append(slices.Clone(path[slices.Index(path, next.Name):]), next.Name)
				c.bad("streams go in a circle: %s: a message would never settle", strings.Join(round, " -> "))
			}
		}
		path = path[:len(path)-1]
		state[i] = seen
	}
	for i := range plugins {
		if state[i] == unseen {
			visit(i)
		}
	}
}

func feeds(g Plugin, from []string) bool {
	return slices.ContainsFunc(g.Emits, func(s string) bool { return slices.Contains(from, s) })
}

var errMemory = errors.New("the memory budget is too small")

func (c *checker) memory(p *Pipeline) {
	if p.MaxMessage < 1 || p.MaxMessage > 1<<30 {
		c.bad("MaxMessage is %d: use 1 byte to 1 GiB", p.MaxMessage)
		return
	}
	need := p.needs()
	if p.Memory < need {
		c.bad("%w: Memory is %d bytes, and %d sources, %d plugins and a MaxMessage of %d need %d: raise Memory or lower MaxMessage",
			errMemory, p.Memory, len(p.Sources), len(p.Plugins), p.MaxMessage, need)
	}
}
