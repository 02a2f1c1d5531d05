package file

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// rig runs sources over one file in virtual time, one after the other.
type rig struct {
	*testing.T
	path, data string
	cfg        Config

	in    *sourcetest.Intake
	src   *Source
	stop  context.CancelFunc
	ended chan error
	seen  int // messages that expect has looked at
	log   bytes.Buffer
}

// logged is an intake whose log can be read.
type logged struct {
	*sourcetest.Intake
	logger *slog.Logger
}

func (l logged) Env() source.Env {
	env := l.Intake.Env()
	env.Logger = l.logger
	return env
}

// said checks how often the log has a text.
func (r *rig) said(n int, text string) {
	r.Helper()
	if got := strings.Count(r.log.String(), text); got != n {
		r.Errorf("%d times %q in the log, want %d:\n%s", got, text, n, &r.log)
	}
}

// virtual runs a test on a rig within a bubble of virtual time.
func virtual(t *testing.T, test func(r *rig)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "log")
		test(&rig{T: t, path: path, data: filepath.Join(dir, "data"), cfg: Config{Path: path, Follow: true}})
	})
}

func (r *rig) start() {
	r.Helper()
	src, err := New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.in, r.src, r.seen = sourcetest.NewIntake(r.T, sourcetest.IntakeConfig{DataDir: r.data, MaxBytes: 100}), src, 0
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.ended = cancel, make(chan error, 1)
	in := logged{r.in, slog.New(slog.NewTextHandler(&r.log, nil))}
	go func() { r.ended <- src.Run(ctx, in) }()
}

// finish stops the source, as in an orderly end.
func (r *rig) finish() {
	r.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.Errorf("Run: %v", err)
	}
	if err := r.src.Close(context.Background()); err != nil {
		r.Errorf("Close: %v", err)
	}
	if err := r.in.Close(); err != nil {
		r.Error(err)
	}
}

// polls lets n polls go by.
func (r *rig) polls(n int) {
	for range n {
		<-time.After(DefaultPoll + time.Millisecond)
		synctest.Wait()
	}
}

// expect checks which messages came since the last time.
func (r *rig) expect(want ...string) {
	r.Helper()
	r.polls(1)
	var got []string
	for _, m := range r.in.Messages()[r.seen:] {
		got = append(got, string(m.Payload))
	}
	r.seen += len(got)
	if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
		r.Errorf("messages %q, want %q", got, want)
	}
}

// settle settles the first n messages.
func (r *rig) settle(n int) {
	r.in.Settle(r.src, source.Settled, func(m sourcetest.Message) bool { return m.Index < n })
}

func (r *rig) rename(from, to string) {
	r.Helper()
	if err := os.Rename(from, to); err != nil {
		r.Fatal(err)
	}
}

// reported checks that exactly one error was reported, of the type that target points to.
func (r *rig) reported(target any) {
	r.Helper()
	if list := r.in.Reports(); len(list) != 1 || !errors.As(list[0], target) {
		r.Errorf("reported %v, want one %T", list, target)
	}
}

func TestFollowGrowth(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb")
		r.start()
		r.expect("a")
		add(r, r.path, "c\nd")
		r.expect("bc") // a partial line is a message when it has ended
		r.polls(10)
		r.expect()
		if used := r.in.Account().Used(); used > 3*16<<10 {
			r.Errorf("an idle source uses %d bytes", used)
		}
		add(r, r.path, "\n")
		r.expect("d")
		r.finish()
	})
}

// Promise: the old file is read to its end first, also what is written to it after it has been renamed; then the new one from 0. Receipts
// rise, and the cursor waits for the tail of the old one.
func TestFollowRotation(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb\n")
		r.start()
		r.expect("a", "b")
		r.rename(r.path, r.path+".1")
		add(r, r.path+".1", "late\nno newline")
		r.expect("late")
		add(r, r.path, "c\n")
		add(r, r.path+".1", "!\n-")
		r.expect("no newline!")
		r.polls(3)
		r.expect("-", "c")
		var last uint64
		for _, m := range r.in.Messages() {
			if m.Receipt <= last {
				r.Errorf("receipt %d after %d", m.Receipt, last)
			}
			last = m.Receipt
		}
		// The tail of the old file holds the cursor back, though the new one is settled.
		r.in.Settle(r.src, source.Settled, func(m sourcetest.Message) bool { return m.Index != 4 })
		r.finish()
		r.start()
		r.polls(4)
		r.expect("-", "c")
		r.settle(2)
		r.finish()
		r.start()
		r.polls(4)
		r.expect()
		r.finish()
	})
}

