package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/fsx"
	"github.com/penstock-dev/penstock/internal/fsx/fsxtest"
	"github.com/penstock-dev/penstock/sink"
)

// rig is a sink on a disk that fails on demand, and what became of the messages given to it.
type rig struct {
	*testing.T
	*Sink
	disk    *fsxtest.Disk
	account *arena.Account
	arena   *arena.Arena
	path    string
	clock   *clock.Manual
	fate    map[string]error // by payload, of those that are done
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	a, err := arena.New(arena.Config{Budget: 64 << 20, SlabSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	acc, err := a.Account(arena.Sources, "test", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, disk: fsxtest.New(), account: acc, arena: a, fate: map[string]error{}, clock: clock.NewManual(time.Unix(1e9, 0))}
	r.path = filepath.Join(t.TempDir(), "out")
	if cfg.Path == "" {
		cfg.Path = r.path
	}
	if r.Sink, err = newSink(cfg, r.disk); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) env() sink.Env { return sink.Env{Clock: r.clock} }

// mustOpen opens the sink and has it take the file, by a Write of nothing.
func (r *rig) mustOpen() {
	r.Helper()
	r.must(r.Open(r.Context(), r.env()))
	r.must(r.write())
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// batch lends payloads.
func (r *rig) batch(payloads ...string) *sink.Batch {
	r.Helper()
	slab, err := r.account.Lease()
	if err != nil {
		r.Fatal(err)
	}
	b := r.arena.NewBatch()
	b.Slab = slab
	off := 0
	for _, p := range payloads {
		b.Frames = append(b.Frames, arena.Frame{Off: uint32(off), Len: uint32(len(p))})
		off += copy(slab.Bytes()[off:], p)
	}
	return sink.NewBatch(b, nil, "s", func(_ *sink.Batch, i int, err error) { r.fate[payloads[i]] = err })
}

// write is Write as the runtime does it.
func (r *rig) write(payloads ...string) error {
	b := r.batch(payloads...)
	err := r.Write(r.Context(), b)
	if err != nil {
		b.Fail(err)
	}
	return err
}

func (r *rig) flush() error { return r.Flush(r.Context()) }

// holds compares a file with want.
func (r *rig) holds(path, want string) {
	r.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	if string(got) != want {
		r.Errorf("%s holds %.80q, want %.80q", filepath.Base(path), got, want)
	}
}

// A full disk: no torn line stays, exactly what is not in the file fails, and it goes on when there is room.
func TestFullDisk(t *testing.T) {
	for _, sync := range []Sync{SyncNone, SyncFlush, SyncClose} {
		for room := range 13 {
			t.Run(fmt.Sprint(sync, " room ", room), func(t *testing.T) {
				r := newRig(t, Config{Sync: sync})
				r.mustOpen()
				r.disk.Room(int64(room))
				r.must(r.write("aaa", "bbb"))
				r.must(r.write("ccc"))
				err := r.flush()
				whole := room / 4
				for i, p := range []string{"aaa", "bbb", "ccc"} {
					if failed := r.fate[p] != nil; failed != (i >= whole) {
						t.Errorf("%s: %v, with %d messages in the file", p, r.fate[p], whole)
					}
				}
				r.holds(r.path, "aaa\nbbb\nccc\n"[:4*whole])
				if whole == 3 {
					r.must(err)
					return
				}
				var e *Error
				if !errors.As(err, &e) || e.Path != r.path || e.Offset != int64(4*whole) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("error is %v, want an *Error with path, offset %d and ENOSPC", err, 4*whole)
				}
				r.disk.Room(-1)
				r.must(r.write("ddd"))
				r.must(r.flush())
				r.holds(r.path, "aaa\nbbb\nccc\n"[:4*whole]+"ddd\n")
			})
		}
	}
}

// A large payload that does not fit leaves nothing of itself.
func TestFullDiskWithinALargePayload(t *testing.T) {
	large := strings.Repeat("x", 100_000)
	for _, room := range []int64{0, 4, 50_000, 100_004} { // 100,004: all but the delimiter
		r := newRig(t, Config{})
		r.mustOpen()
		r.disk.Room(room)
		err := errors.Join(r.write("aaa", large, "bbb"), r.flush())
		if !errors.Is(err, syscall.ENOSPC) || r.fate[large] == nil || r.fate["bbb"] == nil || (r.fate["aaa"] == nil) != (room >= 4) {
			t.Errorf("room %d: error %v, aaa: %v, large: %v, bbb: %v", room, err, r.fate["aaa"], r.fate[large], r.fate["bbb"])
		}
		r.holds(r.path, "aaa\n"[:min(room, 4)])
	}
}

// With sync: flush a message is done only after its fsync.
func TestSyncFlushMeansFsyncBeforeDone(t *testing.T) {
	r := newRig(t, Config{Sync: SyncFlush})
	r.mustOpen()
	r.disk.Before(fsxtest.OpSync, func() {
		if len(r.fate) != 0 {
			t.Error("done before the fsync")
		}
	})
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("message %d that fills the buffer more than once", i)
	}
	r.must(r.write(many...))
	if len(r.fate) != 0 {
		t.Errorf("%d messages done before the flush", len(r.fate))
	}
	r.must(r.flush())
	if len(r.fate) != len(many) {
		t.Errorf("%d done, want %d", len(r.fate), len(many))
	}
}

// A failed fsync: the kernel reports it once and may have dropped the pages, so all since the last good fsync is written again.
func TestFailedFsyncFailsAllSinceTheLast(t *testing.T) {
	r := newRig(t, Config{Sync: SyncFlush})
	r.mustOpen()
	r.must(r.write("aaa"))
	r.must(r.flush())
	r.disk.Fail(fsxtest.OpSync, syscall.EIO)
	r.must(r.write("bbb", "ccc"))
	if err := r.flush(); !errors.Is(err, syscall.EIO) || r.fate["bbb"] == nil || r.fate["ccc"] == nil {
		t.Fatalf("flush: %v, bbb: %v, ccc: %v; want EIO for all", err, r.fate["bbb"], r.fate["ccc"])
	}
	r.holds(r.path, "aaa\n")
	r.disk.Fail(fsxtest.OpSync, nil)
	r.must(r.write("bbb", "ccc"))
	r.must(r.flush())
	r.holds(r.path, "aaa\nbbb\nccc\n")
}

// The fsync that follows a short write fails too: nothing since the last good fsync is done.
func TestFullDiskAndFailedFsync(t *testing.T) {
	r := newRig(t, Config{Sync: SyncFlush})
	r.mustOpen()
	r.disk.Room(6)
	r.disk.Fail(fsxtest.OpSync, syscall.EIO)
	r.must(r.write("aaa", "bbb"))
	if err := r.flush(); !errors.Is(err, syscall.EIO) || r.fate["aaa"] == nil || r.fate["bbb"] == nil {
		t.Errorf("flush: %v, aaa: %v, bbb: %v", err, r.fate["aaa"], r.fate["bbb"])
	}
	r.holds(r.path, "")
}

// A torn message that cannot be cut off keeps everything else from being written, until it can.
func TestNothingIsWrittenBehindATornMessage(t *testing.T) {
	r := newRig(t, Config{})
	r.mustOpen()
	r.disk.Room(5)
	r.disk.Fail(fsxtest.OpTruncate, syscall.EIO)
	r.must(r.write("aaa", "bbb"))
	if err := r.flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	r.disk.Room(-1)
	err := r.write("ccc")
	if e, ok := errors.AsType[*Error](err); !ok || e.Op != "cut" || e.Offset != 4 {
		t.Fatalf("write behind a torn message: %v", err)
	}
	r.holds(r.path, "aaa\nb")
	r.disk.Fail(fsxtest.OpTruncate, nil)
	r.must(r.write("ccc"))
	r.must(r.flush())
	r.holds(r.path, "aaa\nccc\n")
}

// An operator who empties the file leaves no hole in it, and a full disk afterwards cuts off no more than the torn message.
func TestFileEmptiedByOthers(t *testing.T) {
	r := newRig(t, Config{})
	r.mustOpen()
	r.must(r.write("aaa", "bbb"))
	r.must(r.flush())
	r.must(os.Truncate(r.path, 0))
	r.must(r.write("ccc"))
	r.must(r.flush())
	r.disk.Room(6)
	r.must(r.write("ddd", "eee"))
	if err := r.flush(); err == nil {
		t.Fatal("flush on a full disk succeeds")
	}
	r.holds(r.path, "ccc\nddd\n")
}

// Append: a message torn by a crash does not merge with the next one; its bytes are kept aside.
func TestTornTailIsMovedAway(t *testing.T) {
	for _, tc := range []struct{ name, delim, before, kept, torn string }{
		{"whole", "\n", "aaa\nbbb\n", "aaa\nbbb\n", ""},
		{"torn", "\n", "aaa\nbb", "aaa\n", "bb\n"},
		{"only a torn one", "\n", "aa", "", "aa\n"},
		{"empty", "\n", "", "", ""},
		{"half a delimiter", "\r\n", "aaa\r\nbbb\r", "aaa\r\n", "bbb\r\r\n"},
		{"long", "\n", "aaa\n" + strings.Repeat("b", 200_000), "aaa\n", strings.Repeat("b", 200_000) + "\n"},
		{"delimiter across a window", "##", "a##" + strings.Repeat("b", 64<<10-1), "a##", strings.Repeat("b", 64<<10-1) + "##"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, Config{Delimiter: tc.delim})
			r.must(os.WriteFile(r.path, []byte(tc.before), 0o600))
			r.mustOpen()
			r.must(r.write("next"))
			r.must(r.Close(t.Context()))
			r.holds(r.path, tc.kept+"next"+tc.delim)
			if tc.torn != "" {
				r.holds(r.path+".torn", tc.torn)
			} else if _, err := os.Stat(r.path + ".torn"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a .torn file without a torn message: %v", err)
			}
		})
	}
}

