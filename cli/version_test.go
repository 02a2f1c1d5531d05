package cli

import (
	"runtime/debug"
	"testing"
)

func TestRevision(t *testing.T) {
	if got := revision(nil); got != "" {
		t.Errorf("without version control: %q", got)
	}
	got := revision([]debug.BuildSetting{
		{Key: "vcs.revision", Value: "c0ffee"},
		{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
		{Key: "vcs.modified", Value: "true"},
	})
	if want := "revision c0ffee of 2026-01-02T03:04:05Z, with changes\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
