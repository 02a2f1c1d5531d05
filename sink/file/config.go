package file

import (
	"fmt"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/internal/fsx"
)

// Mode says what becomes of a file that is there already.
type Mode string

const (
	// Append writes behind what is there. It is the default.
	Append Mode = "append"
	// Truncate empties the file at the first Write, or at Close if there was none: a run that does not start leaves what the last one
	// wrote. A sink that takes the place of another while a pipeline runs empties nothing.
	Truncate Mode = "truncate"
)

// Sync says when fsync is called, and so what "written" means.
type Sync string

const (
	// SyncNone never calls fsync: a message is done when the operating system has it. That survives a crash of the process, but not a
	// power cut. It is the default.
	SyncNone Sync = "none"
	// SyncFlush calls fsync at each Flush, before each rotation and at Close; a message is done after the fsync, so it survives a power
	// cut.
	SyncFlush Sync = "flush"
	// SyncClose calls fsync at Close and before each rotation. Messages are done as with SyncNone; an fsync that fails is reported by
	// Close, but can no longer fail them.
	SyncClose Sync = "close"
)

// Rotate says when the sink starts a new file: between messages, never within one. The file that was is renamed to path.1, path.1 to
// path.2, and so on.
type Rotate struct {
	// MaxBytes is the largest size of a file in bytes, delimiters included; 0 for no bound. A single message that is larger still gets a
	// file of its own.
	MaxBytes int64
	// MaxAge is the longest that one file is written to, counted from Open or from when the sink created it; 0 for ever. It is looked at
	// when a batch comes, and an empty file is not rotated.
	MaxAge time.Duration
	// Keep is the number of old files that are kept; 0 means 5.
	Keep int
}

// Config is the settings of a file sink. Only Path has to be set.
type Config struct {
	// Path is the file. Its directory must exist, unless CreateDir is set.
	Path string
	// CreateDir makes the directory, and those above it, if they are not there. Without it a disk that is not mounted is an error, and not
	// a file in its place.
	CreateDir bool
	// Mode is [Append] or [Truncate]; empty means Append.
	Mode Mode
	// Delimiter ends each message; empty means a newline. At most 64 bytes. Payloads are written as they are: one that contains the
	// delimiter reads back as two.
	Delimiter string
	// Sync is [SyncNone], [SyncFlush] or [SyncClose]; empty means SyncNone.
	Sync Sync
	// Rotate says when a new file is started; the zero value means never.
	Rotate Rotate
	// Buffer is the size in bytes of the buffer that gathers small messages into one write; 0 means 64 KiB, at least 4 KiB. A message of
	// more than a quarter of it is written from where it lies.
	Buffer int
}

const (
	defaultBuffer = 64 << 10
	minBuffer     = 4 << 10
	maxDelimiter  = 64
	defaultKeep   = 5
)

// check fills in what is not set and refuses what makes no sense. All that is wrong is reported at once.
func (c *Config) check() error {
	c.fill()
	if err := join(c.problems()); err != nil {
		return fmt.Errorf("file sink: config: %w", err)
	}
	return nil
}

func (c *Config) fill() {
	if c.Mode == "" {
		c.Mode = Append
	}
	if c.Delimiter == "" {
		c.Delimiter = "\n"
	}
	if c.Sync == "" {
		c.Sync = SyncNone
	}
	if c.Buffer == 0 {
		c.Buffer = defaultBuffer
	}
	if c.Rotate.Keep == 0 {
		c.Rotate.Keep = defaultKeep
	}
}

// problems are the settings that make no sense, once those that are not set have been filled in.
func (c *Config) problems() (out []problem) {
	refuse := func(bad bool, field, format string, args ...any) {
		if bad {
			out = append(out, problem{field, fmt.Sprintf(format, args...)})
		}
	}
	refuse(c.Path == "", "path", "path is missing: name the file to write")
	refuse(c.Mode != Append && c.Mode != Truncate, "mode", "mode %q: want %q or %q", c.Mode, Append, Truncate)
	refuse(len(c.Delimiter) > maxDelimiter, "delimiter", "delimiter has %d bytes: at most %d", len(c.Delimiter), maxDelimiter)
	refuse(c.Sync != SyncNone && c.Sync != SyncFlush && c.Sync != SyncClose, "sync",
		"sync %q: want %q, %q or %q", c.Sync, SyncNone, SyncFlush, SyncClose)
	refuse(c.Buffer < minBuffer, "buffer", "buffer of %d bytes: at least %d", c.Buffer, minBuffer)
	refuse(c.Rotate.MaxBytes < 0 || c.Rotate.MaxAge < 0 || c.Rotate.Keep < 0, "rotate", "rotate: no setting can be negative")
	return out
}

// ErrLocked says that the file is being written by somebody else: another process, or another sink of this one. It is wrapped in an
// [Error].
var ErrLocked = fsx.ErrLocked

// Error is a failed operation on the sink's file. Messages that fail with it are not in the file, so they can be tried again without a
// duplicate; the sink goes on as soon as the cause is gone. errors.Is sees the cause, for example syscall.ENOSPC.
type Error struct {
	Op     string // open, write, sync, cut, rotate, close
	Path   string
	Offset int64  // where the file is good up to, in bytes
	Hint   string // what to do about it; may be empty
	Err    error
}

// Error names the operation, file, offset and cause, and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "file sink: %s %s at offset %d: %v", e.Op, e.Path, e.Offset, fsx.Cause(e.Err))
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }
