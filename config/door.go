package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Bounds on a file, so that none can take much memory or time.
const (
	maxFile  = 1 << 20 // bytes of one file
	maxFiles = 256     // of a directory
	maxNodes = 10_000  // values and keys of one file, with every alias counted as what it stands for
	maxDepth = 32      // maps and lists inside each other
)

// file is the text of one file.
type file struct {
	name string
	text []byte
	n    int // lines, once they have been counted
}

// pos is a place in the file. The library puts what is missing at the end into the line that would come next; that is the end of the last.
func (f *file) pos(line, column int) Pos {
	if f.n == 0 {
		f.n = countLines(f.text)
	}
	if line > f.n {
		line, column = f.n, utf8.RuneCountInString(textLine(f.text, f.n))+1
	}
	return Pos{f.name, max(line, 1), max(column, 1)}
}

// isTest says whether a file holds tests of a pipeline instead of a part of it.
func isTest(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, filepath.Ext(name)), "_test")
}

// paths is the files that a path stands for: itself, or all files of a directory in the order of their names.
func paths(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer dir.Close()
	var out []string
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			ext := filepath.Ext(name)
			if (ext != ".yaml" && ext != ".yml") || isTest(name) || strings.HasPrefix(name, ".") {
				continue
			}
			if out = append(out, filepath.Join(path, name)); len(out) > maxFiles {
				return nil, fmt.Errorf("config: %s has more than %d files that end in .yaml or .yml: give a directory of its own", path, maxFiles)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("config: %s has no file that ends in .yaml or .yml (a name that ends in _test.yaml is a test): "+
			"give the path of a file, or add one", path)
	}
	slices.Sort(out)
	return out, nil
}

// readFile reads a file that is not too large. Its size is looked at before anything is read.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if info.Mode().IsRegular() && info.Size() > maxFile {
		return nil, &Error{Problems: []Problem{tooLarge(path)}}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return text, nil
}

func tooLarge(name string) Problem {
	return Problem{File: name, Line: 1, Column: 1, Message: fmt.Sprintf("the file is larger than %d bytes: "+
		"is it the file of a pipeline? A large pipeline can be parted into several files of one directory", maxFile)}
}

// parse makes a tree of nodes of a file, or says why not. It returns nil if something is wrong.
func (c *problems) parse(f *file) *yaml.Node {
	at := Pos{File: f.name, Line: 1, Column: 1}
	if len(f.text) > maxFile {
		c.list = append(c.list, tooLarge(f.name))
		return nil
	}
	f.text = bytes.TrimPrefix(f.text, []byte("\xef\xbb\xbf"))
	if !c.readable(f) {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(f.text), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		c.add(at, "%v", err)
		return nil
	}
	var doc, more yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		c.add(at, "the file is empty: it needs sources, and plugins or sinks that read them; `penstock new pipeline` writes an example")
		return nil
	case err != nil:
		c.syntax(f, err)
		return nil
	case len(doc.Content) != 1:
		c.add(at, "the file holds no YAML document")
		return nil
	}
	if err := loader.Load(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			c.syntax(f, err)
			return nil
		}
		c.add(f.pos(more.Line, more.Column), "a second document begins here: put one pipeline in a file, without lines of ---")
		return nil
	}
	return doc.Content[0]
}

// readable refuses what is no text in UTF-8, with its place.
func (c *problems) readable(f *file) bool {
	line, column := 1, 1
	if bytes.HasPrefix(f.text, []byte("\xff\xfe")) || bytes.HasPrefix(f.text, []byte("\xfe\xff")) {
		c.add(Pos{f.name, 1, 1}, "the file is in UTF-16: save it as UTF-8")
		return false
	}
	for i := 0; i < len(f.text); {
		r, size := utf8.DecodeRune(f.text[i:])
		pos := Pos{f.name, line, column}
		if r == utf8.RuneError && size == 1 {
			c.add(pos, "byte 0x%02x is not UTF-8: save the file as UTF-8", f.text[i])
			return false
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0 && r != 0x85 {
			c.add(pos, "control character 0x%02x: take it out, or write it in double quotes as \"\\x%02x\"", r, r)
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
func (c *problems) syntax(f *file, err error) {
	pos := Pos{f.name, 1, 1}
	message := err.Error()
	var bad *yaml.LoadError
	if errors.As(err, &bad) {
		message = bad.Message
		if bad.ContextMsg != "" {
			message = bad.ContextMsg + ": " + message
		}
		if bad.Mark.Line > 0 {
			pos = f.pos(bad.Mark.Line, bad.Mark.Column)
		}
		if bad.ContextMark.Line > 0 && bad.ContextMark.Line < pos.Line {
			message += fmt.Sprintf(" (it began in line %d)", bad.ContextMark.Line)
		}
	}
	if strings.Contains(message, "max depth") {
		c.add(pos, "maps and lists are nested more than %d deep", maxDepth)
		return
	}
	c.add(pos, "this is not YAML: %s%s", message, hint(f.text, pos, message))
}

// hint says what often is behind a syntax error.
func hint(text []byte, pos Pos, message string) string {
	line := textLine(text, pos.Line)
	switch {
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		return ": indent with spaces, not with tabs"
	case strings.Contains(line, "${") && strings.Contains(message, "flow"):
		return `: inside { } and [ ] a variable must stand in quotes, as in "${NAME}"`
	case strings.Contains(message, "cannot start any token"):
		return ": put a value that begins with a special character in quotes"
	case strings.Contains(message, "mapping values are not allowed"):
		return ": check the indentation, and put a value with a colon in quotes"
	}
	return ""
}

// countLines is the number of lines that an editor shows at the most; some do not break a line at all that YAML does.
func countLines(text []byte) int {
	n := 0
	for _, end := range [...]string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		n += bytes.Count(text, []byte(end))
	}
	n -= bytes.Count(text, []byte("\r\n"))
	if len(text) == 0 || text[len(text)-1] != '\n' {
		n++
	}
	return max(n, 1)
}

// textLine is a line of the text, without its end. Lines count from 1.
func textLine(text []byte, line int) string {
	n := 1
	for l := range bytes.Lines(text) {
		if n == line {
			return strings.TrimRight(string(l), "\r\n")
		}
		n++
	}
	return ""
}
