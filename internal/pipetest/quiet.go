package pipetest

import (
	"bytes"
	"cmp"
	"runtime"
	"strconv"
	"strings"
)

// quiet finds out whether any goroutine of a pipeline can go on. It looks at the states of all goroutines at one moment, while the world
// is stopped: where all wait for each other, nothing can change before the clock moves or a message comes in. It is used by one goroutine.
type quiet struct {
	self    uint64          // the goroutine that looks
	foreign map[uint64]bool // goroutines that are not of the pipeline
	idlers  map[uint64]bool // goroutines of the pipeline that wait for the world outside all the time
	buf     []byte
}

// look is what quiet has seen.
type look struct {
	running string            // one that can go on, for people; empty if there is none
	outside map[uint64]string // those that wait for the world outside, but for idlers: for sleep, for input, in a system call
	spawned map[uint64]bool   // those of Held.Go that wait
	active  map[uint64]bool   // those that can go on
}

// busy names what can go on, now or when the world outside lets it; empty if nothing can.
func (l *look) busy() string {
	what := l.running
	for _, g := range l.outside {
		what = cmp.Or(what, g)
	}
	return what
}

// newQuiet makes a quiet for a pipeline that the calling goroutine is about to make. Goroutines that are there already are foreign.
func newQuiet() *quiet {
	q := &quiet{foreign: map[uint64]bool{}, idlers: map[uint64]bool{}, buf: make([]byte, 64<<10)}
	q.self = goroutine(q.buf[:runtime.Stack(q.buf, false)]).id
	q.each(func(g stack) {
		if g.id != q.self {
			q.foreign[g.id] = true
		}
	})
	return q
}

// look looks at all goroutines.
func (q *quiet) look() look {
	l := look{outside: map[uint64]string{}, spawned: map[uint64]bool{}, active: map[uint64]bool{}}
	q.each(func(g stack) {
		if g.id == q.self || q.foreign[g.id] {
			return
		}
		if q.foreign[g.parent] {
			q.foreign[g.id] = true
			return
		}
		switch {
		case waiting(g.state):
			if bytes.Contains(g.text, []byte("/actor.(*holder).HeldGo")) {
				l.spawned[g.id] = true
			}
		case outside(g.state):
			if !q.idlers[g.id] {
				l.outside[g.id] = g.String()
			}
		default:
			l.running, l.active[g.id] = g.String(), true
		}
	})
	return l
}

// waiting says whether a goroutine in that state goes on only when another lets it. "semacquire" is not one of the states: there waits
// who is about to start a garbage collection, for the world that is stopped while we look.
func waiting(state string) bool {
	switch state {
	case "chan receive", "chan send", "select", "coroutine", "finalizer wait", "cleanup wait":
		return true
	}
	return strings.HasPrefix(state, "sync.")
}

// outside says whether a goroutine in that state waits for something that is not of this process.
func outside(state string) bool {
	return state == "sleep" || state == "IO wait" || state == "syscall"
}

// each calls f for each goroutine.
func (q *quiet) each(f func(g stack)) {
	n := runtime.Stack(q.buf, true)
	for n == len(q.buf) && n < maxDump {
		q.buf = make([]byte, 2*n)
		n = runtime.Stack(q.buf, true)
	}
	for text := range bytes.SplitSeq(q.buf[:n], []byte("\n\n")) {
		if g := goroutine(text); g.id != 0 {
			f(g)
		}
	}
}

const maxDump = 256 << 20

// stack is a goroutine as package runtime prints it.
type stack struct {
	id     uint64
	parent uint64 // that has started it; 0 if that is not known
	state  string // what it waits for, or running, runnable, syscall
	text   []byte
}

// goroutine reads the header and the last lines of what runtime prints of a goroutine:
//
//	goroutine 19 [chan receive, 2 minutes]:
//	...
//	created by main.main in goroutine 1
func goroutine(text []byte) (g stack) {
	header, _, _ := bytes.Cut(text, []byte("\n"))
	rest, ok := bytes.CutPrefix(header, []byte("goroutine "))
	number, rest, _ := bytes.Cut(rest, []byte(" "))
	id, err := strconv.ParseUint(string(number), 10, 64)
	_, rest, bracket := bytes.Cut(rest, []byte("["))
	if !ok || err != nil || !bracket {
		return stack{}
	}
	if end := bytes.IndexAny(rest, ",]("); end >= 0 {
		rest = rest[:end]
	}
	g = stack{id: id, state: strings.TrimSpace(string(rest)), text: text}
	if i := bytes.LastIndex(text, []byte("\ncreated by ")); i >= 0 {
		line, _, _ := bytes.Cut(text[i+1:], []byte("\n"))
		if at := bytes.LastIndex(line, []byte(" in goroutine ")); at >= 0 {
			g.parent, _ = strconv.ParseUint(string(line[at+len(" in goroutine "):]), 10, 64)
		}
	}
	return g
}

// String says what the goroutine does, and where.
func (g stack) String() string {
	where := "an unknown function"
	lines := bytes.Split(g.text, []byte("\n"))
	for i := 1; i+1 < len(lines); i += 2 {
		call := string(lines[i])
		if cut := strings.LastIndexByte(call, '('); cut > 0 {
			call = call[:cut]
		}
		where = call
		for _, machinery := range []string{"runtime.", "internal/", "sync.", "sync/", "syscall.", "time.", "os.", "net.", "io."} {
			if strings.HasPrefix(call, machinery) {
				where = ""
			}
		}
		if where != "" {
			break
		}
		where = call
	}
	return where + " (" + g.state + ")"
}
