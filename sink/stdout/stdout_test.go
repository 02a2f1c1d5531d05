package stdout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/sink/sinktest"
)

// narrow is a writer with room for so many bytes; negative: no end.
type narrow struct {
	mu   sync.Mutex
	room int
	got  []byte
}

func (w *narrow) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	if w.room >= 0 {
		n = min(n, w.room)
		w.room -= n
	}
	w.got = append(w.got, p[:n]...)
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (w *narrow) set(room int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room = room
}

// whole is what ends with the delimiter: who reads waits for the rest of a torn message.
func (w *narrow) whole(delim string) (msgs []sinktest.Message, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range strings.SplitAfterSeq(string(w.got), delim) {
		if m, ok := strings.CutSuffix(p, delim); ok {
			msgs = append(msgs, sinktest.Message{Payload: []byte(m)})
		}
	}
	return msgs, nil
}

// The stdout sink sits the exam of all sinks.
func TestConformance(t *testing.T) {
	for _, delim := range []string{"\n", "<end of message>"} {
		t.Run(fmt.Sprintf("delimiter %q", delim), func(t *testing.T) {
			sinktest.Run(t, func(*testing.T) sinktest.Fixture {
				w := &narrow{room: -1}
				return sinktest.Fixture{
					New:      func() (sink.Sink, error) { return New(Config{W: w, Delimiter: delim}) },
					Read:     func() ([]sinktest.Message, error) { return w.whole(delim) },
					Break:    w.set,
					Mend:     func() { w.set(-1) },
					Promises: sinktest.Promises{Keeps: true, Binary: len(delim) > 1},
				}
			})
		})
	}
}

// lend makes a batch; its messages' fates go to the map.
func lend(t testing.TB, fate map[string]error, payloads ...string) *sink.Batch {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: 4 << 20, SlabSize: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	acc, err := a.Account(arena.Sources, "test", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	slab, err := acc.Lease()
	if err != nil {
		t.Fatal(err)
	}
	b := a.NewBatch()
	b.Slab = slab
	off := 0
	for _, p := range payloads {
		b.Frames = append(b.Frames, arena.Frame{Off: uint32(off), Len: uint32(len(p))})
		off += copy(slab.Bytes()[off:], p)
	}
	return sink.NewBatch(b, nil, "s", func(_ *sink.Batch, i int, err error) { fate[payloads[i]] = err })
}

// Promise: a write that falls short, at whatever byte, merges no two messages and loses none that is done.
func TestShortWrites(t *testing.T) {
	large := strings.Repeat("L", bufferSize/2)
	for _, delim := range []string{"\n", "\r\n"} {
		msgs := []string{"aaa", "bbb", large, "ccc"}
		all := strings.Join(msgs, delim) + delim
		for _, room := range []int{0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1000, len(all) - 7, len(all) - 6, len(all) - 5, len(all) - 4, len(all) - 1} {
			w := &narrow{room: room}
			s, err := New(Config{W: w, Delimiter: delim})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Open(t.Context(), sink.Env{}); err != nil {
				t.Fatal(err)
			}
			fate := map[string]error{}
			b := lend(t, fate, msgs...)
			err = s.Write(t.Context(), b)
			if err == nil {
				err = s.Flush(t.Context())
			}
			b.Fail(err)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("room %d: error %v", room, err)
			}
			got, _ := w.whole(delim)
			for i, m := range msgs {
				if done := fate[m] == nil; done != (i < len(got)) {
					t.Errorf("delimiter %q room %d: message %d: %v, with %d whole messages out", delim, room, i, fate[m], len(got))
				}
			}
			w.set(2) // the rest falls short too
			_ = s.Flush(t.Context())
			w.set(-1)
			var again []string
			for _, m := range msgs {
				if fate[m] != nil {
					again = append(again, m)
				}
			}
			if err := errors.Join(s.Write(t.Context(), lend(t, fate, again...)), s.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(w.got), delim), delim) {
				if _, known := fate[line]; !known {
					t.Errorf("delimiter %q room %d: a line that nobody wrote: %.20q", delim, room, line)
				}
			}
			for _, m := range msgs {
				if fate[m] != nil || !bytes.Contains(w.got, []byte(m+delim)) {
					t.Errorf("delimiter %q room %d: %.5q is lost: %v", delim, room, m, fate[m])
				}
			}
		}
	}
}

