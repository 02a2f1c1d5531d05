package pipetest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/config"
)

// file is a file of tests as it is written.
type file struct {
	pipeline string
	at       place // of pipeline
	env      map[string]string
	within   time.Duration
	tests    []*test
}

// test is one test.
type test struct {
	name   string
	at     place
	within time.Duration // virtual time after the last input by which all is settled
	steps  []*step
	out    []*output
	dead   *letters // nil: nothing is said about dead letters
	counts []count
}

// step is a message that comes in, or time that passes.
type step struct {
	at      place
	wait    time.Duration // 0: a message
	source  string        // empty for the only one there is
	from    place         // of source
	payload []byte
	key     string
	headers []header
}

type header struct{ name, value string }

// output is what is expected of a sink or a stream.
type output struct {
	at       place // of the name
	name     string
	anyOrder bool
	messages []wanted
}

// wanted is a message that is expected. Key and headers count where they are given.
type wanted struct {
	at      place
	payload []byte
	key     *string
	headers []header
	form    form // of payload, once it is compared
}

// letters is the dead letters that are expected, in any order.
type letters struct {
	at   place
	each []letter
}

// letter is a dead letter that is expected. What is not given may be anything.
type letter struct {
	at                             place
	plugin, source, stream, reason string // reason is a part of it
	pluginAt, sourceAt, streamAt   place
	attempts                       int
	payload                        []byte // nil if it is not given
}

type count struct {
	at   place
	name string
	want uint64
}

// reader makes a file of its text, and gathers what is wrong.
type reader struct {
	name     string
	problems []config.Problem
	more     int
}

const maxProblems = 200

func (r *reader) bad(at place, format string, args ...any) {
	message := strings.NewReplacer("\n", " ", "\r", " ").Replace(fmt.Sprintf(format, args...))
	p := config.Problem{File: r.name, Line: max(at.line, 1), Column: max(at.column, 1), Message: message}
	switch {
	case slices.Contains(r.problems, p): // what stands under an anchor is met once for each alias
	case len(r.problems) < maxProblems:
		r.problems = append(r.problems, p)
	default:
		r.more++
	}
}

// field reads one key of a map.
type field struct {
	key      string
	required bool
	read     func(v *value)
}

// object reads a map with fixed keys.
func (r *reader) object(v *value, what string, fields ...field) bool {
	if !r.is(v, "!!map", what, "a map") {
		return false
	}
	var known []string
	for _, f := range fields {
		known = append(known, f.key)
	}
	there := map[string]bool{}
	for _, e := range v.entries {
		i := slices.Index(known, e.key)
		if i < 0 {
			r.bad(e.place, "%s: unknown key %q%s", what, e.key, r.suggest(e.key, known))
			continue
		}
		there[e.key] = true
		if e.val.tag != "" {
			fields[i].read(e.val)
		}
	}
	for _, f := range fields {
		if f.required && !there[f.key] {
			r.bad(v.place, "%s: the key %q is missing: add it", what, f.key)
		}
	}
	return true
}

// is reports a value that is not of the kind that is wanted.
func (r *reader) is(v *value, tag, what, want string) bool {
	if v.tag != tag && v.tag != "" {
		help := ""
		switch {
		case tag == "!!str" && v.items == nil && v.entries == nil && v.tag != "!!null":
			help = ": put it in quotes"
		case tag == "!!seq":
			help = ": put it in brackets, or in lines that begin with -"
		}
		r.bad(v.place, "%s: want %s, got %s%s", what, want, v.what(), help)
	}
	return v.tag == tag
}

func (r *reader) text(v *value, what string) string {
	if !r.is(v, "!!str", what, "text") {
		return ""
	}
	return v.text
}

func (r *reader) duration(v *value, what string) time.Duration {
	d, err := time.ParseDuration(v.text)
	if v.tag != "!!str" || err != nil || d <= 0 || d > maxWait {
		r.bad(v.place, "%s: want a duration such as 30s, of at most %v, got %s", what, maxWait, v.what())
		return 0
	}
	return d
}

const maxWait = 10_000 * time.Hour

func (r *reader) boolean(v *value, what string) bool {
	return r.is(v, "!!bool", what, "true or false") && strings.EqualFold(v.text, "true")
}

