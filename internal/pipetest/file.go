package pipetest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/internal/suggest"
	"github.com/penstock-dev/penstock/internal/yamltree"
)

// file is a file of tests as it is written.
type file struct {
	pipeline string
	at       yamltree.Pos // of pipeline
	env      map[string]string
	within   time.Duration
	tests    []*test
}

// test is one test.
type test struct {
	name   string
	at     yamltree.Pos
	within time.Duration // virtual time after the last input by which all is settled
	steps  []*step
	out    []*output
	dead   *letters // nil: nothing is said about dead letters
	counts []count
}

// step is a message that comes in, or time that passes.
type step struct {
	at      yamltree.Pos
	wait    time.Duration // 0: a message
	source  string        // empty for the only one there is
	from    yamltree.Pos  // of source
	payload []byte
	key     string
	headers []header
}

type header struct{ name, value string }

// output is what is expected of a sink or a stream.
type output struct {
	at       yamltree.Pos // of the name
	name     string
	anyOrder bool
	messages []wanted
}

// wanted is a message that is expected. Key and headers count where they are given.
type wanted struct {
	at      yamltree.Pos
	payload []byte
	key     *string
	headers []header
	form    form // of payload, once it is compared
}

// letters is the dead letters that are expected, in any order.
type letters struct {
	at   yamltree.Pos
	each []letter
}

// letter is a dead letter that is expected. What is not given may be anything.
type letter struct {
	at                             yamltree.Pos
	plugin, source, stream, reason string // reason is a part of it
	pluginAt, sourceAt, streamAt   yamltree.Pos
	attempts                       int
	payload                        []byte // nil if it is not given
}

type count struct {
	at   yamltree.Pos
	name string
	want uint64
}

// reader makes a file of its text, and gathers what is wrong.
type reader struct {
	*yamltree.Problems
	name string
}

func newReader(name string) *reader { return &reader{yamltree.NewProblems(name), name} }

// field reads one key of a map.
type field struct {
	key      string
	required bool
	read     func(v *yamltree.Value)
}

// object reads a map with fixed keys.
func (r *reader) object(v *yamltree.Value, what string, fields ...field) bool {
	if !r.is(v, yamltree.Map, what, "a map") {
		return false
	}
	var known []string
	for _, f := range fields {
		known = append(known, f.key)
	}
	there := map[string]bool{}
	for _, e := range v.Entries {
		i := slices.Index(known, e.Key)
		if i < 0 {
			r.Add(e.Pos, "%s: unknown key %q%s", what, e.Key, r.suggest(e.Key, known))
			continue
		}
		there[e.Key] = true
		if e.Value.Shape != yamltree.Broken {
			fields[i].read(e.Value)
		}
	}
	for _, f := range fields {
		if f.required && !there[f.key] {
			r.Add(v.Pos, "%s: the key %q is missing: add it", what, f.key)
		}
	}
	return true
}

// got describes a value for people.
func got(v *yamltree.Value) string {
	if v.Shape == yamltree.Int || v.Shape == yamltree.Float {
		return strings.TrimPrefix(v.What(), "the number ")
	}
	return v.What()
}

// is reports a value that is not of the kind that is wanted.
func (r *reader) is(v *yamltree.Value, shape yamltree.Shape, what, want string) bool {
	if v.Shape != shape && v.Shape != yamltree.Broken {
		help := ""
		switch {
		case shape == yamltree.Text && v.Items == nil && v.Entries == nil && v.Shape != yamltree.Null:
			help = ": put it in quotes"
		case shape == yamltree.List:
			help = ": put it in brackets, or in lines that begin with -"
		}
		r.Add(v.Pos, "%s: want %s, got %s%s", what, want, got(v), help)
	}
	return v.Shape == shape
}

func (r *reader) text(v *yamltree.Value, what string) string {
	if !r.is(v, yamltree.Text, what, "text") {
		return ""
	}
	return v.Text
}

func (r *reader) duration(v *yamltree.Value, what string) time.Duration {
	d, err := time.ParseDuration(v.Text)
	if v.Shape != yamltree.Text || err != nil || d <= 0 || d > maxWait {
		r.Add(v.Pos, "%s: want a duration such as 30s, of at most %v, got %s", what, maxWait, got(v))
		return 0
	}
	return d
}

const maxWait = 10_000 * time.Hour

func (r *reader) boolean(v *yamltree.Value, what string) bool {
	return r.is(v, yamltree.Bool, what, "true or false") && strings.EqualFold(v.Text, "true")
}