func TestTruncateMode(t *testing.T) {
	r := newRig(t, Config{Mode: Truncate})
	r.must(os.WriteFile(r.path, []byte("old"), 0o600))
	r.mustOpen()
	r.must(r.write("new"))
	r.must(r.Close(t.Context()))
	r.holds(r.path, "new\n")
}

// Two sinks on one file: the second is told so, and has not emptied what it may not write.
func TestSecondSinkIsLockedOut(t *testing.T) {
	r := newRig(t, Config{})
	r.mustOpen()
	r.must(r.write("aaa"))
	r.must(r.flush())
	second := &rig{T: t, account: r.account, arena: r.arena, path: r.path, clock: r.clock, fate: map[string]error{}}
	var err error
	second.Sink, err = newSink(Config{Path: r.path, Mode: Truncate}, fsx.OS{})
	r.must(err)
	r.must(second.Open(t.Context(), r.env()))
	if err := second.write("bbb"); !errors.Is(err, ErrLocked) {
		t.Fatalf("Write: %v, want ErrLocked", err)
	}
	r.must(second.Close(t.Context())) // neither does Close
	r.holds(r.path, "aaa\n")
	r.must(r.Close(t.Context()))
	r.must(second.Open(t.Context(), r.env()))
	r.must(second.write("bbb"))
	r.must(second.Close(t.Context()))
	r.holds(r.path, "bbb\n")
}

func TestOpenErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	notOurs := filepath.Join(dir, "image")
	if err := os.WriteFile(notOurs, bytes.Repeat([]byte{1}, minSearch+100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path, say string
		is              error
	}{
		{"no directory", filepath.Join(dir, "no", "out"), "create the directory " + filepath.Join(dir, "no"), fs.ErrNotExist},
		{"a directory", dir, "plain file", nil},
		{"another kind of file", notOurs, "move it away", fsx.ErrNoRecord},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := newRig(t, Config{Path: tc.path}).Open(t.Context(), sink.Env{})
			if err == nil || !strings.Contains(err.Error(), tc.say) || !strings.Contains(err.Error(), tc.path) {
				t.Errorf("Open: %v, want it to name %s and say %q", err, tc.path, tc.say)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("Open: %v, want %v", err, tc.is)
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Path: "x", Mode: "overwrite"},
		{Path: "x", Sync: "always"},
		{Path: "x", Buffer: 10},
		{Path: "x", Rotate: Rotate{Keep: -1}},
		{Path: "x", Delimiter: strings.Repeat("-", 65)},
		{Path: "x", Rotate: Rotate{MaxBytes: -1}},
		{Path: "x", Rotate: Rotate{MaxAge: -1}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) succeeds", cfg)
		}
	}
}

