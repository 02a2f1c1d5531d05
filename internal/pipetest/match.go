package pipetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/deadletter"
)

// verify holds what has come out against what was expected.
func (x *script) verify() {
	x.mu.Lock()
	for _, f := range x.faults {
		x.failed(x.test.at, "%s", f)
	}
	x.mu.Unlock()
	for _, o := range x.test.out {
		x.output(o)
	}
	x.letters()
	have := figures(x.summary)
	for _, c := range x.test.counts {
		if have[c.name] != c.want {
			x.failed(c.at, "counts: %s is %d, want %d", c.name, have[c.name], c.want)
		}
	}
}

// figures are what counts can name.
func figures(s penstock.Summary) map[string]uint64 {
	m := map[string]uint64{
		"accepted": s.Accepted, "settled": s.Settled, "retried": s.Retried, "held": s.Held, "dead": s.Dead, "dropped": s.Dropped, "bad": s.Bad,
	}
	for _, r := range s.Rows {
		m["lapsed"] += r.Lapsed
		m["panics"] += r.Panics
		m["overdue"] += r.Overdue
	}
	return m
}

func countNames() []string {
	return []string{"accepted", "bad", "dead", "dropped", "held", "lapsed", "overdue", "panics", "retried", "settled"}
}

// canonical is a payload in the one form that all equal ones have, on several lines where it is JSON.
func canonical(payload []byte) (text string, isJSON bool) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var v any
	if !json.Valid(payload) || d.Decode(&v) != nil {
		return string(payload), false
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(numbers(v)); err != nil {
		return string(payload), false
	}
	return strings.TrimSuffix(b.String(), "\n"), true
}

// numbers writes all numbers in one way: 60, 60.0 and 6e1 are equal.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			if v == "-0" {
				return json.Number("0")
			}
			return v
		}
		f, err := v.Float64()
		switch {
		case err != nil:
			return v
		case f == math.Trunc(f) && math.Abs(f) < 1<<53:
			return json.Number(strconv.FormatInt(int64(f), 10))
		}
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// form is a payload made ready to be compared: JSON as JSON, text as text.
type form struct {
	text   string // canonical
	isJSON bool
}

func formOf(payload []byte) form {
	text, isJSON := canonical(payload)
	return form{text, isJSON}
}

// is says whether a message is the one that is wanted.
func (w *wanted) is(m *message) bool {
	if w.form != m.form || w.key != nil && *w.key != m.key {
		return false
	}
	for _, h := range w.headers {
		if !slices.Contains(m.headers, h) {
			return false
		}
	}
	return true
}

// output compares the messages of one sink or stream.
func (x *script) output(o *output) {
	got, more := x.got(o.name)
	for i := range o.messages {
		o.messages[i].form = formOf(o.messages[i].payload)
	}
	for j := range got {
		got[j].form = formOf(got[j].payload)
	}
	is := func(i, j int) bool { return o.messages[i].is(&got[j]) }
	var pairs []int
	if o.anyOrder {
		pairs = matching(len(o.messages), len(got), is)
	} else {
		pairs = inOrder(len(o.messages), len(got), is)
	}
	missing := count0(pairs)
	if missing == 0 && len(got) == len(o.messages) && more == 0 {
		return
	}
	at := o.at
	if i := slices.Index(pairs, -1); i >= 0 {
		at = o.messages[i].at
	}
	text := difference(o, got, pairs)
	if more > 0 {
		text += fmt.Sprintf("\n(and %d more messages, which were not kept)", more)
	}
	x.failed(at, "%s: want %s, got %s (- expected, + got)\n%s", o.name, messages(len(o.messages)), messages(len(got)+more), text)
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

func count0(pairs []int) (n int) {
	for _, p := range pairs {
		if p < 0 {
			n++
		}
	}
	return n
}

// letters compares the dead letters. Where a test says nothing of them, there may be none.
func (x *script) letters() {
	got := x.graves.all()
	want := x.test.dead
	if want == nil {
		if slices.ContainsFunc(x.test.counts, func(c count) bool { return c.name == "dead" }) {
			return
		}
		want = &letters{at: x.test.at}
	}
	pairs := matching(len(want.each), len(got), func(i, j int) bool { return want.each[i].is(&got[j]) })
	at := want.at
	var b strings.Builder
	for i, p := range pairs {
		if p < 0 {
			if b.Len() == 0 {
				at = want.each[i].at
			}
			b.WriteString("\n- " + want.each[i].String())
		}
	}
	for j := range got {
		if !slices.Contains(pairs, j) {
			b.WriteString("\n+ " + epitaph(&got[j]))
		}
	}
	if b.Len() > 0 {
		x.failed(at, "dead letters: want %d, got %d (- expected, + got)%s", len(want.each), len(got), b.String())
	}
}

// is says whether a dead letter is the one that is wanted.
func (w *letter) is(l *deadletter.Letter) bool {
	return (w.plugin == "" || w.plugin == l.Plugin) && (w.source == "" || w.source == l.Source) && (w.stream == "" || w.stream == l.Stream) &&
		strings.Contains(l.Reason, w.reason) && (w.attempts == 0 || w.attempts == l.Attempts) &&
		(w.payload == nil || formOf(w.payload) == formOf(l.Payload))
}

// String is the letter in one line.
func (w *letter) String() string {
	var out []string
	for _, part := range []struct{ name, value string }{{"plugin", w.plugin}, {"source", w.source}, {"stream", w.stream}, {"reason", w.reason}} {
		if part.value != "" {
			out = append(out, fmt.Sprintf("%s %q", part.name, part.value))
		}
	}
	if w.attempts > 0 {
		out = append(out, fmt.Sprintf("attempts %d", w.attempts))
	}
	if w.payload != nil {
		out = append(out, "payload "+oneLine(w.payload))
	}
	if len(out) == 0 {
		return "any letter"
	}
	return strings.Join(out, ", ")
}

func epitaph(l *deadletter.Letter) string {
	w := letter{plugin: l.Plugin, source: l.Source, stream: l.Stream, reason: firstLine(l.Reason), attempts: l.Attempts, payload: l.Payload}
	if w.payload == nil {
		w.payload = []byte{}
	}
	return w.String()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// oneLine is a payload for people, in one line.
func oneLine(payload []byte) string {
	const most = 400
	var b bytes.Buffer
	if json.Compact(&b, payload) != nil || !utf8.Valid(payload) {
		b.Reset()
		b.WriteString(strconv.Quote(string(payload)))
	}
	if b.Len() > most {
		return strings.ToValidUTF8(b.String()[:most], "") + "..."
	}
	return b.String()
}
