package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/deadletter"
	"golang.org/x/term"
)

// screen is standard error, shared by log lines and a line of progress below them.
type screen struct {
	w    io.Writer
	live bool // a line of progress is shown
	tty  int  // descriptor of the terminal; -1 if there is none

	mu   sync.Mutex
	line string
}

func newScreen(w io.Writer, progress string) *screen {
	s := &screen{w: w, live: progress == "always", tty: -1}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.tty = int(f.Fd())
		s.live = s.live || progress == "auto"
	}
	return s
}

// Write writes log lines above the line of progress.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := fmt.Fprintf(s.w, "\r\x1b[K%s%s", p, s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show makes line the line of progress. What does not fit on a line of the terminal is cut off: the rest could not be taken back.
func (s *screen) show(line string) {
	if s.tty >= 0 {
		if width, _, err := term.GetSize(s.tty); err == nil && width > 1 && len(line) >= width {
			line = line[:width-1]
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == s.line {
		return
	}
	s.line = line
	fmt.Fprintf(s.w, "\r\x1b[K%s", line)
}

// follow shows how far a pipeline is, until the returned function is called.
func (s *screen) follow(stats func() penstock.Summary) (stop func()) {
	if !s.live {
		return func() {}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		began, last, lastAt := time.Now(), uint64(0), time.Now()
		for {
			select {
			case now := <-t.C:
				n := stats()
				rate := float64(n.Settled-last) / now.Sub(lastAt).Seconds()
				last, lastAt = n.Settled, now
				s.show(progress(&n, rate, now.Sub(began)))
			case <-ended:
				s.show("")
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// progress is the line that shows how far a pipeline is.
func progress(s *penstock.Summary, rate float64, took time.Duration) string {
	parts := []string{
		fmt.Sprintf("%v", took.Round(time.Second)), fmt.Sprintf("%d accepted", s.Accepted), fmt.Sprintf("%d settled", s.Settled),
		fmt.Sprintf("%.0f/s", rate),
	}
	underWay := s.Accepted - min(s.Settled+s.Returned, s.Accepted)
	for _, x := range []struct {
		n    uint64
		what string
	}{{underWay, "under way"}, {s.Retried, "retried"}, {s.Dead, "dead"}, {s.Dropped, "dropped"}, {s.Bad, "bad"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	for _, r := range s.Rows {
		if r.State != "" && r.State != "running" && r.State != "ok" && r.State != "ended" {
			parts = append(parts, r.Name+" "+r.State)
		}
	}
	return strings.Join(parts, ", ")
}

// writeSummary prints what has become of all messages, by source, plugin and sink. data is the pipeline's directory.
func writeSummary(w io.Writer, s penstock.Summary, took time.Duration, data string) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "accepted %d, settled %d, retried %d, held %d, dead %d, dropped %d, bad %d, returned %d, in %v\n", s.Accepted, s.Settled,
		s.Retried, s.Held, s.Dead, s.Dropped, s.Bad, s.Returned, took.Round(time.Millisecond))
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tname\tstate\tmessages\tsettled\tretried\tdeferred\tdead\tdropped\temitted\tfailures")
	for _, r := range s.Rows {
		settled := "" // of a source
		if r.Kind == "source" {
			settled = fmt.Sprint(r.Settled)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Kind, r.Name, r.State, max(r.Accepted, r.Delivered), settled,
			blank(r.Retried), blank(r.Deferred), blank(r.Dead), blank(r.Dropped), blank(r.Emitted), blank(r.Failures+r.Bad))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s.Dead > 0 {
		fmt.Fprintf(&out, "dead letters, each with the reason: %s\n", deadletter.Path(data))
	}
	for line := range strings.Lines(out.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil { // cells that are empty end in spaces
			return err
		}
	}
	return nil
}

// blank is a number, or nothing for 0: a table of zeros hides what counts.
func blank(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
