package expr

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Rewrite changes some fields of a JSON object and leaves all else as it stands: the order of its members, and its numbers to the digit.
// It may be used concurrently.
type Rewrite struct{ root edit }

// edit is what is to be done with one member.
type edit struct {
	name     string
	set      *Program
	remove   bool
	children []*edit
}

// Set gives the field that path leads to the value of p. Objects on the way are made where they are missing. It fails if another change is
// at that field, or above or below it.
func (r *Rewrite) Set(path []string, p *Program) error { return r.add(path, edit{set: p}) }

// Remove takes the field that path leads to away. It fails as Set does.
func (r *Rewrite) Remove(path []string) error { return r.add(path, edit{remove: true}) }

func (r *Rewrite) add(path []string, change edit) error {
	if len(path) == 0 || slices.Contains(path, "") {
		return fmt.Errorf("%q is not a path: write names with dots between them, as in user.name", strings.Join(path, "."))
	}
	if len(path) > MaxDepth {
		return fmt.Errorf("the path has %d names: at most %d", len(path), MaxDepth)
	}
	at := &r.root
	for _, name := range path {
		if at.set != nil || at.remove {
			return fmt.Errorf("%q lies within %q, which is changed as a whole", strings.Join(path, "."), at.name)
		}
		i := slices.IndexFunc(at.children, func(e *edit) bool { return e.name == name })
		if i < 0 {
			i = len(at.children)
			at.children = append(at.children, &edit{name: name})
		}
		at = at.children[i]
	}
	if at.set != nil || at.remove || len(at.children) > 0 {
		return fmt.Errorf("%q is changed twice, as a whole or in part", strings.Join(path, "."))
	}
	at.set, at.remove = change.set, change.remove
	return nil
}

// Append appends the changed payload of in to dst. All expressions see the message as it came. The error wraps an [*EvalError]; dst then
// comes back as it was.
func (r *Rewrite) Append(dst []byte, in *Input) ([]byte, error) {
	if !json.Valid(in.payload) {
		return dst, &EvalError{Reason: malformed(in.payload)}
	}
	from := skipSpace(in.payload, 0)
	if in.payload[from] != '{' {
		return dst, &EvalError{Reason: "the payload is not a JSON object, so it has no fields to change"}
	}
	out, err := r.root.object(dst, in, from)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// object appends the object at offset i of the payload, changed; with i < 0 an empty one.
func (e *edit) object(dst []byte, in *Input, i int) ([]byte, error) {
	b := in.payload
	var few [16]bool
	done := append(few[:0], make([]bool, len(e.children))...)
	dst = append(dst, '{')
	first := true
	comma := func() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
	}
	var err error
	if i >= 0 {
		for i = skipSpace(b, i+1); b[i] != '}'; {
			name := b[i:stringEnd(b, i)]
			value := skipSpace(b, skipSpace(b, i+len(name))+1)
			end := skipValue(b, value)
			c := slices.IndexFunc(e.children, func(c *edit) bool { return sameName(name[1:len(name)-1], c.name) })
			switch {
			case c < 0:
				comma()
				dst = append(append(append(dst, name...), ':'), b[value:end]...)
			case done[c] || e.children[c].remove:
			default:
				comma()
				if dst, err = e.children[c].member(append(append(dst, name...), ':'), in, value); err != nil {
					return dst, err
				}
			}
			if c >= 0 {
				done[c] = true
			}
			if i = skipSpace(b, end); b[i] == ',' {
				i = skipSpace(b, i+1)
			}
		}
	}
	for c, child := range e.children {
		if !done[c] && child.sets() {
			comma()
			if dst, err = child.member(append(appendString(dst, child.name), ':'), in, -1); err != nil {
				return dst, err
			}
		}
	}
	return append(dst, '}'), nil
}

// member appends the changed value of a member, which stands at offset i, or nowhere if i < 0.
func (e *edit) member(dst []byte, in *Input, i int) ([]byte, error) {
	if e.set != nil {
		out, err := e.set.AppendJSON(dst, in)
		if err != nil {
			return dst, fmt.Errorf("%s: %w", e.name, err)
		}
		return out, nil
	}
	if i >= 0 && in.payload[i] != '{' {
		if !e.sets() { // nothing in it that could be removed
			return append(dst, in.payload[i:skipValue(in.payload, i)]...), nil
		}
		i = -1
	}
	return e.object(dst, in, i)
}

// sets says whether e, or something below it, gives a value.
func (e *edit) sets() bool { return e.set != nil || slices.ContainsFunc(e.children, (*edit).sets) }
