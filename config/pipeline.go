package config

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/internal/yamltree"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// Build is what a pipeline is made with.
type Build struct {
	Listen func(ctx context.Context, network, address string) (net.Listener, error) // for [kind.Env]; may be nil
	Logger *slog.Logger                                                             // nil for the runtime's default
	Clock  plugin.Clock                                                             // nil for the machine's
}

// Pipeline makes the sources, plugins and sinks. Nothing is opened or started. If some cannot be made, the error is an [*Error] with all
// of them.
func (c *Config) Pipeline(b Build) (penstock.Pipeline, error) {
	p := c.pipeline()
	p.Logger, p.Clock = b.Logger, b.Clock
	bad := yamltree.NewProblems(c.Files...)
	for _, s := range c.Sources {
		out := s.runtime()
		from, err := s.Kind.NewSource(s.Settings, kind.Env{Name: s.Name, Frame: s.Frame, Delimiter: s.Delimiter, Listen: b.Listen})
		if err != nil {
			bad.Add(s.Pos, "source %q: %s: %v", s.Name, s.Kind.Name, err)
		}
		out.From = from
		p.Sources = append(p.Sources, out)
	}
	for _, g := range c.Plugins {
		out := g.runtime()
		create, err := g.Kind.NewPlugin(g.Settings, kind.Env{Name: g.Name, Emits: g.Emits.Texts(), Listen: b.Listen})
		if err != nil {
			bad.Add(g.Pos, "plugin %q: %s: %v", g.Name, g.Kind.Name, err)
		}
		out.New = create
		p.Plugins = append(p.Plugins, out)
	}
	for _, s := range c.Sinks {
		out := s.runtime()
		to, err := s.Kind.NewSink(s.Settings, kind.Env{Name: s.Name, Listen: b.Listen})
		if err != nil {
			bad.Add(s.Pos, "sink %q: %s: %v", s.Name, s.Kind.Name, err)
		}
		out.To = to
		p.Sinks = append(p.Sinks, out)
	}
	if err := bad.Err(); err != nil {
		return penstock.Pipeline{}, err
	}
	if err := p.Check(); err != nil {
		return penstock.Pipeline{}, fmt.Errorf("config: %w", err)
	}
	return p, nil
}

// pipeline is a Pipeline without entries.
func (c *Config) pipeline() penstock.Pipeline {
	return penstock.Pipeline{Memory: int64(c.Memory), MaxMessage: int(c.MaxMessage), Data: c.Data, Drain: c.Drain}
}

// runtime is the source for the runtime, but for From.
func (s *Source) runtime() penstock.Source {
	out := penstock.Source{Name: s.Name, Limit: s.Limit, Identity: s.Identity(), KeyName: s.Key.String()}
	if path := s.Key.Path(); len(path) > 0 {
		out.Key = penstock.JSONKey(path...)
	}
	return out
}

// runtime is the plugin for the runtime, but for New.
func (g *Plugin) runtime() penstock.Plugin {
	out := penstock.Plugin{
		Name: g.Name, Version: g.Version, From: g.From.Texts(), Emits: g.Emits.Texts(), Config: g.Config,
		ByKey: g.Order == "key", Timeout: g.Timeout, Retry: g.Retry.policy(),
		Mailbox:  penstock.Mailbox{Bytes: int64(g.Mailbox.Bytes), DropOldest: g.Mailbox.Overflow == "drop_oldest"},
		Identity: g.Identity(), Kind: g.Kind.Name,
	}
	if g.Mode == "pool" {
		if out.Workers = g.Workers; out.Workers == 0 {
			out.Workers = runtime.GOMAXPROCS(0)
		}
	}
	return out
}

// runtime is the sink for the runtime, but for To.
func (s *Sink) runtime() penstock.Sink {
	return penstock.Sink{Name: s.Name, From: s.From.Texts(), Flush: s.Flush, Retry: s.Retry.policy(), Identity: s.Identity()}
}

func (r Retry) policy() penstock.RetryPolicy {
	return penstock.RetryPolicy{Attempts: r.Attempts, Backoff: r.Backoff, Max: r.Max}
}
