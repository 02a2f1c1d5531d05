// Package standard is the kinds of sources, plugins and sinks that come with Penstock.
package standard

import (
	"os"

	"github.com/penstock-dev/penstock/builtin"
	"github.com/penstock-dev/penstock/kind"
	sinkfile "github.com/penstock-dev/penstock/sink/file"
	"github.com/penstock-dev/penstock/sink/httpout"
	"github.com/penstock-dev/penstock/sink/stdout"
	sinktcp "github.com/penstock-dev/penstock/sink/tcp"
	sourcefile "github.com/penstock-dev/penstock/source/file"
	"github.com/penstock-dev/penstock/source/httpin"
	"github.com/penstock-dev/penstock/source/socket"
	"github.com/penstock-dev/penstock/source/stdin"
)

// Kinds makes a registry of them, to which a binary adds plugins of its own.
func Kinds() *kind.Registry {
	r := kind.NewRegistry(
		sourcefile.Kind(), stdin.Kind(os.Stdin), socket.TCP(), socket.Unix(), httpin.Kind(),
		sinkfile.Kind(), stdout.Kind(), sinktcp.Kind(), httpout.Kind(),
	)
	for _, k := range builtin.Kinds() {
		r.Add(k)
	}
	return r
}
