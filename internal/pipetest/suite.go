package pipetest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/internal/yamltree"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// suite is the tests of one file, checked against their pipeline.
type suite struct {
	name     string
	pipeline *config.Config
	tests    []*test
	sources  []string
	streams  []string // of sources and plugins
	sinks    []string
}

// load reads a file of tests and its pipeline. Problems are what is wrong with what the files say; the error is that a file cannot be read.
func load(name string, kinds *kind.Registry) (*suite, []config.Problem, error) {
	text, err := yamltree.ReadFile(name, advice())
	var bad *config.Error
	switch {
	case errors.As(err, &bad):
		return &suite{name: name}, bad.Problems, nil
	case err != nil:
		return nil, nil, fmt.Errorf("tests: %w", err)
	}
	r := newReader(name)
	f := r.parse(text)
	s := &suite{name: name, tests: f.tests}
	if f.pipeline == "" {
		return s, r.List(), nil // which are not none
	}
	problems, err := s.open(r, f, kinds)
	if err != nil {
		return nil, nil, err
	}
	if s.pipeline != nil {
		for _, t := range f.tests {
			s.check(r, t)
		}
	}
	return s, append(r.List(), problems...), nil
}

// fallback is the pipeline of a directory's tests that have none of their own name.
const fallback = "penstock.yaml"

// beside is the pipeline that a file of tests is for if it does not say: late.yaml for late_test.yaml.
func beside(name string) string {
	base := filepath.Base(name)
	for _, end := range []string{".yaml", ".yml"} {
		if own, ok := strings.CutSuffix(base, "_test"+end); ok {
			return own + end
		}
	}
	return fallback
}

// open reads the pipeline. It sees no variables but those that the file of tests sets.
func (s *suite) open(r *reader, f *file, kinds *kind.Registry) ([]config.Problem, error) {
	path := f.pipeline
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(s.name), path)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && f.at.Line == 1 && f.at.Column == 1 { // it was not named
		path = filepath.Join(filepath.Dir(s.name), fallback)
	}
	c, err := config.Load(path, config.Options{Registry: kinds, Getenv: func(name string) (string, bool) {
		v, ok := f.env[name]
		return v, ok
	}})
	var bad *config.Error
	switch {
	case errors.As(err, &bad):
		return bad.Problems, nil
	case errors.Is(err, os.ErrNotExist):
		r.Add(f.at, "there is no pipeline %s: name the one that is tested, as in pipeline: penstock.yaml", path)
		return nil, nil
	case err != nil:
		return nil, err
	}
	s.pipeline = c
	for _, source := range c.Sources {
		s.sources = append(s.sources, source.Name)
	}
	s.streams = slices.Clone(s.sources)
	for _, g := range c.Plugins {
		for _, e := range g.Emits.Texts() {
			if !slices.Contains(s.streams, e) {
				s.streams = append(s.streams, e)
			}
		}
	}
	for _, sink := range c.Sinks {
		s.sinks = append(s.sinks, sink.Name)
	}
	w := newWorld(s, &test{})
	if _, err := w.build(); err != nil {
		if errors.As(err, &bad) {
			return bad.Problems, nil
		}
		r.Add(f.at, "pipeline %s: %v", path, err)
	}
	return nil, nil
}

// check finds names in a test that the pipeline does not have.
func (s *suite) check(r *reader, t *test) {
	for _, p := range t.steps {
		switch {
		case p.wait > 0:
		case p.source == "" && p.from.Line == 0 && len(s.sources) == 1:
			p.source = s.sources[0]
		case p.source == "" && p.from.Line == 0:
			r.Add(p.at, "input: the source is missing%s", r.suggest("", s.sources))
		case !slices.Contains(s.sources, p.source):
			r.Add(p.from, "input: the pipeline has no source %q%s", p.source, r.suggest(p.source, s.sources))
		}
	}
	known := slices.Concat(s.sinks, s.streams)
	slices.Sort(known)
	known = slices.Compact(known)
	for _, o := range t.out {
		if !slices.Contains(known, o.name) {
			r.Add(o.at, "expect: the pipeline has no sink and no stream %q%s", o.name, r.suggest(o.name, append(known, "dead_letters", "counts")))
		}
	}
	if t.dead != nil && slices.Contains(known, "dead_letters") {
		r.Add(t.dead.at, "expect: dead_letters stands for messages that were given up, but a sink or stream of the pipeline has that name: "+
			"give that another to expect either")
	}
	if len(t.counts) > 0 && slices.Contains(known, "counts") {
		r.Add(t.counts[0].at, "expect: counts stands for figures, but a sink or stream of the pipeline has that name: give that another")
	}
	if t.dead == nil {
		return
	}
	plugins := map[string]bool{}
	for _, g := range s.pipeline.Plugins {
		plugins[g.Name] = true
	}
	for _, l := range t.dead.each {
		if l.plugin != "" && !plugins[l.plugin] {
			r.Add(l.pluginAt, "dead letter: the pipeline has no plugin %q%s", l.plugin, r.suggest(l.plugin, slices.Sorted(maps.Keys(plugins))))
		}
		if l.source != "" && !slices.Contains(s.sources, l.source) {
			r.Add(l.sourceAt, "dead letter: the pipeline has no source %q%s", l.source, r.suggest(l.source, s.sources))
		}
		if l.stream != "" && !slices.Contains(s.streams, l.stream) {
			r.Add(l.streamAt, "dead letter: the pipeline has no stream %q%s", l.stream, r.suggest(l.stream, s.streams))
		}
	}
}

// replaced is the pipeline with the world's sources and sinks in the place of its own, of which none is made.
func (w *world) replaced() *config.Config {
	c := *w.suite.pipeline
	c.Sources, c.Sinks = slices.Clone(c.Sources), slices.Clone(c.Sinks)
	for i := range c.Sources {
		f := w.feeds[c.Sources[i].Name]
		c.Sources[i].Settings = struct{}{}
		c.Sources[i].Kind = kind.Source(c.Sources[i].Kind.About, struct{}{}, func(struct{}, kind.Env) (source.Source, error) { return f, nil })
	}
	for i := range c.Sinks {
		k := w.record(c.Sinks[i].Name, w.sinks)
		c.Sinks[i].Settings = struct{}{}
		c.Sinks[i].Kind = kind.Sink(c.Sinks[i].Kind.About, struct{}{}, func(struct{}, kind.Env) (sink.Sink, error) { return k, nil })
	}
	return &c
}
