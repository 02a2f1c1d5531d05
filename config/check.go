package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/internal/suggest"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// graph checks how the entries hang together.
func (r *reader) graph() {
	_, section := r.first["sources"]
	if len(r.c.Sources) == 0 && !r.makersUnsure && (!section || r.Count() == 0) {
		r.Add(r.end, "no sources: a pipeline needs at least one, as in sources: {in: {stdin: {}}}")
	}
	makers := map[string]string{} // stream -> who makes it
	for _, s := range r.c.Sources {
		makers[s.Name] = "source"
	}
	r.names(makers)
	readers := map[string]bool{}
	for _, g := range r.c.Plugins {
		r.reads("plugin", g.Name, g.From, makers, readers)
	}
	for _, s := range r.c.Sinks {
		r.reads("sink", s.Name, s.From, makers, readers)
	}
	r.unread(readers)
	r.cycles()
	if r.Count() == 0 {
		r.runtime()
	}
}

// names checks the names of plugins and of what they emit.
func (r *reader) names(makers map[string]string) {
	for _, g := range r.c.Plugins {
		if i := slices.IndexFunc(r.c.Sources, func(s Source) bool { return s.Name == g.Name }); i >= 0 {
			r.Add(g.Pos, "plugin %q: the source at %v has that name: choose another", g.Name, r.c.Sources[i].Pos)
		}
		for i, e := range g.Emits {
			switch {
			case !nameForm.MatchString(e.Text):
				r.Add(e.Pos, "plugin %q: emits %q: %s", g.Name, e.raw, nameRule)
			case makers[e.Text] == "source":
				r.Add(e.Pos, "plugin %q: emits %q, which is the stream of a source: choose another name", g.Name, e.raw)
			case slices.ContainsFunc(g.Emits[:i], func(n Name) bool { return n.Text == e.Text }):
				r.Add(e.Pos, "plugin %q: emits %q twice", g.Name, e.raw)
			}
		}
	}
	for _, g := range r.c.Plugins {
		for _, e := range g.Emits {
			if makers[e.Text] == "" && nameForm.MatchString(e.Text) {
				makers[e.Text] = "plugin"
			}
		}
	}
}

// reads checks what a plugin or sink reads.
func (r *reader) reads(role, name string, from Names, makers map[string]string, readers map[string]bool) {
	for i, s := range from {
		readers[s.Text] = true
		if slices.ContainsFunc(from[:i], func(n Name) bool { return n.Text == s.Text }) {
			r.Add(s.Pos, "%s %q: from has %q twice", role, name, s.raw)
			continue
		}
		if makers[s.Text] != "" || r.makersUnsure {
			continue
		}
		if r.Full() {
			r.Skip()
			continue
		}
		var known []string
		for k := range makers {
			known = append(known, k)
		}
		slices.Sort(known)
		help := suggest.DidYouMean(s.Text, known)
		isPlugin := slices.IndexFunc(r.c.Plugins, func(g Plugin) bool { return g.Name == s.Text })
		switch {
		case help == "" && isPlugin >= 0 && len(r.c.Plugins[isPlugin].Emits) > 0:
			emits := r.c.Plugins[isPlugin].Emits.Texts()
			help = " (it is a plugin: read what it emits, " + strings.Join(emits, ", ") + ")"
		case help == "" && isPlugin >= 0:
			help = " (it is a plugin that emits nothing: add emits to it)"
		case help == "":
			help = suggest.OrList(s.Text, known)
		}
		r.Add(s.Pos, "%s %q: nobody makes the stream %q%s", role, name, s.raw, help)
	}
}

// unread finds streams that nobody reads.
func (r *reader) unread(readers map[string]bool) {
	if r.readersUnsure {
		return
	}
	for _, s := range r.c.Sources {
		if !readers[s.Name] {
			r.Add(s.Pos, "source %q: nobody reads it: add a plugin or a sink with from: %s, or take it out", s.Name, s.Name)
		}
	}
	for _, g := range r.c.Plugins {
		for _, e := range g.Emits {
			if !readers[e.Text] && nameForm.MatchString(e.Text) {
				readers[e.Text] = true // said once
				r.Add(e.Pos, "plugin %q: emits %q, which nobody reads: add a plugin or a sink with from: %s, or take it out of emits",
					g.Name, e.Text, e.Text)
			}
		}
	}
}

// cycles finds plugins that feed themselves, by way of others or not. Each circle is reported once, where it is closed.
func (r *reader) cycles() {
	const (
		unseen = iota
		onPath
		seen
	)
	readers := map[string][]int{} // stream -> plugins
	for i, g := range r.c.Plugins {
		for _, s := range g.From {
			readers[s.Text] = append(readers[s.Text], i)
		}
	}
	state := make([]int, len(r.c.Plugins))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		g := r.c.Plugins[i]
		state[i] = onPath
		path = append(path, g.Name)
		for _, e := range g.Emits {
			if r.isSource(e.Text) { // an error of its own
				continue
			}
			for _, next := range readers[e.Text] {
				switch state[next] {
				case unseen:
					visit(next)
				case onPath:
					if r.Full() {
						r.Skip()
						continue
					}
					name := r.c.Plugins[next].Name
					round := append(slices.Clone(path[slices.Index(path, name):]), name)
					r.Add(e.Pos, "plugin %q: streams go in a circle, %s: a message would never settle; break it at one of them",
						g.Name, strings.Join(round, " -> "))
				}
			}
		}
		path = path[:len(path)-1]
		state[i] = seen
	}
	for i := range r.c.Plugins {
		if state[i] == unseen {
			visit(i)
		}
	}
}

func (r *reader) isSource(name string) bool {
	return slices.ContainsFunc(r.c.Sources, func(s Source) bool { return s.Name == name })
}

// runtime asks the runtime what it would say, which is the last word on memory, and puts that in its place.
func (r *reader) runtime() {
	p := r.c.skeleton()
	if need := kind.Size(p.Needs()); r.c.Memory < need {
		r.Add(r.place("memory"), "memory: %v is too little: with max_message %v, sources and plugins that emit need %v: "+
			"raise it to %v or lower max_message",
			r.c.Memory, r.c.MaxMessage, need, mebibytes(need))
		return
	}
	err := p.Check()
	var bad *penstock.ConfigError
	if !errors.As(err, &bad) {
		return
	}
	for _, problem := range bad.Problems {
		r.Add(r.entryOf(problem.Error()), "%v", problem)
	}
}

// mebibytes is a size rounded up, so that it reads well.
func mebibytes(s kind.Size) kind.Size { return (s + 1<<20 - 1) >> 20 << 20 }

// entryOf is where the entry stands that a problem of the runtime begins with.
func (r *reader) entryOf(problem string) Pos {
	role, rest, _ := strings.Cut(problem, ` "`)
	name, _, _ := strings.Cut(rest, `"`)
	if pos, ok := r.first[role+"s/"+name]; ok {
		return pos
	}
	return r.end
}

// skeleton is the pipeline with nothing in it that runs.
func (c *Config) skeleton() penstock.Pipeline {
	p := c.pipeline()
	for _, s := range c.Sources {
		out := s.runtime()
		out.From = struct{ source.Source }{}
		p.Sources = append(p.Sources, out)
	}
	for _, g := range c.Plugins {
		out := g.runtime()
		out.New = func() (plugin.Handler, error) { return nil, errors.New("it is only looked at") }
		p.Plugins = append(p.Plugins, out)
	}
	for _, s := range c.Sinks {
		out := s.runtime()
		out.To = struct{ sink.Sink }{}
		p.Sinks = append(p.Sinks, out)
	}
	return p
}