// Zero allocations per message.
func TestWriteAllocatesNothing(t *testing.T) {
	r := newRig(t, Config{Rotate: Rotate{MaxBytes: 1 << 40}})
	r.fs = fsx.OS{} // the Disk writes a log
	r.mustOpen()
	payloads := make([]string, 64)
	for i := range payloads {
		payloads[i] = strings.Repeat("p", 1024)
	}
	payloads[5] = strings.Repeat("q", 40_000)
	slab, err := r.account.Lease()
	r.must(err)
	mem := r.arena.NewBatch()
	mem.Slab = slab
	off := 0
	for _, p := range payloads {
		mem.Frames = append(mem.Frames, arena.Frame{Off: uint32(off), Len: uint32(len(p))})
		off += copy(slab.Bytes()[off:], p)
	}
	const runs = 50
	var batches []*sink.Batch
	for range runs + 2 {
		batches = append(batches, sink.NewBatch(mem, nil, "s", func(*sink.Batch, int, error) {}))
	}
	ctx := context.Background()
	next := 0
	got := testing.AllocsPerRun(runs, func() {
		if err := errors.Join(r.Write(ctx, batches[next]), r.Flush(ctx)); err != nil {
			t.Fatal(err)
		}
		next++
	})
	if got != 0 {
		t.Errorf("%v allocations per batch of 64, want 0", got)
	}
}

// Close reports what it could not make durable, and gives the file up nevertheless.
func TestCloseThatFails(t *testing.T) {
	for _, tc := range []struct {
		sync Sync
		op   fsxtest.Op
		done bool // the message was done before the failure
	}{
		{SyncFlush, fsxtest.OpSync, false},
		{SyncClose, fsxtest.OpSync, true},
		{SyncNone, fsxtest.OpClose, true},
		{SyncNone, fsxtest.OpWrite, false},
	} {
		r := newRig(t, Config{Sync: tc.sync})
		r.mustOpen()
		r.must(r.write("aaa"))
		r.disk.Fail(tc.op, syscall.EIO)
		err := r.Close(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || e.Op != string(tc.op) || !errors.Is(err, syscall.EIO) {
			t.Errorf("sync %s, failing %s: Close returns %v", tc.sync, tc.op, err)
		}
		fate, settled := r.fate["aaa"]
		if !settled || (fate == nil) != tc.done {
			t.Errorf("sync %s, failing %s: message settled %v with %v", tc.sync, tc.op, settled, fate)
		}
		r.disk.Fail(tc.op, nil)
		r.mustOpen() // the lock is free
		r.must(r.Close(t.Context()))
	}
}

// A torn message that cannot be kept aside is not cut off.
func TestTornTailThatCannotBeKept(t *testing.T) {
	r := newRig(t, Config{})
	r.must(os.WriteFile(r.path, []byte("aaa\nbb"), 0o600))
	r.must(os.Mkdir(r.path+".torn", 0o700))
	r.must(r.Open(t.Context(), r.env()))
	if err := r.write("ccc"); err == nil {
		t.Error("Write succeeds")
	}
	r.holds(r.path, "aaa\nbb")
}

// BenchmarkWrite writes batches of 64 messages of 1 KiB.
func BenchmarkWrite(b *testing.B) {
	a, err := arena.New(arena.Config{})
	if err != nil {
		b.Fatal(err)
	}
	acc, err := a.Account(arena.Sources, "bench", 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	slab, err := acc.Lease()
	if err != nil {
		b.Fatal(err)
	}
	mem := a.NewBatch()
	mem.Slab = slab
	for i := range 64 {
		mem.Frames = append(mem.Frames, arena.Frame{Off: uint32(i << 10), Len: 1 << 10})
	}
	s, err := New(Config{Path: filepath.Join(b.TempDir(), "out"), Rotate: Rotate{MaxBytes: 64 << 20, Keep: 1}})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Open(b.Context(), sink.Env{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		batch := sink.NewBatch(mem, nil, "s", func(*sink.Batch, int, error) {}) // two allocations a batch
		if err := errors.Join(s.Write(b.Context(), batch), s.Flush(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