func (r *reader) integer(v *value, what string) uint64 {
	n, err := strconv.ParseUint(v.text, 10, 63)
	if v.tag != "!!int" || err != nil {
		r.bad(v.place, "%s: want a number from 0 up, got %s", what, v.what())
	}
	return n
}

// list calls each for the items of a list.
func (r *reader) list(v *value, what string, each func(v *value)) {
	if !r.is(v, "!!seq", what, "a list") {
		return
	}
	for _, item := range v.items {
		if item.tag != "" {
			each(item)
		}
	}
}

// words reads a map from words to text.
func (r *reader) words(v *value, what string, each func(at place, name, text string)) {
	if !r.is(v, "!!map", what, "a map of text") {
		return
	}
	for _, e := range v.entries {
		each(e.place, e.key, r.text(e.val, what+": "+e.key))
	}
}

// parse reads a file of tests.
func (r *reader) parse(text []byte) *file {
	f := &file{pipeline: "penstock.yaml", at: place{1, 1}, env: map[string]string{}, within: defaultWithin}
	root := r.tree(text)
	if root == nil || root.tag == "" {
		return f
	}
	if root.tag == "!!null" {
		r.bad(root.place, "the file is empty: it needs tests")
		return f
	}
	var tests *value
	r.object(root, "the file",
		field{"pipeline", false, func(v *value) {
			if f.pipeline, f.at = r.text(v, "pipeline"), v.place; f.pipeline == "" && v.tag == "!!str" {
				r.bad(v.place, "pipeline: want the path of a pipeline, from this file on")
			}
		}},
		field{"env", false, func(v *value) {
			r.words(v, "env", func(_ place, name, text string) { f.env[name] = text })
		}},
		field{"within", false, func(v *value) { f.within = r.duration(v, "within") }},
		field{"tests", true, func(v *value) { tests = v }},
	)
	if tests == nil {
		return f
	}
	names := map[string]place{}
	r.list(tests, "tests", func(v *value) {
		t := r.test(v, f.within)
		if first, twice := names[t.name]; twice && t.name != "" {
			r.bad(t.at, "test %q: there is one of that name already, in line %d", t.name, first.line)
		}
		names[t.name] = t.at
		f.tests = append(f.tests, t)
	})
	if tests.tag == "!!seq" && len(tests.items) == 0 {
		r.bad(tests.place, "tests: there are none: add one, with a name, input and expect")
	}
	return f
}

func (r *reader) test(v *value, within time.Duration) *test {
	t := &test{at: v.place, within: within}
	r.object(v, "test",
		field{"name", true, func(v *value) {
			if t.name = r.text(v, "name"); t.name == "" && v.tag == "!!str" || strings.ContainsAny(t.name, "\r\n") {
				r.bad(v.place, "name: want one line of text that says what the test shows")
			}
		}},
		field{"within", false, func(v *value) { t.within = r.duration(v, "within") }},
		field{"input", true, func(v *value) {
			r.list(v, "input", func(v *value) { t.steps = append(t.steps, r.step(v)) })
		}},
		field{"expect", true, func(v *value) { r.expect(v, t) }},
	)
	return t
}

func (r *reader) step(v *value) *step {
	s := &step{at: v.place}
	var wait, message []string
	for _, e := range v.entries {
		if e.key == "wait" {
			wait = append(wait, e.key)
		} else {
			message = append(message, e.key)
		}
	}
	sent := field{"payload", len(wait) == 0, func(v *value) { s.payload = r.payload(v) }}
	ok := r.object(v, "input",
		field{"wait", false, func(v *value) { s.wait = r.duration(v, "wait") }},
		field{"source", false, func(v *value) { s.source, s.from = r.text(v, "source"), v.place }},
		sent,
		field{"key", false, func(v *value) { s.key = r.text(v, "key") }},
		field{"headers", false, func(v *value) { s.headers = r.headers(v) }},
	)
	if ok && len(wait) > 0 && len(message) > 0 {
		r.bad(v.place, "input: wait stands alone: begin another item for the message, as in - payload: ...")
	}
	return s
}

func (r *reader) headers(v *value) (out []header) {
	r.words(v, "headers", func(_ place, name, text string) { out = append(out, header{name, text}) })
	return out
}

// expect reads what is expected: of streams and sinks by name, of dead letters, of counts.
func (r *reader) expect(v *value, t *test) {
	if !r.is(v, "!!map", "expect", "a map from streams and sinks to messages") {
		return
	}
	for _, e := range v.entries {
		switch {
		case e.val.tag == "":
		case e.key == "dead_letters":
			t.dead = &letters{at: e.place}
			r.list(e.val, "dead_letters", func(v *value) { t.dead.each = append(t.dead.each, r.letter(v)) })
		case e.key == "counts":
			r.counts(e.val, t)
		default:
			t.out = append(t.out, r.output(e))
		}
	}
}

// output reads the messages that a stream or sink is to have: a list of payloads, or a map that can say more.
func (r *reader) output(e entry) *output {
	o := &output{at: e.place, name: e.key}
	payloads := func(v *value) {
		r.list(v, e.key, func(v *value) { o.messages = append(o.messages, wanted{at: v.place, payload: r.payload(v)}) })
	}
	if e.val.tag == "!!seq" {
		payloads(e.val)
		return o
	}
	if e.val.tag != "!!map" {
		r.bad(e.val.place, "%s: want a list of payloads, or a map with any_order and payloads or messages, got %s", e.key, e.val.what())
		return o
	}
	var given []string
	r.object(e.val, e.key,
		field{"any_order", false, func(v *value) { o.anyOrder = r.boolean(v, "any_order") }},
		field{"payloads", false, func(v *value) { given = append(given, "payloads"); payloads(v) }},
		field{"messages", false, func(v *value) {
			given = append(given, "messages")
			r.list(v, e.key, func(v *value) { o.messages = append(o.messages, r.wanted(v)) })
		}},
	)
	if len(given) != 1 {
		r.bad(e.val.place, "%s: want either payloads, or messages with a payload, a key and headers each", e.key)
	}
	return o
}

func (r *reader) wanted(v *value) wanted {
	w := wanted{at: v.place}
	r.object(v, "message",
		field{"payload", true, func(v *value) { w.payload = r.payload(v) }},
		field{"key", false, func(v *value) {
			key := r.text(v, "key")
			w.key = &key
		}},
		field{"headers", false, func(v *value) { w.headers = r.headers(v) }},
	)
	return w
}

func (r *reader) letter(v *value) letter {
	l := letter{at: v.place}
	r.object(v, "dead letter",
		field{"plugin", false, func(v *value) { l.plugin, l.pluginAt = r.text(v, "plugin"), v.place }},
		field{"source", false, func(v *value) { l.source, l.sourceAt = r.text(v, "source"), v.place }},
		field{"stream", false, func(v *value) { l.stream, l.streamAt = r.text(v, "stream"), v.place }},
		field{"reason", false, func(v *value) { l.reason = r.text(v, "reason") }},
		field{"attempts", false, func(v *value) { l.attempts = int(r.integer(v, "attempts")) }},
		field{"payload", false, func(v *value) {
			if l.payload = r.payload(v); l.payload == nil {
				l.payload = []byte{}
			}
		}},
	)
	return l
}

func (r *reader) counts(v *value, t *test) {
	if !r.is(v, "!!map", "counts", "a map of numbers") {
		return
	}
	for _, e := range v.entries {
		if !slices.Contains(countNames(), e.key) {
			r.bad(e.place, "counts: unknown count %q%s", e.key, r.suggest(e.key, countNames()))
			continue
		}
		if e.val.tag != "" {
			t.counts = append(t.counts, count{e.place, e.key, r.integer(e.val, e.key)})
		}
	}
}

// suggest names the word that is closest to a wrong one, or all that there are.
func (r *reader) suggest(wrong string, known []string) string {
	if len(r.problems) >= maxProblems || len(known) > 512 { // nobody reads it
		return ""
	}
	best, least := "", 3
	if len(wrong) <= 4 { // short words are all alike
		least = (len(wrong) + 1) / 2
	}
	if len(wrong) <= 64 {
		for _, k := range slices.Sorted(slices.Values(known)) {
			if d := distance(wrong, k); d < least {
				best, least = k, d
			}
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(" (did you mean %q?)", best)
	case len(known) == 0 || len(known) > 24:
		return ""
	}
	return ": there are " + strings.Join(known, ", ")
}

// distance is how many characters must be put in, left out, changed, or swapped with their neighbour to make a into b.
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
