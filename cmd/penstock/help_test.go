//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
)

// patience bounds every wait. It is reached only if a test fails.
const patience = 20 * time.Second

// record is what has been said so far, line by line. Whoever waits for a line is woken by each.
type record struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed and replaced at each line
	over  bool
}

func newRecord() *record { return &record{more: make(chan struct{})} }

func (r *record) add(line string, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if over {
		r.over = true
	} else {
		r.lines = append(r.lines, line)
	}
	close(r.more)
	r.more = make(chan struct{})
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// read takes lines from a reader until it ends.
func (r *record) read(from io.Reader) {
	s := bufio.NewScanner(from)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		r.add(s.Text(), false)
	}
	r.add("", true)
}

// await returns the nth line that matches.
func (r *record) await(t *testing.T, n int, matches func(line string) bool) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		more, over, seen := r.more, r.over, 0
		for _, line := range r.lines {
			if matches(line) {
				if seen++; seen == n {
					r.mu.Unlock()
					return line
				}
			}
		}
		r.mu.Unlock()
		if over {
			t.Fatalf("it ended without saying that; it said:\n%s", r)
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("it has not said that in %v; it said:\n%s", patience, r)
		}
	}
}

// proc is a process that runs the binary.
type proc struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *record
	log   *record
	ended chan struct{}
}

// options are those of a process. The zero value is good for most.
type options struct {
	dir    string // working directory; default a fresh one
	args   []string
	env    []string
	stdin  io.Reader
	stdout *os.File // default: kept
	via    []string // a command that runs the binary with what follows

	program []string // instead of all that
}

// start starts the binary. Its processes are killed when the test ends.
func start(t *testing.T, o options) *proc {
	t.Helper()
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	argv := append(append(o.via[:len(o.via):len(o.via)], os.Getenv(binaryVar)), o.args...)
	if o.program != nil {
		argv = o.program
	}
	p := &proc{t: t, cmd: exec.Command(argv[0], argv[1:]...), out: newRecord(), log: newRecord(), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdin, p.cmd.Env = o.dir, o.stdin, append(os.Environ(), o.env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { p.log.read(stderr) })
	if o.stdout != nil {
		p.cmd.Stdout = o.stdout
	} else {
		stdout, err := p.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() { p.out.read(stdout) })
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		reading.Wait()
		_ = p.cmd.Wait() // how it went is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(argv[1:], " "), p.log)
		}
	})
	return p
}

// write writes a file of a directory, in one step.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".part", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a pipeline: text is penstock.yaml of dir.
func run(t *testing.T, dir, text string, args ...string) *proc {
	t.Helper()
	return runWith(t, options{dir: dir}, text, args...)
}

func runWith(t *testing.T, o options, text string, args ...string) *proc {
	t.Helper()
	write(t, o.dir, "penstock.yaml", text)
	o.args = append([]string{"run", "--summary", "json", "--listen", "127.0.0.1:0"}, args...)
	return start(t, o)
}

// await waits for a line of the log that has all of these.
func (p *proc) await(texts ...string) string {
	p.t.Helper()
	return p.awaitNth(1, texts...)
}

func (p *proc) awaitNth(n int, texts ...string) string {
	p.t.Helper()
	return p.log.await(p.t, n, func(line string) bool {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				return false
			}
		}
		return true
	})
}

// addr is where a source listens.
func (p *proc) addr(source string) string {
	p.t.Helper()
	return field(p.t, p.await("msg=listening", "source="+source+" "), "address")
}

// url is an endpoint of the port for health, metrics and control.
func (p *proc) url(path string) string {
	p.t.Helper()
	return "http://" + field(p.t, p.await("msg=running"), "listen") + path
}

func field(t *testing.T, line, name string) string {
	t.Helper()
	m := regexp.MustCompile(`\b` + name + `=(\S+)`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("no %s in %s", name, line)
	}
	return m[1]
}

func (p *proc) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end, and returns the exit code.
func (p *proc) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("it has not ended in %v", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the process as one does, and returns its summary.
func (p *proc) stop() penstock.Summary {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		p.t.Fatalf("exit code %d", code)
	}
	return p.summary()
}

// summary is the last line of the standard output.
func (p *proc) summary() (s penstock.Summary) {
	p.t.Helper()
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	if len(p.out.lines) == 0 {
		p.t.Fatal("no summary")
	}
	if err := json.Unmarshal([]byte(p.out.lines[len(p.out.lines)-1]), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// get asks an endpoint.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// eventually waits for what only looking can tell, such as what another process writes to a file.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	timeout := time.After(patience)
	for !ok() {
		select {
		case <-look.C:
		case <-timeout:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// inbox is a web server that keeps the lines that it is sent.
type inbox struct {
	mu     sync.Mutex
	counts map[string]int
	more   chan struct{}
	gate   chan struct{} // requests wait until it is closed; nil for no wait
	closed bool          // the gate
	came   chan struct{} // one token: a request has come
}

func newInbox() *inbox {
	return &inbox{counts: map[string]int{}, more: make(chan struct{}), came: make(chan struct{}, 1)}
}

// ServeHTTP answers when the gate is open.
func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case b.came <- struct{}{}:
	default:
	}
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(string(body)) {
		b.counts[strings.TrimSuffix(line, "\n")]++
	}
	close(b.more)
	b.more = make(chan struct{})
}

func (b *inbox) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.gate)
	}
}

// await waits for so many different lines.
func (b *inbox) await(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(patience)
	for {
		b.mu.Lock()
		have, more := len(b.counts), b.more
		b.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("%d of %d messages in %v", have, n, patience)
		}
	}
}

// check says which of the wanted lines are missing, which have come more often than max times, and which nobody wants.
func (b *inbox) check(t *testing.T, wanted []string, most int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := compare(b.counts, wanted, most); err != nil {
		t.Error(err)
	}
}

func compare(counts map[string]int, wanted []string, most int) error {
	var missing, often []string
	for _, w := range wanted {
		switch n := counts[w]; {
		case n == 0:
			missing = append(missing, w)
		case n > most:
			often = append(often, w)
		}
	}
	if len(missing)+len(often) > 0 || len(counts) != len(wanted) {
		return errors.New(fmt.Sprint(len(missing), " missing ", few(missing), ", ", len(often), " too often ", few(often), ", ",
			len(counts), " different ones for ", len(wanted)))
	}
	return nil
}

func few(list []string) []string { return list[:min(len(list), 5)] }

// linesOf counts the lines of a file.
func linesOf(t *testing.T, path string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(data)) {
		counts[strings.TrimSuffix(line, "\n")]++
	}
	return counts
}

// numbered are the messages {"n":from} to {"n":to-1}.
func numbered(from, to int) []string {
	out := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf(`{"n":%d}`, i))
	}
	return out
}

func text(lines []string) string { return strings.Join(lines, "\n") + "\n" }
