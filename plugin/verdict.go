package plugin

import (
	"errors"
	"fmt"
	"time"
)

// Kind is what became of one delivery of one message.
type Kind uint8

// The verdicts.
const (
	KindAck    Kind = iota // done
	KindFail               // an error without a verdict: the plugin's retry policy decides
	KindRetry              // asked to come again
	KindReject             // goes to the dead letters
	KindHold               // the verdict comes later, through a Held
)

// String is the kind in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

var kindNames = [...]string{"ack", "fail", "retry", "reject", "hold"}

// Errors that the runtime answers with. They are compared with [errors.Is].
var (
	// ErrLeaseLost is the answer of a Held whose lease has lapsed or was revoked: the message is being retried, its verdict no longer
	// counts.
	ErrLeaseLost = errors.New("lease lost: the message is being redelivered, this verdict no longer counts")
	// ErrVerdictGiven is the answer of a Held that has had its verdict.
	ErrVerdictGiven = errors.New("verdict given before: a held message takes one verdict")
	// ErrAlreadyHeld is the answer to a second Hold of one delivery.
	ErrAlreadyHeld = errors.New("already held: one delivery can be held once")
	// ErrReturned is the answer of a Message that is used after Handle has returned.
	ErrReturned = errors.New("message used after Handle returned: keep what you need with Clone or Hold")
	// ErrUndeclared is the answer to an emit to a stream that the plugin did not declare.
	ErrUndeclared = errors.New("stream is not declared in the plugin's emits: add it there")
	// ErrEmitTooLarge is the answer to an emit beyond the bound for one message or one call.
	ErrEmitTooLarge = errors.New("emit too large")
	// ErrPanic marks the failure of a message whose handler panicked.
	ErrPanic = errors.New("handler panicked")
	// ErrOverdue is the cause with which the context of a handler that takes too long is cancelled.
	ErrOverdue = errors.New("handler overdue: it has run longer than the plugin's timeout")
)

var errNotLinked = errors.New("not a parent of an emit")

type verdict struct {
	kind  Kind
	cause error
	after time.Duration
}

// Error names the verdict and its cause.
func (v *verdict) Error() string {
	switch {
	case v.cause == nil:
		return v.kind.String()
	case v.kind == KindRetry && v.after > 0:
		return fmt.Sprintf("retry after %v: %v", v.after, v.cause)
	default:
		return fmt.Sprintf("%v: %v", v.kind, v.cause)
	}
}

// Unwrap is the cause.
func (v *verdict) Unwrap() error { return v.cause }

// Retry is the verdict "let it come again after that long"; it counts as an attempt. With after 0 the plugin's backoff decides. The
// message is lost to nobody: other plugins do not see it twice.
func Retry(cause error, after time.Duration) error {
	return &verdict{kind: KindRetry, cause: cause, after: after}
}

// Reject is the verdict "never again": the message goes to the dead letters with cause as the reason, and counts as settled once that
// is on disk.
func Reject(cause error) error { return &verdict{kind: KindReject, cause: cause} }

// Classify reads the verdict that an error of a handler carries, however deeply it is wrapped: nil is KindAck, an error that is no
// verdict is KindFail. The cause is the error itself.
func Classify(err error) (k Kind, after time.Duration) {
	if err == nil {
		return KindAck, 0
	}
	var v *verdict
	if errors.As(err, &v) {
		return v.kind, v.after
	}
	return KindFail, 0
}