// Promise: rotated twice between two looks, the file in the middle is read too.
func TestFollowRotatedTwice(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path+".1", "old, from before\n")
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(r.path+".1", past, past); err != nil {
			r.Fatal(err)
		}
		add(r, r.path, "a\n")
		r.start()
		r.expect("a")
		r.rename(r.path+".1", r.path+".3")
		r.rename(r.path, r.path+".2")
		add(r, r.path+".1", "b\n")
		add(r, r.path, "c\n")
		add(r, r.path+".bak", "not this\n")
		add(r, r.path+".1.gz", "nor this\n")
		r.polls(8)
		r.expect("b", "c")
		r.finish()
	})
}

func TestFollowTruncation(t *testing.T) {
	rewrites := map[string]string{
		"shorter": "x\n",
		"longer":  "something else that is longer\nx\n",
	}
	for name, rewrite := range rewrites {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(r *rig) {
				add(r, r.path, "first line\nand a partial")
				r.start()
				r.expect("first line")
				if err := os.Truncate(r.path, 0); err != nil {
					r.Fatal(err)
				}
				add(r, r.path, rewrite)
				r.expect(strings.Split(strings.TrimSpace(rewrite), "\n")...)
				var e *TruncatedError
				if r.reported(&e); e != nil && (e.Offset != 24 || e.Partial != 13) {
					r.Errorf("reported %+v", e)
				}
				r.settle(10)
				r.finish()
				r.start()
				add(r, r.path, "y\n")
				r.expect("y")
				r.finish()
			})
		})
	}
}

// Promise: a file that is truncated when all of it has been read is no bad input.
func TestFollowCopyTruncate(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb\n")
		r.start()
		r.expect("a", "b")
		if err := os.Truncate(r.path, 0); err != nil {
			r.Fatal(err)
		}
		r.polls(1)
		add(r, r.path, "c\n")
		r.expect("c")
		if list := r.in.Reports(); len(list) > 0 {
			r.Errorf("reported %v", list)
		}
		r.said(1, "level=INFO msg=\"the file was truncated")
		r.finish()
	})
}

// Promise: after a restart what is not settled comes again, from the contiguous settled prefix on, and nothing before it.
func TestRestartAtCursor(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb\nc\nd\n")
		r.start()
		r.expect("a", "b", "c", "d")
		r.settle(2)
		if err := r.src.Checkpoint(context.Background()); err != nil {
			r.Fatal(err)
		}
		r.in.Settle(r.src, source.Settled, func(m sourcetest.Message) bool { return m.Index == 3 }) // behind a hole
		r.finish()
		r.start()
		r.expect("c", "d")
		r.finish() // nothing was settled: the cursor stays
		r.start()
		r.expect("c", "d")
		r.settle(1)
		r.src.Settle(source.Settlement{Cursor: 2, HasCursor: true}) // never backwards
		r.finish()
		r.start()
		r.expect("d")
		r.finish()
	})
}

// Promise: rotated away while nobody looked, the file is found, whatever its name, and finished first.
func TestRestartAfterRotation(t *testing.T) {
	for _, name := range []string{".1", "-20261123", ".old"} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(r *rig) {
				add(r, r.path, "a\nb\n")
				r.start()
				r.expect("a", "b")
				r.settle(1)
				r.finish()
				r.rename(r.path, r.path+name)
				add(r, r.path, "c\n")
				r.start()
				r.polls(4)
				r.expect("b", "c")
				if list := r.in.Reports(); len(list) > 0 {
					r.Errorf("reported %v", list)
				}
				r.finish()
			})
		})
	}
}

