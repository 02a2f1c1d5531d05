package deadletter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/internal/fsx"
	"github.com/penstock-dev/penstock/internal/fsx/fsxtest"
)

func testPath(t *testing.T) string { return Path(filepath.Join(t.TempDir(), "data")) }

func mustOpen(t *testing.T, path string, fsys fsx.FS) *File {
	t.Helper()
	f, err := open(Config{Path: path}, fsys)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// readAll is all letters, and all errors, of a file.
func readAll(path string) (letters []Letter, errs []error) {
	for l, err := range Read(path) {
		if err != nil {
			errs = append(errs, err)
		} else {
			letters = append(letters, l)
		}
	}
	return letters, errs
}

// ids checks that a file holds these letters and nothing else.
func ids(t *testing.T, path string, want ...string) {
	t.Helper()
	letters, errs := readAll(path)
	var got []string
	for _, l := range letters {
		got = append(got, l.ID)
	}
	if len(errs) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%s holds %q, errors %v; want %q", filepath.Base(path), got, errs, want)
	}
}

func full() Letter {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	return Letter{
		ID: "full", Payload: []byte("{\"a\":\"b\"}\n<&>\u2028"), Key: []byte("\xff\x00key"),
		Headers: []Header{{"trace", []byte("00-1")}, {"trace", nil}, {"b\xfen", []byte("\x80")}},
		Source:  "flights", Stream: "flights", Plugin: "delays", Version: "1.2", Attempts: 5, Reason: "no such airport: \"XXX\"",
		Accepted: at, First: at.Add(time.Second), Died: at.Add(time.Minute),
	}
}

// Whatever bytes a letter holds, they come back.
func TestRoundTrip(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	letters := []Letter{
		full(),
		{ID: "empty"},
		{ID: "bytes", Payload: all},
		{ID: "controls", Payload: []byte(strings.Repeat("\x01", 1000))},
		{ID: "large", Payload: []byte(strings.Repeat("é", 1<<20))},
	}
	path := testPath(t)
	f := mustOpen(t, path, fsx.OS{})
	must(t, f.Put(t.Context(), letters[:2]))
	must(t, f.Put(t.Context(), letters[2:]))
	must(t, f.Put(t.Context(), nil))
	must(t, f.Close())
	got, errs := readAll(path)
	if len(errs) > 0 || len(got) != len(letters) {
		t.Fatalf("%d letters, errors %v", len(got), errs)
	}
	for i := range letters {
		if !reflect.DeepEqual(got[i], letters[i]) {
			t.Errorf("letter %s came back as %.200q", letters[i].ID, fmt.Sprint(got[i]))
		}
	}
}

