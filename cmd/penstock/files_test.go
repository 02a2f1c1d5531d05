//go:build unix

package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Promise: a log that is rotated by renaming, and one that is truncated in place, are followed to their ends.
func TestRotatedLog(t *testing.T) {
	in := newInbox()
	server := httptest.NewServer(in)
	defer server.Close()
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	p := run(t, dir, fmt.Sprintf(`
sources:
  log: { file: { path: app.log, follow: true, poll: 10ms } }
sinks:
  out: { from: log, http: { url: %q } }
`, server.URL))
	n := 0
	add := func() {
		grow(t, log, numbered(n, n+500))
		n += 500
	}
	for i := range 5 { // the log is not there at first
		add()
		in.await(t, n) // it is being read
		add()
		if i%2 == 0 { // without waiting: the renamed file has lines that nobody has read
			if err := os.Rename(log, fmt.Sprintf("%s.%d", log, i)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		in.await(t, n) // what is truncated before it is read is lost to anybody
		if err := os.Truncate(log, 0); err != nil {
			t.Fatal(err)
		}
	}
	add()
	in.await(t, n)
	if s := p.stop(); int(s.Accepted) != n || s.Settled != s.Accepted {
		t.Errorf("accepted %d, settled %d, want %d", s.Accepted, s.Settled, n)
	}
	in.check(t, numbered(0, n), 1)
}

// Promise: when the disk is full under a file sink, messages wait and nothing is lost; when there is room again all of them are written,
// each once and whole.
func TestFullDisk(t *testing.T) {
	disk, room := smallDisk(t)
	dir := t.TempDir()
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, room-64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	const n = 20000
	write(t, dir, "in.ndjson", text(numbered(0, n)))
	p := run(t, dir, fmt.Sprintf(`
sources:
  in: { file: { path: in.ndjson } }
sinks:
  out: { from: in, file: { path: %s/out.txt }, retry: { max: 200ms } }
`, disk), "--until-idle")
	p.await("level=WARN", "sink=out", "no space left", "make room")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if s := p.summary(); s.Settled != n || s.Retried == 0 || s.Dead != 0 {
		t.Errorf("settled %d, retried %d, dead %d", s.Settled, s.Retried, s.Dead)
	}
	if err := compare(linesOf(t, filepath.Join(disk, "out.txt")), numbered(0, n), 1); err != nil {
		t.Error(err)
	}
}

// smallDisk mounts a file system in memory, of so many bytes.
func smallDisk(t *testing.T) (dir string, room int) {
	t.Helper()
	dir = t.TempDir()
	const size = 1 << 20
	if out, err := mount(dir, size); err != nil {
		t.Skipf("no small file system can be mounted here, so a full disk cannot be tried: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := unmount(dir); err != nil {
			t.Errorf("unmounting %s: %v: %s", dir, err, out)
		}
	})
	return dir, size
}

// Promise: a file that may not grow any more is as good as a full disk: nothing is lost, and the process ends in good order.
func TestFileSizeLimit(t *testing.T) {
	dir := t.TempDir()
	const n = 20000
	write(t, dir, "in.ndjson", text(numbered(0, n)))
	p := runWith(t, options{dir: dir, via: []string{tool(t, "bash"), "-c", `ulimit -f 100; exec "$0" "$@"`}}, `
drain: 100ms
sources:
  in: { file: { path: in.ndjson } }
sinks:
  out: { from: in, file: { path: out.txt } }
`)
	p.await("level=WARN", "sink=out", "too large")
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	s := p.summary()
	lines := linesOf(t, filepath.Join(dir, "out.txt"))
	if len(lines) != int(s.Settled) || s.Settled+s.Returned != s.Accepted || s.Dead != 0 {
		t.Errorf("%d lines; settled %d, returned %d, accepted %d, dead %d", len(lines), s.Settled, s.Returned, s.Accepted, s.Dead)
	}
	if err := compare(lines, numbered(0, n)[:len(lines)], 1); err != nil {
		t.Error(err)
	}
}

const pipes = "sources:\n  in: { stdin: }\nsinks:\n  out: { from: in, stdout: }\n"

// Promise: what is piped in comes out.
func TestStdinToStdout(t *testing.T) {
	dir := t.TempDir()
	lines := numbered(0, 50000)
	p := runWith(t, options{dir: dir, stdin: strings.NewReader(text(lines))}, pipes, "--until-idle", "--summary", "none")
	if code := p.exit(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if got := p.out.String(); got+"\n" != text(lines) {
		t.Errorf("%d bytes came out, want %d", len(got), len(text(lines)))
	}
}

// Promise: when nobody reads the standard output any more, a pipeline that writes to it says so and ends.
func TestClosedStdout(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	dir := t.TempDir()
	p := runWith(t, options{dir: dir, stdin: strings.NewReader(text(numbered(0, 50000))), stdout: w}, pipes, "--until-idle", "--summary", "none")
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if code := p.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	p.await("level=ERROR", "standard output")
}