// Promise: a closed pipe is an error that says so, on the process's own standard output too, where Go would end the process.
func TestClosedPipe(t *testing.T) {
	if os.Getenv("PENSTOCK_TEST_STDOUT") != "" {
		s, err := New(Config{})
		if err == nil {
			err = s.Open(t.Context(), sink.Env{})
		}
		if err == nil {
			err = errors.Join(s.Write(t.Context(), lend(t, map[string]error{}, "hello")), s.Flush(t.Context()))
		}
		fmt.Fprintf(os.Stderr, "%v", err)
		os.Exit(7)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestClosedPipe$")
	cmd.Env = append(os.Environ(), "PENSTOCK_TEST_STDOUT=1")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &said
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 7 || !strings.Contains(said.String(), "closed the pipe") {
		t.Errorf("%v, says %q", cmd.ProcessState, said.String())
	}
}

// Promise: a sink whose reader has gone says so, and no other does.
func TestStatus(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s, err := New(Config{W: w})
	if err != nil {
		t.Fatal(err)
	}
	fate := map[string]error{}
	if err := errors.Join(s.Open(t.Context(), sink.Env{}), s.Write(t.Context(), lend(t, fate, "a")), s.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.State != "" {
		t.Errorf("status %+v", st)
	}
	r.Close()
	if err := errors.Join(s.Write(t.Context(), lend(t, fate, "b")), s.Flush(t.Context())); !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	if st := s.Status(); st.State != Closed || !strings.Contains(st.Detail, "closed the pipe") || st.Since.IsZero() {
		t.Errorf("status %+v", st)
	}
}

// The process's standard output gets what is written, and stays open.
func TestStandardOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	saved := os.Stdout
	defer func() { os.Stdout = saved }()
	os.Stdout = w
	k := Kind()
	s, err := k.NewSink(k.Settings, kind.Env{})
	if err != nil {
		t.Fatal(err)
	}
	fate := map[string]error{}
	if err := errors.Join(s.Open(t.Context(), sink.Env{}), s.Write(t.Context(), lend(t, fate, "a", "b")), s.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("still open"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "a\nb\nstill open" {
		t.Errorf("%q, %v", got, err)
	}
}

// A full disk.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("TestFullDisk needs /dev/full: %v", err)
	}
	defer full.Close()
	s, err := New(Config{W: full})
	if err != nil {
		t.Fatal(err)
	}
	fate := map[string]error{}
	if err := errors.Join(s.Open(t.Context(), sink.Env{}), s.Write(t.Context(), lend(t, fate, "a", "b"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("Flush: %v", err)
	}
	if fate["a"] == nil || fate["b"] == nil {
		t.Errorf("fates: %v", fate)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	long := strings.Repeat("-", maxDelimiter+1)
	if p := (Settings{Delimiter: long}).Check(); len(p) != 1 || p[0].Field != "delimiter" {
		t.Errorf("problems: %v", p)
	}
	if _, err := New(Config{Delimiter: long}); err == nil {
		t.Error("New takes a long delimiter")
	}
	if p := (Settings{}).Check(); len(p) > 0 {
		t.Errorf("the defaults have problems: %v", p)
	}
	if c := (Settings{}).Claims(); len(c) != 1 {
		t.Errorf("claims %v", c)
	}
}

// Zero allocations per message.
func TestWriteAllocatesNothing(t *testing.T) {
	s, err := New(Config{W: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context(), sink.Env{}); err != nil {
		t.Fatal(err)
	}
	const runs = 20
	var batches []*sink.Batch
	for range runs + 2 {
		batches = append(batches, lend(t, map[string]error{"a": nil, "b": nil}, "a", "b"))
	}
	next, ctx := 0, t.Context()
	if got := testing.AllocsPerRun(runs, func() {
		if s.Write(ctx, batches[next]) != nil || s.Flush(ctx) != nil {
			t.Fatal("failed")
		}
		next++
	}); got != 0 {
		t.Errorf("%v allocations per batch", got)
	}
}
