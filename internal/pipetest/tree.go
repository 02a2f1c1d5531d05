package pipetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Bounds on a file, as those of a pipeline's.
const (
	maxFile  = 1 << 20 // bytes
	maxNodes = 10_000  // values and keys, with every alias counted as what it stands for
	maxDepth = 32      // maps and lists inside each other
)

// place is a place in the file, from 1.
type place struct{ line, column int }

// value is a node of the file with aliases and merge keys resolved.
type value struct {
	place
	tag     string // short, as in !!str; "" if something is wrong with it, and that has been reported
	text    string // of a scalar
	items   []*value
	entries []entry
}

type entry struct {
	place
	key string
	val *value
}

// what describes a value for people.
func (v *value) what() string {
	switch v.tag {
	case "!!null":
		return "nothing"
	case "!!seq":
		return "a list"
	case "!!map":
		return "a map"
	case "!!str":
		return "the text " + strconv.Quote(short(v.text))
	default:
		return short(v.text)
	}
}

func short(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// readFile reads a file that is not too large. Its size is looked at before anything is read.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tests: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > maxFile {
		return make([]byte, maxFile+1), nil // what it holds does not matter
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("tests: %s: %w", path, err)
	}
	return text, nil
}

// tree makes the value of a whole file, or reports why not and returns nil.
func (r *reader) tree(text []byte) *value {
	first := place{1, 1}
	switch {
	case len(text) > maxFile:
		r.bad(first, "the file is larger than %d bytes: part it into several", maxFile)
		return nil
	case bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) || !utf8.Valid(text):
		r.bad(first, "the file is not UTF-8: save it as UTF-8")
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		r.bad(first, "%v", err)
		return nil
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); err != nil || len(doc.Content) != 1 {
		if err == nil || errors.Is(err, io.EOF) {
			r.bad(first, "the file is empty: it needs tests")
		} else {
			r.syntax(err)
		}
		return nil
	}
	if err := loader.Load(&more); err == nil {
		r.bad(place{more.Line, more.Column}, "a second document begins here: take out the line of ---")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	b := builder{reader: r, open: map[*yaml.Node]bool{}}
	return b.build(doc.Content[0], 0)
}

// syntax reports what the YAML library says.
func (r *reader) syntax(err error) {
	at, message := place{1, 1}, err.Error()
	var bad *yaml.LoadError
	if errors.As(err, &bad) {
		message = bad.Message
		if bad.Mark.Line > 0 {
			at = place{bad.Mark.Line, bad.Mark.Column}
		}
	}
	if strings.Contains(message, "max depth") {
		r.bad(at, "maps and lists are nested more than %d deep", maxDepth)
		return
	}
	r.bad(at, "this is not YAML: %s", message)
}

// builder makes values of nodes.
type builder struct {
	*reader
	nodes int
	over  bool
	open  map[*yaml.Node]bool // anchors around the node in hand
}

// room counts one more value or key, and says whether that is still allowed.
func (b *builder) room(at place) bool {
	if b.nodes++; b.nodes > maxNodes && !b.over {
		b.over = true
		b.bad(at, "the file has more than %d values and keys, with each alias counted as what it stands for: part it into several", maxNodes)
	}
	return !b.over
}

func (b *builder) build(n *yaml.Node, depth int) *value {
	v := &value{place: place{n.Line, n.Column}}
	if !b.room(v.place) {
		return v
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias == nil || b.open[n.Alias] {
			b.bad(v.place, "the alias *%s is inside of what it stands for", n.Value)
			return v
		}
		return b.build(n.Alias, depth)
	}
	if depth > maxDepth {
		b.bad(v.place, "maps and lists are nested more than %d deep", maxDepth)
		return v
	}
	b.open[n] = true
	defer delete(b.open, n)
	switch tag := n.ShortTag(); tag {
	case "!!seq":
		v.tag = tag
		for _, item := range n.Content {
			if b.over {
				break
			}
			v.items = append(v.items, b.build(item, depth+1))
		}
	case "!!map":
		v.tag = tag
		b.entries(v, n, depth)
	case "!!null", "!!bool", "!!int", "!!float", "!!str":
		v.tag, v.text = tag, n.Value
	case "!!timestamp", "!!merge":
		v.tag, v.text = "!!str", n.Value
	default:
		b.bad(v.place, "the tag %s has no meaning here: take it out", tag)
	}
	return v
}

// entries fills in a map. What << merges in gives way to keys that are written out.
func (b *builder) entries(v *value, n *yaml.Node, depth int) {
	seen := map[string]bool{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content) && !b.over; i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at := place{key.Line, key.Column}
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, val)
			continue
		}
		if key.Kind == yaml.AliasNode && key.Alias != nil {
			key = key.Alias
		}
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null":
			b.bad(at, "a key must be a word")
		case seen[key.Value]:
			b.bad(at, "the key %q is there twice", key.Value)
		case b.room(at):
			seen[key.Value] = true
			v.entries = append(v.entries, entry{at, key.Value, b.build(val, depth+1)})
		}
	}
	for _, m := range merges {
		from := b.build(m, depth+1)
		all := []*value{from}
		if from.tag == "!!seq" {
			all = from.items
		}
		for _, one := range all {
			if one.tag != "!!map" && one.tag != "" {
				b.bad(one.place, "<< merges a map or a list of maps, not %s", one.what())
			}
			for _, e := range one.entries {
				if !seen[e.key] {
					seen[e.key] = true
					v.entries = append(v.entries, e)
				}
			}
		}
	}
}

// payload is the bytes of a message: text as it is, anything else as JSON.
func (r *reader) payload(v *value) []byte {
	switch v.tag {
	case "":
		return nil
	case "!!str":
		return []byte(v.text)
	case "!!null":
		r.bad(v.place, `want a message: text, or a map or list that stands for JSON; an empty one is ""`)
		return nil
	}
	return r.json(nil, v)
}

// json appends v as JSON, with keys in the order of the file and numbers as they are written.
func (r *reader) json(out []byte, v *value) []byte {
	switch v.tag {
	case "!!null":
		return append(out, "null"...)
	case "!!bool":
		return append(out, strings.ToLower(v.text)...)
	case "!!int", "!!float":
		return append(out, r.number(v)...)
	case "!!seq":
		out = append(out, '[')
		for i, item := range v.items {
			if i > 0 {
				out = append(out, ',')
			}
			out = r.json(out, item)
		}
		return append(out, ']')
	case "!!map":
		out = append(out, '{')
		for i, e := range v.entries {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(appendString(out, e.key), ':')
			out = r.json(out, e.val)
		}
		return append(out, '}')
	case "!!str":
		return appendString(out, v.text)
	}
	return append(out, "null"...) // something is wrong with it, and that has been reported
}

func appendString(out []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string can always be encoded
	}
	return append(out, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// number is a number as JSON has it.
func (r *reader) number(v *value) string {
	if json.Valid([]byte(v.text)) {
		return v.text
	}
	plain := strings.ReplaceAll(v.text, "_", "")
	if n, err := strconv.ParseInt(plain, 0, 64); err == nil && v.tag == "!!int" {
		return strconv.FormatInt(n, 10)
	}
	if f, err := strconv.ParseFloat(plain, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	r.bad(v.place, "want a number that JSON can hold, got %s", v.text)
	return "null"
}
