package file

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock/internal/fsx"
	"github.com/penstock-dev/penstock/sink"
)

// The same on a disk that is really full: a tmpfs of 64 KiB. It needs leave to mount.
func TestFullDiskForReal(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("penstock-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("TestFullDiskForReal needs root to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, Config{Path: filepath.Join(dir, "out"), Sync: SyncFlush})
	r.Sink.fs = fsx.OS{}
	r.must(r.Open(t.Context(), sink.Env{}))
	defer r.Close(t.Context())
	var payloads []string
	for i := range 100 {
		payloads = append(payloads, strings.Repeat(string(rune('a'+i%26)), 999+i))
	}
	if err := errors.Join(r.write(payloads...), r.flush()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("100 KB on 64 KiB: %v", err)
	}
	var want strings.Builder
	for _, p := range payloads {
		if r.fate[p] == nil {
			want.WriteString(p + "\n")
		}
	}
	if n := want.Len(); n < 60_000 || n > 64<<10 {
		t.Errorf("%d bytes are done", n)
	}
	r.holds(r.cfg.Path, want.String())
	r.must(os.Truncate(r.cfg.Path, 0)) // an operator makes room
	r.must(r.write("more"))
	r.must(r.flush())
	r.holds(r.cfg.Path, "more\n")
}
