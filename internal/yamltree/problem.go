package yamltree

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a file. Line and Column count from 1; a column is a character. The zero value is no place.
type Pos struct {
	File         string
	Line, Column int
}

// String is the place as editors and terminals know it: file:line:column.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Problem is one thing that is wrong with a file.
type Problem struct {
	File         string
	Line, Column int    // from 1
	Message      string // what is wrong, and what to do
}

// String is the problem in one line.
func (p Problem) String() string {
	return Pos{File: p.File, Line: p.Line, Column: p.Column}.String() + ": " + p.Message
}

// Error is all that is wrong with some files, in the order of the files.
type Error struct{ Problems []Problem }

// Error lists the problems, one in a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxProblems bounds what one run reports: whoever has made so many mistakes has made one many times.
const maxProblems = 200

// Problems gathers what is wrong. It is for one goroutine.
type Problems struct {
	list  []Problem
	files map[string]int // in the order in which they are read
	more  int            // beyond maxProblems
	held  []string       // what variables stand for: it may be secret
}

// NewProblems gathers what is wrong with some files. Their order is that of the problems at the end.
func NewProblems(files ...string) *Problems {
	p := &Problems{files: make(map[string]int, len(files))}
	for i, name := range files {
		p.files[name] = i
	}
	return p
}

// shortest is the length from which on what a variable stands for is hidden: shorter text is in every other word.
const shortest = 6

// hold remembers what a variable stands for; see Hide.
func (p *Problems) hold(value string) {
	if len(value) >= shortest && !slices.Contains(p.held, value) {
		p.held = append(p.held, value)
	}
}

// Hide is a message of somebody who does not know of variables, with "..." for what they stand for.
func (p *Problems) Hide(message string) string {
	for _, value := range p.held {
		message = strings.ReplaceAll(message, value, "...")
	}
	return message
}

// Add notes a problem. Line breaks in the message become spaces. What is noted already is not noted again: what stands under an anchor is
// met once for each alias.
func (p *Problems) Add(pos Pos, format string, args ...any) {
	if len(p.list) >= maxProblems {
		p.more++
		return
	}
	message := strings.NewReplacer("\n", " ", "\r", " ").Replace(fmt.Sprintf(format, args...))
	one := Problem{File: pos.File, Line: max(pos.Line, 1), Column: max(pos.Column, 1), Message: message}
	if !slices.Contains(p.list, one) {
		p.list = append(p.list, one)
	}
}

// Count is how many problems there are, those included that are only counted.
func (p *Problems) Count() int { return len(p.list) + p.more }

// Full says whether what is found from now on is only counted, so that nobody need look for suggestions.
func (p *Problems) Full() bool { return len(p.list) >= maxProblems }

// Skip counts a problem for which nobody has made a message, since Full.
func (p *Problems) Skip() { p.more++ }

// List is all problems in the order of files and lines, the last with how many are not shown.
func (p *Problems) List() []Problem {
	out := slices.Clone(p.list)
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(p.files[a.File], p.files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if p.more > 0 && len(out) > 0 {
		last := out[len(out)-1]
		last.Message = fmt.Sprintf("%d more problems are not shown: mend these first", p.more)
		out = append(out, last)
	}
	return out
}

// Err is an [*Error] with the List, or nil if nothing is wrong.
func (p *Problems) Err() error {
	if len(p.list) == 0 {
		return nil
	}
	return &Error{Problems: p.List()}
}
