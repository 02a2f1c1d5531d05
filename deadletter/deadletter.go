// Package deadletter keeps the messages that nobody will try again: with all that was known of them, until somebody has looked.
//
// A [Store] is small on purpose: the runtime asks it only to make letters durable, before the source hears that their messages are
// settled. [File] is the store that needs nothing but a directory; [Read] shows what is in it.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/internal/fsx"
)

// Letter is a message that was rejected, or that failed too often, and why. Whoever has a Letter owns it; [Store.Put] borrows.
type Letter struct {
	ID      string // names the letter; if it is empty the store chooses one
	Payload []byte
	Key     []byte   // nil if it has none
	Headers []Header // in the order in which they were set

	Source   string // the source that the message, or its root, came from
	Stream   string // the stream by which the plugin got it
	Plugin   string // the plugin, or sink, that gave it up
	Version  string // of the plugin; may be empty
	Attempts int    // deliveries to the plugin
	Reason   string // the last error; at most [MaxReason] bytes are kept

	// Wall clock times, kept to the nanosecond, in UTC; zero if not known.
	Accepted time.Time // the source took responsibility
	First    time.Time // first delivery to the plugin
	Died     time.Time // given up
}

// Header is one header of a message.
type Header struct {
	Name  string
	Value []byte
}

// Store keeps letters. Its methods may be called concurrently.
type Store interface {
	// Put stores letters, all or none. They are durable when it returns nil. It reads them before it returns and not after; it keeps no
	// part of them. An error says that none is durable, though after a crash some may turn up.
	Put(ctx context.Context, letters []Letter) error
	// Close waits for what is being put, and ends the store. Put fails with [ErrClosed] from then on.
	Close() error
}

// Bounds of a letter in a [File].
const (
	// MaxLine is the largest size in bytes of one letter as a line.
	MaxLine = 256 << 20
	// MaxReason is how many bytes of a reason are kept.
	MaxReason = 16 << 10
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrClosed says that the store has been closed.
	ErrClosed = errors.New("dead letters: the store is closed")
	// ErrTooLarge says that a letter is longer than MaxLine.
	ErrTooLarge = errors.New("dead letters: the letter is too large")
	// ErrLocked says that another process, or another store of this one, has the file. It is wrapped in an [Error].
	ErrLocked = fsx.ErrLocked
	// ErrTorn says that the file ends within a letter: a crash, or a reader beside a running Put. It is wrapped in a [LineError].
	ErrTorn = errors.New("the file ends within a letter, which was never acknowledged")
)

// Error is a failed operation on the file. After it nothing half-written is in the file, or it will be cut off before anything else is
// written; Put can be called again, and works as soon as the cause is gone. errors.Is sees the cause, for example syscall.ENOSPC.
type Error struct {
	Op     string // open, write, sync, cut, close
	Path   string
	Offset int64  // where the file is good up to, in bytes
	Hint   string // what to do about it; may be empty
	Err    error
}

// Error names the operation, file, offset and cause, and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dead letters: %s %s at offset %d: %v", e.Op, e.Path, e.Offset, fsx.Cause(e.Err))
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// LineError is a line that holds no letter. Reading goes on behind it.
type LineError struct {
	Line   int   // from 1
	Offset int64 // of the line's first byte
	Err    error
}

// Error names the line, its offset and what is wrong.
func (e *LineError) Error() string {
	return fmt.Sprintf("dead letters: line %d at offset %d: %v", e.Line, e.Offset, e.Err)
}

// Unwrap is what is wrong.
func (e *LineError) Unwrap() error { return e.Err }