// Promise: when the file of the cursor is gone that is reported as a gap, and the present one is read from 0.
func TestRestartWithGap(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb\n")
		r.start()
		r.expect("a", "b")
		r.settle(1)
		r.finish()
		add(r, r.path+".new", "other\n") // made first, so that it cannot get the old one's inode
		r.rename(r.path+".new", r.path)
		r.start()
		r.expect("other")
		var e *GapError
		if r.reported(&e); e != nil && e.Offset != 2 {
			r.Errorf("reported %+v", e)
		}
		r.finish()
	})
}

// Promise: an inode that comes again does not fool the source.
func TestRestartRewritten(t *testing.T) {
	virtual(t, func(r *rig) {
		add(r, r.path, "a\nb\n")
		r.start()
		r.expect("a", "b")
		r.settle(2)
		r.finish()
		if err := os.WriteFile(r.path, []byte("x\ny\nz\n"), 0o644); err != nil { // the same inode
			r.Fatal(err)
		}
		r.start()
		r.expect("x", "y", "z")
		var e *TruncatedError
		r.reported(&e)
		r.finish()
	})
}

func TestBrokenCursorFile(t *testing.T) {
	for _, text := range []string{"", "{", `{"fingerprint":{"bytes":-1}}`, `{"offset":18446744073709551615}`} {
		virtual(t, func(r *rig) {
			if err := os.MkdirAll(filepath.Join(r.data, "cursors"), 0o755); err != nil {
				r.Fatal(err)
			}
			add(r, filepath.Join(r.data, "cursors", "exam.json"), text)
			add(r, r.path, "a\n")
			r.start()
			r.expect("a")
			if list := r.in.Reports(); len(list) != 1 || !strings.Contains(list[0].Error(), "exam.json") {
				r.Errorf("reported %v", list)
			}
			r.finish()
		})
	}
}

func TestMissingFile(t *testing.T) {
	virtual(t, func(r *rig) {
		r.start()
		r.polls(3)
		r.said(1, "waiting for "+r.path)
		add(r, r.path, "a\n")
		r.expect("a")
		r.finish()

		r.cfg = Config{Path: r.path + ".none"}
		r.start()
		err := <-r.ended
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "log.none") || !strings.Contains(err.Error(), "Follow") {
			r.Errorf("a missing file gives %v", err)
		}
		r.ended <- nil
		r.finish()
	})
}

// Promise: a line that is too large is skipped, reported with its place and counted; it does not stop the file.
func TestTooLarge(t *testing.T) {
	for _, follow := range []bool{false, true} {
		virtual(t, func(r *rig) {
			r.cfg.Follow = follow
			add(r, r.path, "a\n"+strings.Repeat("x", 100_000)+"\nb\n")
			r.start()
			r.expect("a", "b")
			var e *decode.Error
			if r.reported(&e); e != nil && (e.Offset != 2 || !errors.Is(e, decode.ErrTooLarge)) || r.src.TooLarge() != 1 {
				r.Errorf("reported %+v, %d counted", e, r.src.TooLarge())
			}
			r.finish()
		})
	}
}

func TestFramings(t *testing.T) {
	virtual(t, func(r *rig) {
		r.cfg = Config{Path: r.path, Delimiter: ";"}
		add(r, r.path, "a;b\n;c")
		r.start()
		r.expect("a", "b\n", "c")
		r.finish()
		r.cfg = Config{Path: r.path, Framing: "whole"}
		r.start()
		r.expect("a;b\n;c")
		r.finish()
		r.cfg = Config{Path: r.path, Framing: "u32"} // "a;b\n" is no length
		r.start()
		if err := <-r.ended; !errors.Is(err, decode.ErrTooLarge) || !strings.Contains(err.Error(), r.path) {
			r.Errorf("Run: %v", err)
		}
		r.ended <- nil
		r.finish()
	})
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Path: "x", Framing: "csv"},
		{Path: "x", Framing: "whole", Follow: true},
		{Path: "x", Framing: "u32", Delimiter: ";"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestDirectoryIsRefused(t *testing.T) {
	s, err := New(Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
	if err := s.Run(t.Context(), in); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("Run: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}
