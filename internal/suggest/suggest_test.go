package suggest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/internal/suggest"
)

func TestSuggestions(t *testing.T) {
	known := []string{"sources", "plugins", "sinks", "log"}
	many := slices.Repeat([]string{"plugins"}, 513)
	for _, c := range []struct {
		wrong       string
		known       []string
		did, listed string
	}{
		{"soruces", known, ` (did you mean "sources"?)`, ` (did you mean "sources"?)`},
		{"plugin", known, ` (did you mean "plugins"?)`, ` (did you mean "plugins"?)`},
		{"lgo", known, ` (did you mean "log"?)`, ` (did you mean "log"?)`},
		{"lx", known, "", ": there are sources, plugins, sinks, log"},
		{"", known, "", ": there are sources, plugins, sinks, log"},
		{"x", nil, "", ""},
		{"plugin", many, "", ""},
		{strings.Repeat("x", 65), []string{strings.Repeat("x", 64)}, "", ": there are " + strings.Repeat("x", 64)},
	} {
		if got := suggest.DidYouMean(c.wrong, c.known); got != c.did {
			t.Errorf("DidYouMean(%.10q): %q, want %q", c.wrong, got, c.did)
		}
		if got := suggest.OrList(c.wrong, c.known); got != c.listed {
			t.Errorf("OrList(%.10q): %q, want %q", c.wrong, got, c.listed)
		}
	}
}
