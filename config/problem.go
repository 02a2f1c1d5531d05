package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a file. Line and Column count from 1; a column is a character.
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

// Error is all that is wrong with the file of a pipeline, in the order of the files.
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

// problems gathers what is wrong.
type problems struct {
	list  []Problem
	files map[string]int // in the order in which they were read
	more  int            // beyond maxProblems
}

func (c *problems) add(pos Pos, format string, args ...any) {
	if len(c.list) >= maxProblems {
		c.more++
		return
	}
	message := strings.NewReplacer("\n", " ", "\r", " ").Replace(fmt.Sprintf(format, args...))
	p := Problem{File: pos.File, Line: max(pos.Line, 1), Column: max(pos.Column, 1), Message: message}
	if !slices.Contains(c.list, p) { // what stands under an anchor is met once for each alias
		c.list = append(c.list, p)
	}
}

// count is how many problems there are.
func (c *problems) count() int { return len(c.list) + c.more }

// err is an *Error, or nil if nothing is wrong.
func (c *problems) err() error {
	if len(c.list) == 0 {
		return nil
	}
	slices.SortStableFunc(c.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(c.files[a.File], c.files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	out := slices.Clone(c.list)
	if c.more > 0 {
		last := out[len(out)-1]
		last.Message = fmt.Sprintf("%d more problems are not shown: mend these first", c.more)
		out = append(out, last)
	}
	return &Error{Problems: out}
}

// full says whether what is found from now on is only counted, so that nobody need look for suggestions.
func (c *problems) full() bool { return len(c.list) >= maxProblems }

// didYouMean names the word that is closest to a wrong one, if one is close. It does not look through more words than anybody reads.
func didYouMean(wrong string, known []string) string {
	if len(wrong) > 64 || len(known) > 512 {
		return ""
	}
	best, at := "", 3
	if len(wrong) <= 4 { // short words are all alike
		at = (len(wrong) + 1) / 2
	}
	for _, k := range slices.Sorted(slices.Values(known)) {
		if len(k) > 64 || max(len(k)-len(wrong), len(wrong)-len(k)) >= at {
			continue
		}
		if d := distance(wrong, k); d < at {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is how many characters must be put in, left out, changed or swapped with their neighbour to make a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
