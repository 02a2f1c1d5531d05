package yamltree

import (
	"bytes"
	"strings"
	"unicode/utf8"
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
