package config

import (
	"fmt"
	"slices"
	"strings"
)

// Text is the graph as a tree for each source: who reads a stream is below who makes it. What is there already is not repeated.
func (c *Config) Text() string {
	var out strings.Builder
	for i, s := range c.Sources {
		if i > 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%s  (source %s)\n", s.Name, s.Kind.Name)
		c.below(&out, s.Name, "", map[string]bool{})
	}
	return out.String()
}

// leaf is a plugin or sink below a stream.
type leaf struct {
	name, what string
	emits      []string
}

func (c *Config) readers(stream string) []leaf {
	var out []leaf
	for _, g := range c.Plugins {
		if slices.Contains(g.From.Texts(), stream) {
			out = append(out, leaf{g.Name, "plugin " + g.what(), g.Emits.Texts()})
		}
	}
	for _, s := range c.Sinks {
		if slices.Contains(s.From.Texts(), stream) {
			out = append(out, leaf{s.Name, "sink " + s.Kind.Name, nil})
		}
	}
	return out
}

// what is the plugin's kind and how it is run.
func (g *Plugin) what() string {
	out := g.Kind.Name
	if g.Kind.Native {
		out = "native " + out
	}
	if g.Mode == "pool" {
		out += ", pool"
		if g.Workers > 0 {
			out += fmt.Sprintf(" of %d", g.Workers)
		}
	}
	if g.Order == "key" {
		out += ", by key"
	}
	return out
}

// below writes who reads a stream, and all below. shown is the plugins that are there already.
func (c *Config) below(out *strings.Builder, stream, prefix string, shown map[string]bool) {
	readers := c.readers(stream)
	for i, r := range readers {
		branch, next := "├── ", "│   "
		if i == len(readers)-1 {
			branch, next = "└── ", "    "
		}
		again := ""
		if shown[r.name] && len(r.emits) > 0 {
			again = "  see above"
		}
		fmt.Fprintf(out, "%s%s%s  (%s)%s\n", prefix, branch, r.name, r.what, again)
		if len(r.emits) == 0 || shown[r.name] {
			continue
		}
		shown[r.name] = true
		for j, e := range r.emits {
			branch, deeper := "├── ", "│   "
			if j == len(r.emits)-1 {
				branch, deeper = "└── ", "    "
			}
			fmt.Fprintf(out, "%s%s%semits %s\n", prefix, next, branch, e)
			c.below(out, e, prefix+next+deeper, shown)
		}
	}
}

// DOT is the graph in the language of Graphviz: an arrow for each stream from who makes it to who reads it.
func (c *Config) DOT() string {
	var out strings.Builder
	out.WriteString("digraph penstock {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];\n")
	node := func(role, name, what, shape string) {
		fmt.Fprintf(&out, "  %s [label=%s, shape=%s];\n", quote(role+"/"+name), quote(name+"\n"+what), shape)
	}
	for _, s := range c.Sources {
		node("source", s.Name, "source "+s.Kind.Name, "cds")
	}
	for _, g := range c.Plugins {
		node("plugin", g.Name, "plugin "+g.what(), "box")
	}
	for _, s := range c.Sinks {
		node("sink", s.Name, "sink "+s.Kind.Name, "cylinder")
	}
	arrows := func(from, stream string) {
		for _, r := range c.readers(stream) {
			role, _, _ := strings.Cut(r.what, " ")
			fmt.Fprintf(&out, "  %s -> %s [label=%s];\n", quote(from), quote(role+"/"+r.name), quote(stream))
		}
	}
	for _, s := range c.Sources {
		arrows("source/"+s.Name, s.Name)
	}
	for _, g := range c.Plugins {
		for _, e := range g.Emits {
			arrows("plugin/"+g.Name, e.Text)
		}
	}
	out.WriteString("}\n")
	return out.String()
}

// quote is a string of DOT.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