// The file is for people and their tools too.
func TestPayloadIsTextWhereItCanBe(t *testing.T) {
	path := testPath(t)
	f := mustOpen(t, path, fsx.OS{})
	must(t, f.Put(t.Context(), []Letter{{ID: "a", Payload: []byte(`<héllo>`)}, {ID: "b", Payload: []byte("\xff")}}))
	must(t, f.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	want := `{"id":"a","attempts":0,"reason":"","payload_encoding":"text","payload":"<héllo>"}` + "\n" +
		`{"id":"b","attempts":0,"reason":"","payload_encoding":"base64","payload":"/w=="}` + "\n"
	if string(data) != want {
		t.Errorf("file holds\n%swant\n%s", data, want)
	}
}

func TestIDIsChosenWhereThereIsNone(t *testing.T) {
	path := testPath(t)
	f := mustOpen(t, path, fsx.OS{})
	mine := []Letter{{}, {}}
	must(t, f.Put(t.Context(), mine))
	must(t, f.Close())
	got, _ := readAll(path)
	if len(got) != 2 || got[0].ID == "" || got[0].ID == got[1].ID {
		t.Errorf("letters %v, want two with different IDs", got)
	}
	if mine[0].ID != "" {
		t.Error("Put changed the caller's letter")
	}
}

func TestReasonIsClipped(t *testing.T) {
	for _, reason := range []string{strings.Repeat("é", MaxReason), "bad \xff byte", strings.Repeat("\xff", 2*MaxReason)} {
		got := clip(reason)
		if len(got) > MaxReason || got == "" || clip(got) != got {
			t.Errorf("a reason of %d bytes becomes %d bytes, clipped again %d", len(reason), len(got), len(clip(got)))
		}
	}
}

// A crash at any byte of the last letter loses none before it, and is reported by the reader and at the next start.
func TestCrashAtEveryByte(t *testing.T) {
	path := testPath(t)
	f := mustOpen(t, path, fsx.OS{})
	must(t, f.Put(t.Context(), []Letter{{ID: "a"}, full()}))
	before := f.log.Size()
	must(t, f.Put(t.Context(), []Letter{{ID: "last", Payload: []byte("payload \xff"), Reason: "héllo"}}))
	must(t, f.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	for cut := before; cut < int64(len(data)); cut++ {
		must(t, os.WriteFile(path, data[:cut], 0o600))
		letters, errs := readAll(path)
		torn := cut > before
		if len(letters) != 2 || torn != (len(errs) == 1 && errors.Is(errs[0], ErrTorn)) || len(errs) > 1 {
			t.Fatalf("cut at %d of %d: %d letters, errors %v", cut-before, int64(len(data))-before, len(letters), errs)
		}
		f := mustOpen(t, path, fsx.OS{})
		if f.Torn() != cut-before {
			t.Errorf("cut at %d: Torn is %d", cut-before, f.Torn())
		}
		must(t, f.Put(t.Context(), []Letter{{ID: "next"}}))
		must(t, f.Close())
		ids(t, path, "a", "full", "next")
	}
}

// A power cut may leave zeros where unsynced letters were. Those before and behind them are read.
func TestBadLinesCostOnlyThemselves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	good := `{"id":"a","payload_encoding":"text","payload":""}` + "\n"
	must(t, os.WriteFile(path, []byte(good+"\x00\x00\n\n{}\n"+strings.Replace(good, "text", "rot13", 1)+good), 0o600))
	letters, errs := readAll(path)
	if len(letters) != 2 || len(errs) != 4 {
		t.Fatalf("%d letters, errors %v; want 2 and 4", len(letters), errs)
	}
	if e, ok := errors.AsType[*LineError](errs[0]); !ok || e.Line != 2 || e.Offset != int64(len(good)) {
		t.Errorf("first error is %v, want one of line 2", errs[0])
	}
	for _, err := range Read(path) { // a reader may stop
		if err != nil && !errors.As(err, new(*LineError)) {
			t.Error(err)
		}
		break
	}
	if _, errs := readAll(path + "x"); len(errs) != 1 || !errors.Is(errs[0], os.ErrNotExist) {
		t.Errorf("reading what is not there: %v", errs)
	}
}

// Put returns only after the fsync, and Puts that come meanwhile share the next one.
func TestPutReturnsAfterFsyncAndGroupsShareOne(t *testing.T) {
	path := testPath(t)
	synctest.Test(t, func(t *testing.T) {
		disk := fsxtest.New()
		f := mustOpen(t, path, disk)
		gate := make(chan struct{})
		disk.Before(fsxtest.OpSync, func() { <-gate })
		var mu sync.Mutex
		returned := 0
		put := func(id string) {
			if err := f.Put(t.Context(), []Letter{{ID: id}}); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			returned++
		}
		expect := func(want int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if returned != want {
				t.Fatalf("%d Puts have returned, want %d", returned, want)
			}
		}
		go put("first")
		expect(0)
		for i := range 50 {
			go put(fmt.Sprint(i))
		}
		expect(0)
		gate <- struct{}{}
		expect(1)
		gate <- struct{}{}
		expect(51)
		must(t, f.Close())
		if n := disk.Count(fsxtest.OpSync); n != 2 {
			t.Errorf("%d fsyncs for 51 Puts, want 2", n)
		}
	})
	if letters, errs := readAll(path); len(letters) != 51 || errs != nil {
		t.Errorf("%d letters, errors %v", len(letters), errs)
	}
}

// A Put whose context ends before the writing has begun leaves nothing; one that is being written is waited for.
func TestPutAndContext(t *testing.T) {
	path := testPath(t)
	synctest.Test(t, func(t *testing.T) {
		disk := fsxtest.New()
		f := mustOpen(t, path, disk)
		gate := make(chan struct{})
		disk.Before(fsxtest.OpSync, func() { <-gate })
		ctx, cancel := context.WithCancel(t.Context())
		begun, waiting := make(chan error, 1), make(chan error, 1)
		go func() { begun <- f.Put(ctx, []Letter{{ID: "begun"}}) }()
		synctest.Wait()
		go func() { waiting <- f.Put(ctx, []Letter{{ID: "waiting"}}) }()
		synctest.Wait()
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("the Put that waited: %v", err)
		}
		synctest.Wait()
		if len(begun) != 0 {
			t.Error("the Put that had begun did not wait for its fsync")
		}
		close(gate)
		must(t, <-begun)
		if err := f.Put(ctx, []Letter{{ID: "late"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("Put with a context that has ended: %v", err)
		}
		must(t, f.Close())
	})
	ids(t, path, "begun")
}

// A full disk leaves nothing half-written, at whatever byte it is met; it goes on when there is room.
func TestFullDisk(t *testing.T) {
	for room := range 130 {
		disk := fsxtest.New()
		path := testPath(t)
		f := mustOpen(t, path, disk)
		must(t, f.Put(t.Context(), []Letter{{ID: "a"}}))
		disk.Room(int64(room))
		err := f.Put(t.Context(), []Letter{{ID: "b"}, {ID: "c"}})
		if e, ok := errors.AsType[*Error](err); !ok || e.Op != "write" || e.Path != path || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room %d: %v, want an *Error with ENOSPC", room, err)
		}
		ids(t, path, "a")
		disk.Room(-1)
		must(t, f.Put(t.Context(), []Letter{{ID: "d"}}))
		ids(t, path, "a", "d")
		must(t, f.Close())
	}
}

// A failed fsync takes the letters back, so that they can be put again.
func TestFailedFsync(t *testing.T) {
	disk := fsxtest.New()
	path := testPath(t)
	f := mustOpen(t, path, disk)
	must(t, f.Put(t.Context(), []Letter{{ID: "a"}}))
	disk.Fail(fsxtest.OpSync, syscall.EIO)
	if err := f.Put(t.Context(), []Letter{{ID: "b"}}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	ids(t, path, "a")
	disk.Fail(fsxtest.OpSync, nil)
	must(t, f.Put(t.Context(), []Letter{{ID: "b"}}))
	must(t, f.Close())
	ids(t, path, "a", "b")
}

// Nothing is written behind a torn letter that cannot be cut off.
func TestTornLetterThatCannotBeCutOff(t *testing.T) {
	disk := fsxtest.New()
	path := testPath(t)
	f := mustOpen(t, path, disk)
	disk.Room(10)
	disk.Fail(fsxtest.OpTruncate, syscall.EIO)
	if err := f.Put(t.Context(), []Letter{{ID: "a"}}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	disk.Room(-1)
	err := f.Put(t.Context(), []Letter{{ID: "b"}})
	if e, ok := errors.AsType[*Error](err); !ok || e.Op != "cut" || e.Offset != 0 {
		t.Fatalf("Put behind a torn letter: %v", err)
	}
	disk.Fail(fsxtest.OpTruncate, nil)
	must(t, f.Put(t.Context(), []Letter{{ID: "c"}}))
	must(t, f.Close())
	ids(t, path, "c")
}

func TestLockAndClose(t *testing.T) {
	path := testPath(t)
	f := mustOpen(t, path, fsx.OS{})
	if _, err := Open(Config{Path: path}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("second Open: %v, want ErrLocked and the path", err)
	}
	must(t, f.Close())
	must(t, f.Close())
	if err := f.Put(t.Context(), []Letter{{}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	f = mustOpen(t, path, fsx.OS{})
	must(t, f.Close())
	if _, err := Open(Config{}); err == nil {
		t.Error("Open without a path succeeds")
	}
}

// What cannot be a line is refused whole, before anything is written.
func TestTooLarge(t *testing.T) {
	path := testPath(t)
	f := mustOpen(t, path, fsx.OS{})
	letters := []Letter{{ID: "small"}, {ID: "large", Payload: make([]byte, MaxLine+1)}}
	if err := f.Put(t.Context(), letters); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Put: %v", err)
	}
	must(t, f.Close())
	ids(t, path)
}

// The directories and the file are durable, not only what is in them.
func TestOpenSyncsDirectories(t *testing.T) {
	disk := fsxtest.New()
	f := mustOpen(t, testPath(t), disk)
	must(t, f.Close())
	if got := strings.Join(disk.Log(), ","); !strings.Contains(got, "syncdir data ") || !strings.Contains(got, "syncdir dead ") {
		t.Errorf("Open does: %s", got)
	}
}

// Many goroutines put at the same time, while the disk fills up and empties: what Put acknowledged is there, once; what it did not is not.
func TestConcurrentPuts(t *testing.T) {
	disk := fsxtest.New()
	path := testPath(t)
	f := mustOpen(t, path, disk)
	const writers, each = 16, 40
	var mu sync.Mutex
	acked := map[string]bool{}
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				id := fmt.Sprint(w, "-", i)
				if w == 0 {
					disk.Room(int64((i%2)*2000 - 1))
				}
				payload := []byte(strings.Repeat("x", i*10))
				err := f.Put(t.Context(), []Letter{{ID: id + "a", Payload: payload}, {ID: id + "b"}})
				clear(payload) // the caller's again
				mu.Lock()
				acked[id+"a"], acked[id+"b"] = err == nil, err == nil
				mu.Unlock()
			}
		})
	}
	all.Wait()
	must(t, f.Close())
	letters, errs := readAll(path)
	if errs != nil {
		t.Fatal(errs)
	}
	for _, l := range letters {
		if !acked[l.ID] {
			t.Errorf("letter %s is there twice, or was not acknowledged", l.ID)
		}
		delete(acked, l.ID)
		if strings.Trim(string(l.Payload), "x") != "" {
			t.Errorf("letter %s has payload %q", l.ID, l.Payload)
		}
	}
	for id, ok := range acked {
		if ok {
			t.Errorf("letter %s was acknowledged and is lost", id)
		}
	}
}
