package penstock_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
)

// Promise: New reports everything that is wrong, at once, and says what to do.
func TestNewReportsAllProblems(t *testing.T) {
	good := func() penstock.Pipeline {
		return penstock.Pipeline{
			Sources: []penstock.Source{{Name: "in", From: &list{}}},
			Plugins: []penstock.Plugin{from(forward("p", "out"), "in")},
			Sinks:   []penstock.Sink{{Name: "out", From: []string{"out"}, To: &keep{}}},
		}
	}
	tests := map[string]struct {
		spoil func(p *penstock.Pipeline)
		want  []string
	}{
		"unknown stream": {
			func(p *penstock.Pipeline) { p.Sinks[0].From = []string{"otu"} },
			[]string{`sink "out"`, `"otu"`, `did you mean "out"`, `emits to "out", which nobody reads`},
		},
		"nothing like it": {
			func(p *penstock.Pipeline) { p.Sinks[0].From = []string{"out", "elsewhere"} },
			[]string{`nobody makes the stream "elsewhere"`},
		},
		"circle": {func(p *penstock.Pipeline) {
			p.Plugins = append(p.Plugins, from(forward("q", "back"), "out"), from(forward("r", "out"), "back"))
		}, []string{"circle", "q -> r -> q"}},
		"own circle":      {func(p *penstock.Pipeline) { p.Plugins[0].From = []string{"in", "out"} }, []string{"p -> p"}},
		"two of a name":   {func(p *penstock.Pipeline) { p.Plugins = append(p.Plugins, p.Plugins[0]) }, []string{`plugin "p": there are two`}},
		"plugin = source": {func(p *penstock.Pipeline) { p.Plugins[0].Name = "in" }, []string{`"in"`, "source has that name"}},
		"no name":         {func(p *penstock.Pipeline) { p.Plugins[0].Name = "" }, []string{"a plugin has no name"}},
		"bad name":        {func(p *penstock.Pipeline) { p.Plugins[0].Name = "../p" }, []string{"used in paths"}},
		"nobody reads a source": {func(p *penstock.Pipeline) {
			p.Sources = append(p.Sources, penstock.Source{Name: "more", From: &list{}})
		}, []string{`source "more": nobody reads`}},
		"memory too small": {func(p *penstock.Pipeline) { p.Memory = 1 << 20 }, []string{"too small", "raise Memory"}},
		"no sources":       {func(p *penstock.Pipeline) { p.Sources = nil }, []string{"no sources", `nobody makes the stream "in"`}},
		"nothing set": {func(p *penstock.Pipeline) {
			p.Sources[0].From, p.Plugins[0].New, p.Sinks[0].To, p.Plugins[0].From = nil, nil, nil, nil
		}, []string{
			`source "in": From is nil`, `plugin "p": New is nil`, `sink "out": To is nil`, `plugin "p": From is empty`,
			`source "in": nobody reads`,
		}},
		"negative": {func(p *penstock.Pipeline) {
			p.Sources[0].Limit, p.Plugins[0].Workers, p.Sinks[0].Flush, p.Plugins[0].Mailbox.Bytes = -1, -1, -1, -1
			p.Plugins[0].Retry, p.Sinks[0].Retry = penstock.RetryPolicy{Backoff: -1}, penstock.RetryPolicy{Backoff: time.Minute, Max: time.Second}
			p.MaxMessage = -1
		}, []string{
			"Limit is -1", "Workers is -1", "Flush is -1", "Mailbox.Bytes is -1",
			`"p": Retry: backoff -1ns`, `"out": Retry: backoff 1m0s`, "MaxMessage is -1",
		}},
		"emits": {
			func(p *penstock.Pipeline) { p.Plugins[0].Emits = []string{"in", "out", "out", ""} },
			[]string{`which is the stream of a source`, `Emits names "out" twice`, "empty name"},
		},
		"from twice":        {func(p *penstock.Pipeline) { p.Plugins[0].From = []string{"in", "in"} }, []string{`From names "in" twice`}},
		"config is no JSON": {func(p *penstock.Pipeline) { p.Plugins[0].Config = func() {} }, []string{`plugin "p": Config`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := good()
			tt.spoil(&p)
			_, err := penstock.New(p)
			var config *penstock.ConfigError
			if !errors.As(err, &config) || len(config.Problems) == 0 {
				t.Fatalf("error is %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
	if rt, err := penstock.New(good()); err != nil || rt == nil {
		t.Errorf("a good pipeline: %v", err)
	}
}

// Check says what New would, and Needs what New wants Memory to be.
func TestCheckAndNeeds(t *testing.T) {
	p := penstock.Pipeline{
		Sources: []penstock.Source{{Name: "in", From: &list{}}},
		Sinks:   []penstock.Sink{{Name: "out", From: []string{"in"}, To: &keep{}}},
	}
	p.Memory = p.Needs()
	if err := p.Check(); err != nil {
		t.Errorf("with the memory that it needs: %v", err)
	}
	p.Memory--
	var config *penstock.ConfigError
	if err := p.Check(); !errors.As(err, &config) || !strings.Contains(err.Error(), "too small") {
		t.Errorf("with a byte less: %v", err)
	}
}
