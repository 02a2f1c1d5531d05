//go:build unix

package pipetest

import (
	"context"
	"errors"
	"testing"

	"github.com/penstock-dev/penstock/plugin"
)

// Promise: using bytes after Handle has returned fails the test, with the line that did.
func TestUseAfterReturn(t *testing.T) {
	got := mustRun(t, map[string]handle{"p": func(ctx context.Context, h *handler, m *plugin.Message) error {
		if h.kept != nil && h.kept[0] == 'x' {
			return errors.New("it must not come so far")
		}
		h.kept = m.Payload()
		return copies(ctx, h, m)
	}}, through(", retry: { backoff: 1s, max: 1s }"), `
tests:
  - name: it keeps what is lent
    input: [ payload: xa, payload: xb ]
    expect: { out: [ xa, xb ], counts: { panics: 1 } }
`)
	fails(t, got, "it keeps what is lent", `penstock_test.yaml:3: plugin "p" used bytes of a message after Handle had returned`,
		"lent_unix_test.go:", "keep what you need with Clone or Hold")
}
