package pipetest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// matching pairs as many of m with n as can be, each with one for which is holds: for each of m its partner, or -1 (augmenting paths).
func matching(m, n int, is func(i, j int) bool) []int {
	pairs, owner := make([]int, m), make([]int, n)
	for i := range pairs {
		pairs[i] = -1
	}
	for j := range owner {
		owner[j] = -1
	}
	var try func(i int, seen []bool) bool
	try = func(i int, seen []bool) bool {
		for j := range n {
			if seen[j] || !is(i, j) {
				continue
			}
			seen[j] = true
			if owner[j] < 0 || try(owner[j], seen) {
				owner[j], pairs[i] = i, j
				return true
			}
		}
		return false
	}
	for i := range m {
		free := false
		for j := range n { // nearly always there is one at once
			if owner[j] < 0 && is(i, j) {
				owner[j], pairs[i], free = i, j, true
				break
			}
		}
		if !free && m*n <= maxTable {
			try(i, make([]bool, n))
		}
	}
	return pairs
}

// maxTable bounds the work of comparing two lists.
const maxTable = 1 << 22

// inOrder pairs as many of m with n as can be without crossing: for each of m its partner, or -1 (longest common subsequence).
func inOrder(m, n int, is func(i, j int) bool) []int {
	pairs := make([]int, m)
	lo, tail := 0, 0
	for ; lo < m && lo < n && is(lo, lo); lo++ {
		pairs[lo] = lo
	}
	for ; tail < m-lo && tail < n-lo && is(m-1-tail, n-1-tail); tail++ {
		pairs[m-1-tail] = n - 1 - tail
	}
	rows, cols := m-lo-tail, n-lo-tail
	for i := range rows {
		pairs[lo+i] = -1
	}
	if rows == 0 || cols == 0 {
		return pairs
	}
	if rows*cols > maxTable { // too much to look for the best: those at the same place
		for i := range min(rows, cols) {
			if is(lo+i, lo+i) {
				pairs[lo+i] = lo + i
			}
		}
		return pairs
	}
	table := make([]uint32, (rows+1)*(cols+1)) // of what is behind each place
	at := func(i, j int) *uint32 { return &table[i*(cols+1)+j] }
	same := make([]bool, rows*cols)
	for i := rows - 1; i >= 0; i-- {
		for j := cols - 1; j >= 0; j-- {
			if same[i*cols+j] = is(lo+i, lo+j); same[i*cols+j] {
				*at(i, j) = *at(i+1, j+1) + 1
			} else {
				*at(i, j) = max(*at(i+1, j), *at(i, j+1))
			}
		}
	}
	for i, j := 0, 0; i < rows && j < cols; {
		switch {
		case same[i*cols+j]:
			pairs[lo+i] = lo + j
			i, j = i+1, j+1
		case *at(i+1, j) >= *at(i, j+1):
			i++
		default:
			j++
		}
	}
	return pairs
}

// difference shows two lists of messages. Those that are as expected are only counted; of two that stand in the same place, the lines that
// differ are marked.
func difference(o *output, got []message, pairs []int) string {
	d := &diff{}
	if o.anyOrder {
		for i, p := range pairs {
			if p < 0 {
				d.message('-', "", o.messages[i].lines())
			}
		}
		for j := range got {
			if !slices.Contains(pairs, j) {
				d.message('+', "", got[j].lines(o.messages))
			}
		}
		return d.String()
	}
	i, j, same := 0, 0, 0
	for i < len(o.messages) || j < len(got) {
		if i < len(pairs) && pairs[i] == j {
			same, i, j = same+1, i+1, j+1
			continue
		}
		d.asExpected(&same)
		next := len(got) // where the next message stands that is as expected
		end := i
		for ; end < len(pairs); end++ {
			if pairs[end] >= 0 {
				next = pairs[end]
				break
			}
		}
		for ; i < end && j < next; i, j = i+1, j+1 {
			d.pair(fmt.Sprintf("message %d:", j+1), o.messages[i].lines(), got[j].lines(o.messages[i:i+1]))
		}
		for ; i < end; i++ {
			d.message('-', "missing:", o.messages[i].lines())
		}
		for ; j < next; j++ {
			d.message('+', fmt.Sprintf("message %d is not expected:", j+1), got[j].lines(o.messages))
		}
	}
	d.asExpected(&same)
	return d.String()
}

// lines is what is wanted, for people.
func (w *wanted) lines() []string {
	out := payloadLines(w.payload)
	if w.key != nil {
		out = append(out, "key: "+strconv.Quote(*w.key))
	}
	for _, h := range w.headers {
		out = append(out, fmt.Sprintf("header %s: %q", h.name, h.value))
	}
	return out
}

// lines is the message for people, with what those that it is compared with look at.
func (m *message) lines(with []wanted) []string {
	out := payloadLines(m.payload)
	if slices.ContainsFunc(with, func(w wanted) bool { return w.key != nil }) {
		out = append(out, "key: "+strconv.Quote(m.key))
	}
	for _, h := range m.headers {
		if slices.ContainsFunc(with, func(w wanted) bool {
			return slices.ContainsFunc(w.headers, func(other header) bool { return other.name == h.name })
		}) {
			out = append(out, fmt.Sprintf("header %s: %q", h.name, h.value))
		}
	}
	return out
}

// payloadLines is a payload for people.
func payloadLines(payload []byte) []string {
	const most = 16 << 10
	text, isJSON := canonical(payload)
	if !isJSON && (!utf8.Valid(payload) || len(payload) == 0 || strings.ContainsFunc(text, unprintable)) {
		text = strconv.Quote(text)
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return strings.Split(text, "\n")
}

func unprintable(r rune) bool { return r != '\n' && r != '\t' && !strconv.IsPrint(r) }

// diff gathers lines, each with a mark in front.
type diff struct {
	strings.Builder
	more int // lines beyond maxLines
	n    int
}

// maxLines bounds what is shown of one difference.
const maxLines = 400

func (d *diff) line(mark byte, text string) {
	if d.n++; d.n > maxLines {
		d.more++
		return
	}
	if d.Len() > 0 {
		d.WriteByte('\n')
	}
	d.WriteString(strings.TrimRight(string(mark)+" "+text, " "))
}

// String is all of it.
func (d *diff) String() string {
	if d.more > 0 {
		return d.Builder.String() + fmt.Sprintf("\n(%d more lines)", d.more)
	}
	return d.Builder.String()
}

func (d *diff) asExpected(n *int) {
	if *n > 0 {
		d.line(' ', fmt.Sprintf("(%s as expected)", messages(*n)))
	}
	*n = 0
}

// message shows one message that the other side does not have.
func (d *diff) message(mark byte, title string, lines []string) {
	if title != "" {
		d.line(' ', title)
	}
	for _, l := range lines {
		d.line(mark, l)
	}
}

// pair shows two messages that stand in the same place.
func (d *diff) pair(title string, want, got []string) {
	d.line(' ', title)
	pairs := inOrder(len(want), len(got), func(i, j int) bool { return undecorated(want[i]) == undecorated(got[j]) })
	j := 0
	for i, p := range pairs {
		if p < 0 {
			d.line('-', want[i])
			continue
		}
		for ; j < p; j++ {
			d.line('+', got[j])
		}
		d.line(' ', want[i])
		j++
	}
	for ; j < len(got); j++ {
		d.line('+', got[j])
	}
}

// undecorated is a line of JSON without the comma that only says that another follows.
func undecorated(line string) string { return strings.TrimSuffix(line, ",") }
