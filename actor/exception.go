package actor

import (
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// exceptionOf is what a loop is told of a message whose verdict is err, which is not nil.
func exceptionOf(index uint32, err error) loop.Exception {
	kind, after := plugin.Classify(err)
	return loop.Exception{Index: index, What: whatOf(kind), After: loop.TicksOf(after), Cause: err}
}

// whatOf says a verdict, other than an acknowledgement, in the loop's words.
func whatOf(k plugin.Kind) loop.What {
	switch k {
	case plugin.KindReject:
		return loop.Rejected
	case plugin.KindRetry:
		return loop.Retried
	default:
		return loop.Failed
	}
}
