package socket

import (
	"errors"
	"fmt"
)

// Reasons for a [RefusedError] beside those of package decode, to be asked for with errors.Is.
var (
	// ErrToken says that the first message of a connection was not the token.
	ErrToken = errors.New("wrong token")
	// ErrLate says that TLS and token were not there in time.
	ErrLate = errors.New("the handshake took too long")
	// ErrConnections says that there were as many connections as may be.
	ErrConnections = errors.New("too many connections")
	// ErrIdle says that a connection has sent nothing for longer than its idle timeout.
	ErrIdle = errors.New("nothing was sent for too long")
	// ErrMemory says that unfinished messages used up the source's memory, and this connection's was one of them.
	ErrMemory = errors.New("no memory for the rest of the message")
	// ErrReset says that a connection broke within a message.
	ErrReset = errors.New("the connection broke within a message")
)

// RefusedError says that a connection was refused, or given up, and why. Its messages up to there are not concerned. It is reported, and
// costs no other connection anything.
type RefusedError struct {
	Source string // the address or path that the source listens at
	Remote string // the peer; empty if it has no name
	Err    error  // one of the reasons above, a *decode.Error, or what TLS says
}

// Error names both ends, the reason and what to do.
func (e *RefusedError) Error() string {
	from := e.Remote
	if from == "" || from == "@" {
		from = "a local peer"
	}
	return fmt.Sprintf("socket source %s: connection of %s refused: %v%s", e.Source, from, e.Err, advice(e.Err))
}

// Unwrap is the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// advice is what to do about a reason; a *decode.Error says that itself.
func advice(err error) string {
	for _, a := range [...]struct {
		reason error
		advice string
	}{
		{ErrToken, ": send the token as the first message"},
		{ErrLate, ": send the token at once, and check that client and server agree on TLS"},
		{ErrConnections, ": close some, or raise max_connections"},
		{ErrIdle, ": connect again when there is something to send, or raise idle_timeout"},
		{ErrMemory, ": send the message again, whole, or give the pipeline more memory"},
		{ErrReset, ": send the message again"},
	} {
		if errors.Is(err, a.reason) {
			return a.advice
		}
	}
	return ""
}

// notReady says that a read would wait. It is a net.Error that passes, so that crypto/tls goes on after it.
type notReady struct{}

// Error is the sentence.
func (notReady) Error() string { return "nothing to read yet" }

// Timeout is true: nothing came in no time.
func (notReady) Timeout() bool { return true }

// Temporary is true: a later read may find something.
func (notReady) Temporary() bool { return true }
