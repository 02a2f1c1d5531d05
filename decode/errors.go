package decode

import (
	"errors"
	"fmt"
)

// Reasons for an [Error], to be asked for with errors.Is.
var (
	// ErrTooLarge says that a message is longer than Options.MaxMessage.
	ErrTooLarge = errors.New("message too large")
	// ErrBadLength says that a length prefix is no number of 64 bits.
	ErrBadLength = errors.New("length prefix is longer than 64 bits")
	// ErrTruncated says that the input ends within a message.
	ErrTruncated = errors.New("input ends within a message")
)

// Error says what is wrong with a stream of bytes, and where. It costs the stream that it is found in, no other.
type Error struct {
	Framing string
	Offset  uint64 // in the stream, of the first byte of the frame (its prefix, if it has one)
	Length  uint64 // as announced, in bytes; 0 where unknown; Max+1 where it is only known to be more than Max
	Max     int    // the largest message allowed, in bytes
	Err     error  // ErrTooLarge, ErrBadLength or ErrTruncated
}

// Error names the framing, the place and what to do.
func (e *Error) Error() string {
	where := fmt.Sprintf("decode %s: frame at offset %d: %v", e.Framing, e.Offset, e.Err)
	switch {
	case errors.Is(e.Err, ErrTooLarge):
		n := fmt.Sprintf("%d bytes", e.Length)
		if e.Length == uint64(e.Max)+1 && (e.Framing == "lines" || e.Framing == "whole") {
			n = fmt.Sprintf("more than %d bytes", e.Max)
		}
		return fmt.Sprintf("%s: %s, the limit is %d: raise the limit, or check that the input is framed by %s", where, n, e.Max, e.Framing)
	case errors.Is(e.Err, ErrBadLength):
		return where + ": check that the input is framed by " + e.Framing
	case errors.Is(e.Err, ErrTruncated):
		if e.Length > 0 {
			return fmt.Sprintf("%s of %d bytes: its producer stopped early, or the length is wrong", where, e.Length)
		}
	}
	return where
}

// Unwrap is the reason.
func (e *Error) Unwrap() error { return e.Err }