func (r *reader) integer(v *yamltree.Value, what string) uint64 {
	n, err := strconv.ParseUint(v.Text, 10, 63)
	if v.Shape != yamltree.Int || err != nil {
		r.Add(v.Pos, "%s: want a number from 0 up, got %s", what, got(v))
	}
	return n
}

// list calls each for the items of a list.
func (r *reader) list(v *yamltree.Value, what string, each func(v *yamltree.Value)) {
	if !r.is(v, yamltree.List, what, "a list") {
		return
	}
	for _, item := range v.Items {
		if item.Shape != yamltree.Broken {
			each(item)
		}
	}
}

// words reads a map from words to text.
func (r *reader) words(v *yamltree.Value, what string, each func(at yamltree.Pos, name, text string)) {
	if !r.is(v, yamltree.Map, what, "a map of text") {
		return
	}
	for _, e := range v.Entries {
		each(e.Pos, e.Key, r.text(e.Value, what+": "+e.Key))
	}
}

// advice is what is said of files that cannot be those of tests.
func advice() yamltree.Advice {
	return yamltree.Advice{
		TooLarge: "part it into several", TooMany: ": part it into several", Empty: "it needs tests",
		Second: "take out the line of ---", NotUTF8: "the file is not UTF-8: save it as UTF-8",
	}
}

// parse reads a file of tests.
func (r *reader) parse(text []byte) *file {
	f := &file{
		pipeline: beside(r.name), at: yamltree.Pos{File: r.name, Line: 1, Column: 1}, env: map[string]string{}, within: defaultWithin,
	}
	root := yamltree.Parse(r.name, text, r.Problems, yamltree.Options{Advice: advice()})
	if root == nil {
		return f
	}
	var tests *yamltree.Value
	r.object(root, "the file",
		field{"pipeline", false, func(v *yamltree.Value) {
			if f.pipeline, f.at = r.text(v, "pipeline"), v.Pos; f.pipeline == "" && v.Shape == yamltree.Text {
				r.Add(v.Pos, "pipeline: want the path of a pipeline, from this file on")
			}
		}},
		field{"env", false, func(v *yamltree.Value) {
			r.words(v, "env", func(_ yamltree.Pos, name, text string) { f.env[name] = text })
		}},
		field{"within", false, func(v *yamltree.Value) { f.within = r.duration(v, "within") }},
		field{"tests", true, func(v *yamltree.Value) { tests = v }},
	)
	if tests == nil {
		return f
	}
	names := map[string]yamltree.Pos{}
	r.list(tests, "tests", func(v *yamltree.Value) {
		t := r.test(v, f.within)
		if first, twice := names[t.name]; twice && t.name != "" {
			r.Add(t.at, "test %q: there is one of that name already, in line %d", t.name, first.Line)
		}
		names[t.name] = t.at
		f.tests = append(f.tests, t)
	})
	if tests.Shape == yamltree.List && len(tests.Items) == 0 {
		r.Add(tests.Pos, "tests: there are none: add one, with a name, input and expect")
	}
	return f
}

func (r *reader) test(v *yamltree.Value, within time.Duration) *test {
	t := &test{at: v.Pos, within: within}
	r.object(v, "test",
		field{"name", true, func(v *yamltree.Value) {
			if t.name = r.text(v, "name"); t.name == "" && v.Shape == yamltree.Text || strings.ContainsAny(t.name, "\r\n") {
				r.Add(v.Pos, "name: want one line of text that says what the test shows")
			}
		}},
		field{"within", false, func(v *yamltree.Value) { t.within = r.duration(v, "within") }},
		field{"input", true, func(v *yamltree.Value) {
			r.list(v, "input", func(v *yamltree.Value) { t.steps = append(t.steps, r.step(v)) })
		}},
		field{"expect", true, func(v *yamltree.Value) { r.expect(v, t) }},
	)
	return t
}

func (r *reader) step(v *yamltree.Value) *step {
	s := &step{at: v.Pos}
	var wait, message []string
	for _, e := range v.Entries {
		if e.Key == "wait" {
			wait = append(wait, e.Key)
		} else {
			message = append(message, e.Key)
		}
	}
	sent := field{"payload", len(wait) == 0, func(v *yamltree.Value) { s.payload = r.payload(v) }}
	ok := r.object(v, "input",
		field{"wait", false, func(v *yamltree.Value) { s.wait = r.duration(v, "wait") }},
		field{"source", false, func(v *yamltree.Value) { s.source, s.from = r.text(v, "source"), v.Pos }},
		sent,
		field{"key", false, func(v *yamltree.Value) { s.key = r.text(v, "key") }},
		field{"headers", false, func(v *yamltree.Value) { s.headers = r.headers(v) }},
	)
	if ok && len(wait) > 0 && len(message) > 0 {
		r.Add(v.Pos, "input: wait stands alone: begin another item for the message, as in - payload: ...")
	}
	return s
}

