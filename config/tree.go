package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// shape is what a value is.
type shape int

const (
	null shape = iota
	boolean
	integer
	float
	text
	list
	dict
	broken // something is wrong with it, and that has been reported
)

// value is a node of the file with aliases, merge keys and variables resolved.
type value struct {
	shape    shape
	text     string // of a scalar
	raw      string // of a scalar, as the file has it: what a variable stood for may be secret
	variable bool   // a part of text came from a variable
	pos      Pos
	items    []*value // of a list
	entries  []entry  // of a dict, in order
}

type entry struct {
	key string
	pos Pos
	val *value
}

// get finds an entry.
func (v *value) get(key string) (entry, bool) {
	for _, e := range v.entries {
		if e.key == key {
			return e, true
		}
	}
	return entry{}, false
}

// what describes a value for people.
func (v *value) what() string {
	switch v.shape {
	case null:
		return "nothing"
	case list:
		return "a list"
	case dict:
		return "a map"
	case boolean, integer, float, text:
		name := map[shape]string{boolean: "", integer: "the number ", float: "the number ", text: "the text "}[v.shape]
		shown := v.raw
		if len(shown) > 64 {
			shown = shown[:64] + "..."
		}
		if v.shape == text || v.variable {
			shown = strconv.Quote(shown)
		}
		return name + shown
	}
	return "something else"
}

// builder makes values of nodes.
type builder struct {
	*problems
	file   *file
	lines  [][]byte
	getenv func(string) (string, bool)
	nodes  int  // made so far
	filled int  // bytes that variables have been replaced by
	over   bool // more than maxNodes: no more are made
	open   map[*yaml.Node]bool
}

// room counts one more value or key, and says whether that is still allowed.
func (b *builder) room(pos Pos) bool {
	if b.over {
		return false
	}
	if b.nodes++; b.nodes > maxNodes {
		b.over = true
		b.add(pos, "the file has more than %d values and keys, with each alias counted as what it stands for", maxNodes)
	}
	return !b.over
}

// build makes a value of a node. depth is how many maps and lists are around it.
func (b *builder) build(n *yaml.Node, depth int) *value {
	v := &value{shape: broken, pos: b.file.pos(n.Line, n.Column)}
	if !b.room(v.pos) {
		return v
	}
	if depth > maxDepth {
		b.add(v.pos, "maps and lists are nested more than %d deep", maxDepth)
		return v
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias == nil || b.open[n.Alias] {
			b.add(v.pos, "the alias *%s is inside of what it stands for", n.Value)
			return v
		}
		return b.build(n.Alias, depth)
	}
	if n.Anchor != "" {
		b.open[n] = true
		defer delete(b.open, n)
	}
	switch tag := n.ShortTag(); n.Kind {
	case yaml.ScalarNode:
		b.scalar(v, n, tag)
	case yaml.SequenceNode:
		if tag != "!!seq" {
			b.add(v.pos, "the tag %s has no meaning here: take it out", tag)
			return v
		}
		v.shape = list
		for _, item := range n.Content {
			if b.over {
				break
			}
			v.items = append(v.items, b.build(item, depth+1))
		}
	case yaml.MappingNode:
		if tag != "!!map" {
			b.add(v.pos, "the tag %s has no meaning here: take it out", tag)
			return v
		}
		v.shape = dict
		b.dict(v, n, depth)
	default:
		b.add(v.pos, "this kind of YAML node has no meaning here")
	}
	return v
}

// scalar fills in v of a scalar node.
func (b *builder) scalar(v *value, n *yaml.Node, tag string) {
	v.raw, v.text = n.Value, n.Value
	shapes := map[string]shape{
		"!!null": null, "!!bool": boolean, "!!int": integer, "!!float": float, "!!str": text, "!!timestamp": text, "!!merge": text,
	}
	s, known := shapes[tag]
	if !known {
		b.add(v.pos, "the tag %s has no meaning here: take it out", tag)
		return
	}
	resolved, ok := b.interpolate(v, n)
	if !ok {
		return
	}
	v.shape = s
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	v.text = resolved
	if v.variable && plain {
		v.shape = resolve(resolved)
	}
}

var (
	intForm   = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+)$`)
	floatForm = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
)

// resolve is the shape of a scalar without quotes, by the core schema of YAML 1.2.
func resolve(s string) shape {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return null
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return boolean
	}
	switch {
	case intForm.MatchString(s):
		return integer
	case floatForm.MatchString(s):
		return float
	}
	return text
}

// number reads an integer or a float as YAML writes it.
func (v *value) number() (float64, bool) {
	if n, ok := v.integer(); ok {
		return float64(n), true
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64)
	return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}

func (v *value) integer() (int64, bool) {
	n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64)
	return n, err == nil && v.shape == integer
}

// dict fills in the entries of a map. What is merged in by << comes behind, and gives way to keys that are written out.
func (b *builder) dict(v *value, n *yaml.Node, depth int) {
	seen := map[string]Pos{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content) && !b.over; i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		pos := b.file.pos(key.Line, key.Column)
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, val)
			continue
		}
		if key.Kind == yaml.AliasNode && key.Alias != nil {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" {
			b.add(pos, "a key must be a word")
			continue
		}
		if !b.room(pos) {
			return
		}
		if first, twice := seen[key.Value]; twice {
			b.add(pos, "the key %q is there twice; the first is in line %d", key.Value, first.Line)
			continue
		}
		seen[key.Value] = pos
		v.entries = append(v.entries, entry{key: key.Value, pos: pos, val: b.build(val, depth+1)})
	}
	for _, m := range merges {
		b.merge(v, m, depth, seen)
	}
}

// merge adds the entries of what << names: a map, or a list of maps of which earlier ones win.
func (b *builder) merge(v *value, n *yaml.Node, depth int, seen map[string]Pos) {
	from := b.build(n, depth)
	maps := []*value{from}
	if from.shape == list {
		maps = from.items
	}
	for _, m := range maps {
		if m.shape == broken {
			continue
		}
		if m.shape != dict {
			b.add(b.file.pos(n.Line, n.Column), "<< merges a map or a list of maps, not %s", m.what())
			continue
		}
		for _, e := range m.entries {
			if _, own := seen[e.key]; !own {
				seen[e.key] = e.pos
				v.entries = append(v.entries, e)
			}
		}
	}
}
