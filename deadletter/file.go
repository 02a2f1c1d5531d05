package deadletter

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/penstock-dev/penstock/internal/fsx"
)

// Letters are the messages of users: nobody else needs to read them.
const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// Path is where the file of dead letters lies in a data directory.
func Path(dataDir string) string { return filepath.Join(dataDir, "dead", "letters.ndjson") }

// Config is the settings of a [File].
type Config struct {
	Path   string       // the file; see [Path]. Its directory is made if it is missing
	Logger *slog.Logger // told of a torn tail; may be nil
}

// File is a [Store] in one append-only file, a JSON object a line, to be read with [Read], jq or grep. Concurrent Puts are gathered:
// while one fsync runs the next group forms, and has one fsync for all.
//
//	Put ─┐                ┌─> nil
//	Put ─┼─> group: write, fsync ─> nil
//	Put ─┘                └─> nil
//
// The file is locked while it is open.
type File struct {
	path string
	torn int64
	log  *fsx.Log     // of the goroutine run
	out  bytes.Buffer // of the goroutine run

	mu     sync.Mutex // guards all below
	wake   sync.Cond  // queue has grown, or closed is set
	queue  []*request
	closed bool
	ended  chan struct{} // run has returned
	err    error         // of closing; set before ended is closed
}

// request is one Put.
type request struct {
	lines []byte
	done  chan struct{}
	err   error // set before done is closed
}

var _ Store = (*File)(nil)

// Open opens the file, creates it and its directory if they are missing, and takes off what a crash left of a letter at its end: that
// letter was never acknowledged. It fails with an [Error]; that is [ErrLocked] if somebody else has the file open.
func Open(cfg Config) (*File, error) { return open(cfg, fsx.OS{}) }

func open(cfg Config, fsys fsx.FS) (*File, error) {
	if cfg.Path == "" {
		return nil, errors.New("dead letters: config: path is missing: name the file, see Path")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Dir(cfg.Path)
	if err := fsx.Mkdir(fsys, dir, dirPerm); err != nil {
		return nil, &Error{
			Op: "open", Path: cfg.Path, Err: err,
			Hint: "the directory " + dir + " cannot be made: make it, or change the data directory",
		}
	}
	log, err := fsx.OpenLog(fsys, cfg.Path, filePerm)
	if err != nil {
		return nil, openError(cfg.Path, err)
	}
	f := &File{path: cfg.Path, log: log, ended: make(chan struct{})}
	f.wake.L = &f.mu
	if err := f.trim(cfg.Logger); err != nil {
		return nil, errors.Join(openError(cfg.Path, err), log.Close())
	}
	if err := fsys.SyncDir(dir); err != nil {
		return nil, errors.Join(openError(cfg.Path, err), log.Close())
	}
	go f.run()
	return f, nil
}

func openError(path string, err error) error {
	e := &Error{Op: "open", Path: path, Err: err}
	switch {
	case errors.Is(err, fsx.ErrLocked):
		e.Hint = "another process uses this data directory: stop it, or give each a directory of its own"
	case errors.Is(err, fsx.ErrNoRecord):
		e.Hint = "it does not look like a file of dead letters: move it away"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "give this user leave to write the file and its directory"
	}
	return e
}

// trim cuts a torn tail off.
func (f *File) trim(logger *slog.Logger) error {
	end, err := f.log.LastEnd([]byte{'\n'}, MaxLine)
	if err != nil || end == f.log.Size() {
		return err
	}
	f.torn = f.log.Size() - end
	if err := f.log.Cut(end); err != nil {
		return err
	}
	logger.Warn("dead letters: the file ended within a letter, as after a crash; it was never acknowledged and was cut off",
		"path", f.path, "offset", end, "bytes", f.torn)
	return nil
}

// Torn is the number of bytes that Open has cut off the end of the file.
func (f *File) Torn() int64 { return f.torn }

// Put makes letters durable, all or none. It fails with an [Error] if the file cannot be written, with [ErrTooLarge], with [ErrClosed],
// or with ctx's error if ctx ends before the writing has begun; then none of them is in the file. Once the writing has begun Put waits
// for its end.
func (f *File) Put(ctx context.Context, letters []Letter) error {
	if len(letters) == 0 {
		return nil
	}
	var buf bytes.Buffer
	for i := range letters {
		id := letters[i].ID
		if id == "" {
			id = rand.Text()
		}
		if err := appendLine(&buf, &letters[i], id); err != nil {
			return err
		}
	}
	r := &request{lines: buf.Bytes(), done: make(chan struct{})}
	if err := f.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if f.withdraw(r) {
			return notPut(ctx)
		}
		<-r.done
	}
	return r.err
}

func notPut(ctx context.Context) error {
	return fmt.Errorf("dead letters: not put: %w", context.Cause(ctx))
}

func (f *File) enqueue(ctx context.Context, r *request) error {
	if ctx.Err() != nil {
		return notPut(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	f.queue = append(f.queue, r)
	f.wake.Signal()
	return nil
}

// withdraw takes r back, unless its writing has begun.
func (f *File) withdraw(r *request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.queue, r)
	if i < 0 {
		return false
	}
	f.queue = slices.Delete(f.queue, i, i+1)
	return true
}

// Close waits for the Puts that have begun, and closes the file. A second Close does nothing and returns the same.
func (f *File) Close() error {
	f.mu.Lock()
	f.closed = true
	f.wake.Signal()
	f.mu.Unlock()
	<-f.ended
	return f.err
}

// run writes group after group, until the store is closed and nothing waits.
func (f *File) run() {
	defer close(f.ended)
	for {
		group := f.next()
		if len(group) == 0 {
			break
		}
		err := f.commit(group)
		for _, r := range group {
			r.err = err
			close(r.done)
		}
	}
	err := f.log.Mend()
	if closeErr := f.log.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		f.err = &Error{Op: "close", Path: f.path, Offset: f.log.Good(), Err: err}
	}
}

// next waits for requests and takes all; none at the end.
func (f *File) next() []*request {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.queue) == 0 && !f.closed {
		f.wake.Wait()
	}
	group := f.queue
	f.queue = nil
	return group
}

// commit makes a group durable, or leaves nothing of it.
func (f *File) commit(group []*request) error {
	if err := f.log.Mend(); err != nil {
		return &Error{
			Op: "cut", Path: f.path, Offset: f.log.Good(), Err: err,
			Hint: "a torn letter is at the end of the file; nothing is written before it can be cut off",
		}
	}
	lines := group[0].lines
	if len(group) > 1 {
		f.out.Reset()
		for _, r := range group {
			f.out.Write(r.lines)
		}
		lines = f.out.Bytes()
	}
	good := f.log.Size()
	if _, err := f.log.Write(lines); err != nil {
		return f.failed("write", good, err)
	}
	if err := f.log.Sync(); err != nil {
		return f.failed("sync", good, err)
	}
	if f.out.Cap() > keepBuffer {
		f.out = bytes.Buffer{}
	}
	return nil
}

// keepBuffer is the largest buffer that is kept between groups, in bytes.
const keepBuffer = 1 << 20

// failed cuts the group off. If that fails too, the log remembers it.
func (f *File) failed(op string, good int64, cause error) error {
	e := &Error{Op: op, Path: f.path, Offset: good, Err: cause, Hint: "the letters are not in the file; put them again when there is room"}
	if op == "sync" {
		e.Hint = "the letters are not safe, so they were taken back; put them again"
	}
	if err := f.log.Cut(good); err != nil {
		e.Hint += fmt.Sprintf(" (a torn letter could not be cut off yet: %v)", fsx.Cause(err))
	}
	return e
}
