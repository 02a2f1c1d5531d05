package yamltree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Bounds on a file, so that none can take much memory or time.
const (
	MaxFile  = 1 << 20 // bytes of one file
	MaxNodes = 10_000  // values and keys of one file, with every alias counted as what it stands for
	MaxDepth = 32      // maps and lists inside each other
)

// Options is what reading depends on.
type Options struct {
	// Getenv is the value of a variable, and whether it is set. If it is nil, there are no variables: ${NAME} is text like any other.
	Getenv func(name string) (string, bool)
	Advice Advice
}

// Advice is the part of messages that depends on what a file is for.
type Advice struct {
	TooLarge string // goes on after "the file is larger than N bytes: "
	TooMany  string // goes on after "the file has more than N values and keys, ..."
	Empty    string // goes on after "the file is empty: "
	Second   string // goes on after "a second document begins here: "
	NotUTF8  string // is all that is said, in line 1; empty to name the first byte that is wrong and its place
}

// ReadFile reads a file for Parse. One of more than [MaxFile] bytes is an [*Error]; its size is looked at before anything is read.
func ReadFile(path string, a Advice) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened: opening a pipe waits for whoever writes to it
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: name one", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > MaxFile {
		p := NewProblems(path)
		p.Add(Pos{File: path}, tooLarge, MaxFile, a.TooLarge)
		return nil, p.Err()
	}
	return io.ReadAll(io.LimitReader(f, MaxFile+1)) // of what is no regular file, Parse refuses the rest
}

const tooLarge = "the file is larger than %d bytes: %s"

// Parse makes the value of the one document of a file. It returns nil if there is none, if a bound is passed or if the whole is Broken, and
// has then added why to p. Values inside may be Broken, which is in p too. The value does not hold on to text.
func Parse(name string, text []byte, p *Problems, o Options) *Value {
	b := &builder{Problems: p, file: &file{name: name, text: text}, advice: o.Advice, getenv: o.Getenv, open: map[*yaml.Node]bool{}}
	root := b.load()
	if root == nil {
		return nil
	}
	b.lines = bytes.Split(b.file.text, []byte("\n"))
	v := b.build(root, 0)
	if v.Shape == Null && !b.over {
		b.Add(v.Pos, "the file is empty: %s", o.Advice.Empty)
		return nil
	}
	if v.Shape == Broken || b.over {
		return nil
	}
	return v
}

// load makes a tree of nodes of the file, or says why not and returns nil.
func (b *builder) load() *yaml.Node {
	f := b.file
	at := Pos{f.name, 1, 1}
	if len(f.text) > MaxFile {
		b.Add(at, tooLarge, MaxFile, b.advice.TooLarge)
		return nil
	}
	f.text = bytes.TrimPrefix(f.text, []byte("\xef\xbb\xbf"))
	if !b.readable() {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(f.text), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(MaxDepth))))
	if err != nil {
		b.Add(at, "%v", err)
		return nil
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); err != nil && !errors.Is(err, io.EOF) {
		b.syntax(err)
		return nil
	}
	if len(doc.Content) != 1 {
		b.Add(at, "the file is empty: %s", b.advice.Empty)
		return nil
	}
	switch err := loader.Load(&more); {
	case errors.Is(err, io.EOF):
		return doc.Content[0]
	case err != nil:
		b.syntax(err)
	default:
		b.Add(f.pos(more.Line, more.Column), "a second document begins here: %s", b.advice.Second)
	}
	return nil
}

// readable refuses what is no text in UTF-8, with its place.
func (b *builder) readable() bool {
	if b.advice.NotUTF8 != "" && !utf8.Valid(b.file.text) {
		b.Add(Pos{b.file.name, 1, 1}, "%s", b.advice.NotUTF8)
		return false
	}
	line, column := 1, 1
	if bytes.HasPrefix(b.file.text, []byte("\xff\xfe")) || bytes.HasPrefix(b.file.text, []byte("\xfe\xff")) {
		b.Add(Pos{b.file.name, 1, 1}, "the file is in UTF-16: save it as UTF-8")
		return false
	}
	for i := 0; i < len(b.file.text); {
		r, size := utf8.DecodeRune(b.file.text[i:])
		pos := Pos{b.file.name, line, column}
		if r == utf8.RuneError && size == 1 {
			b.Add(pos, "byte 0x%02x is not UTF-8: save the file as UTF-8", b.file.text[i])
			return false
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0 && r != 0x85 {
			b.Add(pos, "control character 0x%02x: take it out, or write it in double quotes as \"\\x%02x\"", r, r)
			return false
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
		i += size
	}
	return true
}

// syntax reports what the YAML library says.
func (b *builder) syntax(err error) {
	pos := Pos{b.file.name, 1, 1}
	message := err.Error()
	var bad *yaml.LoadError
	if errors.As(err, &bad) {
		message = bad.Message
		if bad.ContextMsg != "" {
			message = bad.ContextMsg + ": " + message
		}
		if bad.Mark.Line > 0 {
			pos = b.file.pos(bad.Mark.Line, bad.Mark.Column)
		}
		if bad.ContextMark.Line > 0 && bad.ContextMark.Line < pos.Line {
			message += fmt.Sprintf(" (it began in line %d)", bad.ContextMark.Line)
		}
	}
	if strings.Contains(message, "max depth") {
		b.Add(pos, "maps and lists are nested more than %d deep", MaxDepth)
		return
	}
	b.Add(pos, "this is not YAML: %s%s", message, b.hint(pos, message))
}

// hint says what often is behind a syntax error.
func (b *builder) hint(pos Pos, message string) string {
	line := textLine(b.file.text, pos.Line)
	switch {
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		return ": indent with spaces, not with tabs"
	case b.getenv != nil && strings.Contains(line, "${") && strings.Contains(message, "flow"):
		return `: inside { } and [ ] a variable must stand in quotes, as in "${NAME}"`
	case strings.Contains(message, "cannot start any token"):
		return ": put a value that begins with a special character in quotes"
	case strings.Contains(message, "mapping values are not allowed"):
		return ": check the indentation, and put a value with a colon in quotes"
	}
	return ""
}
