//go:build unix

package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// slow is a pipeline whose sink has to wait for answers.
func slow(t *testing.T, dir, top string) (string, *inbox) {
	t.Helper()
	in := newInbox()
	in.gate = make(chan struct{})
	server := httptest.NewServer(in)
	t.Cleanup(func() {
		in.open()
		server.Close()
	})
	write(t, dir, "in.ndjson", text(numbered(0, 3000)))
	return fmt.Sprintf(`%s
sources:
  in: { file: { path: in.ndjson } }
sinks:
  out: { from: in, http: { url: %q, batch: { messages: 100 } } }
`, top, server.URL), in
}

// Promise: SIGTERM finishes what is under way, and exits with 0.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	file, in := slow(t, dir, "")
	p := run(t, dir, file)
	p.await("msg=running")
	<-in.came
	p.signal(syscall.SIGTERM)
	p.await("ending: sources stop")
	in.open()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s := p.summary()
	if s.Accepted == 0 || s.Settled != s.Accepted || s.Returned != 0 {
		t.Errorf("accepted %d, settled %d, returned %d", s.Accepted, s.Settled, s.Returned)
	}
	in.check(t, numbered(0, int(s.Accepted)), 1)
}

// Promise: draining takes no longer than drain says; what is left is given back.
func TestDrainIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the end of the time that a stop may take")
	}
	t.Parallel()
	dir := t.TempDir()
	file, in := slow(t, dir, "drain: 300ms")
	p := run(t, dir, file)
	<-in.came
	p.signal(syscall.SIGTERM)
	p.await("ending: sources stop")
	began := time.Now()
	code := p.exit()
	if took := time.Since(began); code != 1 || took > 10*time.Second {
		t.Errorf("exit code %d after %v", code, took)
	}
	if s := p.summary(); s.Accepted == 0 || s.Settled != 0 || s.Returned != s.Accepted || s.Dead != 0 {
		t.Errorf("accepted %d, settled %d, returned %d, dead %d", s.Accepted, s.Settled, s.Returned, s.Dead)
	}
}

// Promise: a second signal stops at once, with exit code 4. One that comes with the first, as timeout(1) sends it, is no second one.
func TestSecondSignal(t *testing.T) {
	dir := t.TempDir()
	file, in := slow(t, dir, "drain: 60s")
	p := run(t, dir, file)
	<-in.came
	p.signal(syscall.SIGTERM)
	p.await("ending: sources stop")
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	sent := 0
	for over := false; !over; {
		select {
		case <-again.C:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			sent++
		case <-p.ended:
			over = true
		}
	}
	if code := p.exit(); code != 4 || sent < 2 {
		t.Errorf("exit code %d after %d more signals", code, sent)
	}
	p.await("stopped at once")
}

// Promise: what a followed file has is handled at least once, whenever the process is killed; after a stop in good order nothing comes
// twice.
func TestKillAndStart(t *testing.T) {
	dir := t.TempDir()
	in := newInbox()
	server := httptest.NewServer(in)
	defer server.Close()
	file := fmt.Sprintf(`
sources:
  in: { file: { path: in.ndjson, follow: true, poll: 20ms } }
sinks:
  out: { from: in, http: { url: %q, batch: { messages: 50 } } }
`, server.URL)
	const half = 20000
	log := write(t, dir, "in.ndjson", text(numbered(0, half)))
	p := run(t, dir, file)
	in.await(t, half/4)
	p.signal(syscall.SIGKILL)
	p.exit()

	p = run(t, dir, file)
	in.await(t, half)
	cursor := filepath.Join(dir, "data", "cursors", "in.json")
	eventually(t, "a cursor", func() bool {
		_, err := os.Stat(cursor)
		return err == nil
	})
	grow(t, log, numbered(half, 2*half))
	in.await(t, half+half/4)
	p.signal(syscall.SIGKILL)
	p.exit()

	p = run(t, dir, file)
	in.await(t, 2*half)
	in.check(t, numbered(0, 2*half), 3)
	if s := p.stop(); s.Accepted > half+half/2 {
		t.Errorf("%d messages came again although there was a cursor", s.Accepted)
	}

	in.mu.Lock()
	clear(in.counts)
	in.mu.Unlock()
	grow(t, log, numbered(2*half, 2*half+10))
	p = run(t, dir, file)
	in.await(t, 10)
	if s := p.stop(); s.Accepted != 10 {
		t.Errorf("%d messages after a stop in good order, want 10", s.Accepted)
	}
	in.check(t, numbered(2*half, 2*half+10), 1)
}

// grow appends lines to a file.
func grow(t *testing.T, path string, lines []string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text(lines)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