func (r *reader) headers(v *yamltree.Value) (out []header) {
	r.words(v, "headers", func(_ yamltree.Pos, name, text string) { out = append(out, header{name, text}) })
	return out
}

// expect reads what is expected: of streams and sinks by name, of dead letters, of counts.
func (r *reader) expect(v *yamltree.Value, t *test) {
	if !r.is(v, yamltree.Map, "expect", "a map from streams and sinks to messages") {
		return
	}
	for _, e := range v.Entries {
		switch {
		case e.Value.Shape == yamltree.Broken:
		case e.Key == "dead_letters":
			t.dead = &letters{at: e.Pos}
			r.list(e.Value, "dead_letters", func(v *yamltree.Value) { t.dead.each = append(t.dead.each, r.letter(v)) })
		case e.Key == "counts":
			r.counts(e.Value, t)
		default:
			t.out = append(t.out, r.output(e))
		}
	}
}

// output reads the messages that a stream or sink is to have: a list of payloads, or a map that can say more.
func (r *reader) output(e yamltree.Entry) *output {
	o := &output{at: e.Pos, name: e.Key}
	payloads := func(v *yamltree.Value) {
		r.list(v, e.Key, func(v *yamltree.Value) { o.messages = append(o.messages, wanted{at: v.Pos, payload: r.payload(v)}) })
	}
	if e.Value.Shape == yamltree.List {
		payloads(e.Value)
		return o
	}
	if e.Value.Shape != yamltree.Map {
		r.Add(e.Value.Pos, "%s: want a list of payloads, or a map with any_order and payloads or messages, got %s", e.Key, got(e.Value))
		return o
	}
	var given []string
	r.object(e.Value, e.Key,
		field{"any_order", false, func(v *yamltree.Value) { o.anyOrder = r.boolean(v, "any_order") }},
		field{"payloads", false, func(v *yamltree.Value) { given = append(given, "payloads"); payloads(v) }},
		field{"messages", false, func(v *yamltree.Value) {
			given = append(given, "messages")
			r.list(v, e.Key, func(v *yamltree.Value) { o.messages = append(o.messages, r.wanted(v)) })
		}},
	)
	if len(given) != 1 {
		r.Add(e.Value.Pos, "%s: want either payloads, or messages with a payload, a key and headers each", e.Key)
	}
	return o
}

func (r *reader) wanted(v *yamltree.Value) wanted {
	w := wanted{at: v.Pos}
	r.object(v, "message",
		field{"payload", true, func(v *yamltree.Value) { w.payload = r.payload(v) }},
		field{"key", false, func(v *yamltree.Value) {
			key := r.text(v, "key")
			w.key = &key
		}},
		field{"headers", false, func(v *yamltree.Value) { w.headers = r.headers(v) }},
	)
	return w
}

func (r *reader) letter(v *yamltree.Value) letter {
	l := letter{at: v.Pos}
	r.object(v, "dead letter",
		field{"plugin", false, func(v *yamltree.Value) { l.plugin, l.pluginAt = r.text(v, "plugin"), v.Pos }},
		field{"source", false, func(v *yamltree.Value) { l.source, l.sourceAt = r.text(v, "source"), v.Pos }},
		field{"stream", false, func(v *yamltree.Value) { l.stream, l.streamAt = r.text(v, "stream"), v.Pos }},
		field{"reason", false, func(v *yamltree.Value) { l.reason = r.text(v, "reason") }},
		field{"attempts", false, func(v *yamltree.Value) { l.attempts = int(r.integer(v, "attempts")) }},
		field{"payload", false, func(v *yamltree.Value) {
			if l.payload = r.payload(v); l.payload == nil {
				l.payload = []byte{}
			}
		}},
	)
	return l
}

func (r *reader) counts(v *yamltree.Value, t *test) {
	if !r.is(v, yamltree.Map, "counts", "a map of numbers") {
		return
	}
	for _, e := range v.Entries {
		if !slices.Contains(countNames(), e.Key) {
			r.Add(e.Pos, "counts: unknown count %q%s", e.Key, r.suggest(e.Key, countNames()))
			continue
		}
		if e.Value.Shape != yamltree.Broken {
			t.counts = append(t.counts, count{e.Pos, e.Key, r.integer(e.Value, e.Key)})
		}
	}
}

// suggest names the word that is closest to a wrong one, or all that there are.
func (r *reader) suggest(wrong string, known []string) string {
	if r.Full() { // nobody reads it
		return ""
	}
	return suggest.OrList(wrong, known)
}
