package yamltree

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const (
	maxFilled = 1 << 20 // bytes that the variables of one file may stand for
	maxWrong  = 20      // variables of one scalar that are reported
)

// interpolate is the text of a scalar with its variables filled in: ${NAME}, ${NAME:-default}, and $${ for ${. What a variable holds is
// text and nothing else; it is not looked at again. Without getenv all text stays as it is. It is false if something is wrong, which it
// has reported.
func (b *builder) interpolate(v *Value, n *yaml.Node) (string, bool) {
	rest := n.Value
	if b.getenv == nil || !strings.Contains(rest, "${") {
		return rest, true
	}
	var out strings.Builder
	wrong := 0
	for nth := 0; wrong < maxWrong; nth++ {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			out.WriteString(rest)
			break
		}
		if escaped, is := strings.CutSuffix(before, "$"); is {
			out.WriteString(escaped + "${")
			rest = after
			continue
		}
		out.WriteString(before)
		inner, behind, closed := strings.Cut(after, "}")
		if !closed {
			b.Add(b.place(n, nth, after), "${ without a }: write ${NAME}, or $${ for the two characters themselves")
			return "", false
		}
		filled, err := b.variable(inner)
		if err != nil {
			b.Add(b.place(n, nth, inner), "%v", err)
			wrong++
		}
		if b.filled += len(filled); b.filled > maxFilled {
			b.Add(v.Pos, "the variables of this file stand for more than %d bytes", maxFilled)
			return "", false
		}
		out.WriteString(filled)
		v.Variable = true
		rest = behind
	}
	return out.String(), wrong == 0
}

// variable is what stands for ${inner}.
func (b *builder) variable(inner string) (string, error) {
	name, preset, optional := strings.Cut(inner, ":-")
	switch {
	case strings.Contains(inner, "${"):
		return "", fmt.Errorf("${%s}: a variable cannot stand inside of another", inner)
	case !variableName.MatchString(name):
		return "", fmt.Errorf("${%s}: a variable's name has letters, digits and _ only, and does not begin with a digit; "+
			"write ${NAME} or ${NAME:-default}, or $${ for the two characters themselves", inner)
	}
	held, set := b.getenv(name)
	b.hold(held)
	switch {
	case optional && held == "": // as in a shell, which takes the default for an empty one too
		return preset, nil
	case !set:
		return "", fmt.Errorf("the variable %s is not set: set it, or give a default as in ${%s:-default}", name, name)
	case !utf8.ValidString(held):
		return "", fmt.Errorf("the variable %s does not hold text in UTF-8", name)
	}
	return held, nil
}

// place is where the nth "${" of a scalar stands in the file; then comes after. Where that cannot be told, it is where the scalar begins.
func (b *builder) place(n *yaml.Node, nth int, after string) Pos {
	pos := b.file.pos(n.Line, n.Column)
	if i := strings.IndexByte(after, '\n'); i >= 0 {
		after = after[:i]
	}
	line, skip := n.Line, n.Column-1
	look := 1024 + 8*len(n.Value) // bytes; a scalar may be written with escapes and indented
	for ; line >= 1 && line <= len(b.lines) && look > 0; line++ {
		l := b.lines[line-1]
		look -= len(l) + 1
		from := 0
		for ; skip > 0 && from < len(l); skip-- {
			_, size := utf8.DecodeRune(l[from:])
			from += size
		}
		skip = 0
		for {
			i := bytes.Index(l[from:], []byte("${"))
			if i < 0 {
				break
			}
			from += i
			if nth == 0 {
				if bytes.HasPrefix(l[from+2:], []byte(after)) {
					pos.Line, pos.Column = line, utf8.RuneCount(l[:from])+1
				}
				return pos
			}
			nth--
			from += 2
		}
	}
	return pos
}
