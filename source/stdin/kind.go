package stdin

import (
	"io"
	"sync/atomic"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// Settings is what the file of a pipeline says of a source of kind stdin: nothing.
type Settings struct{}

var _ kind.Claimer = Settings{}

// Claims says that the input is one source's.
func (Settings) Claims() []string { return []string{"stdin"} }

// Kind is the kind of source that reads in, which is the process's standard input as a rule.
func Kind(in io.Reader) kind.Kind {
	about := kind.About{
		Name:    "stdin",
		Summary: "Messages that are piped into the process.",
		Doc: "The source ends with its input. It cannot be read again: what was read and not settled when the process dies is lost, so over " +
			"a crash delivery is at most once.",
		Example: "stdin: {}\nframe: lines\n",
	}
	taken := new(atomic.Bool)
	return kind.Source(about, Settings{}, func(_ Settings, env kind.Env) (source.Source, error) {
		s, err := New(Config{Reader: in, Framing: env.Frame, Delimiter: env.Delimiter})
		if err == nil {
			s.taken = taken
		}
		return s, err
	})
}
