package yamltree

import (
	yaml "go.yaml.in/yaml/v4"
)

// builder makes values of nodes.
type builder struct {
	*Problems
	file   *file
	advice Advice
	lines  [][]byte
	getenv func(string) (string, bool) // nil: there are no variables
	nodes  int                         // made so far
	filled int                         // bytes that variables have been replaced by
	over   bool                        // more than MaxNodes: no more are made
	open   map[*yaml.Node]bool         // anchors around the node in hand
}

// room counts one more value or key, and says whether that is still allowed.
func (b *builder) room(pos Pos) bool {
	if b.over {
		return false
	}
	if b.nodes++; b.nodes > MaxNodes {
		b.over = true
		b.Add(pos, "the file has more than %d values and keys, with each alias counted as what it stands for%s", MaxNodes, b.advice.TooMany)
	}
	return !b.over
}

// build makes a value of a node. depth is how many maps and lists are around it.
func (b *builder) build(n *yaml.Node, depth int) *Value {
	v := &Value{Shape: Broken, Pos: b.file.pos(n.Line, n.Column)}
	if !b.room(v.Pos) {
		return v
	}
	if depth > MaxDepth {
		b.Add(v.Pos, "maps and lists are nested more than %d deep", MaxDepth)
		return v
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias == nil || b.open[n.Alias] {
			b.Add(v.Pos, "the alias *%s is inside of what it stands for", n.Value)
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
			b.Add(v.Pos, "the tag %s has no meaning here: take it out", tag)
			return v
		}
		v.Shape = List
		for _, item := range n.Content {
			if b.over {
				break
			}
			v.Items = append(v.Items, b.build(item, depth+1))
		}
	case yaml.MappingNode:
		if tag != "!!map" {
			b.Add(v.Pos, "the tag %s has no meaning here: take it out", tag)
			return v
		}
		v.Shape = Map
		b.entries(v, n, depth)
	default:
		b.Add(v.Pos, "this kind of YAML node has no meaning here")
	}
	return v
}

// scalar fills in v of a scalar node.
func (b *builder) scalar(v *Value, n *yaml.Node, tag string) {
	v.Raw, v.Text = n.Value, n.Value
	shape := shapeOf(tag)
	if shape == Broken {
		b.Add(v.Pos, "the tag %s has no meaning here: take it out", tag)
		return
	}
	resolved, ok := b.interpolate(v, n)
	if !ok {
		return
	}
	v.Shape = shape
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	v.Text = resolved
	if v.Variable && plain {
		v.Shape = resolve(resolved)
	}
}

// entries fills in a map. What is merged in by << comes behind, and gives way to keys that are written out.
func (b *builder) entries(v *Value, n *yaml.Node, depth int) {
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
			b.Add(pos, "a key must be a word")
			continue
		}
		if !b.room(pos) {
			return
		}
		if first, twice := seen[key.Value]; twice {
			b.Add(pos, "the key %q is there twice; the first is in line %d", key.Value, first.Line)
			continue
		}
		seen[key.Value] = pos
		v.Entries = append(v.Entries, Entry{Key: key.Value, Pos: pos, Value: b.build(val, depth+1)})
	}
	for _, m := range merges {
		b.merge(v, m, depth, seen)
	}
}

// merge adds the entries of what << names: a map, or a list of maps of which earlier ones win.
func (b *builder) merge(v *Value, n *yaml.Node, depth int, seen map[string]Pos) {
	from := b.build(n, depth)
	maps := []*Value{from}
	if from.Shape == List {
		maps = from.Items
	}
	for _, m := range maps {
		if m.Shape == Broken {
			continue
		}
		if m.Shape != Map {
			b.Add(b.file.pos(n.Line, n.Column), "<< merges a map or a list of maps, not %s", m.What())
			continue
		}
		for _, e := range m.Entries {
			if _, own := seen[e.Key]; !own {
				seen[e.Key] = e.Pos
				v.Entries = append(v.Entries, e)
			}
		}
	}
}
