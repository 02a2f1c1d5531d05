package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// watchEvery is how often --watch looks at the files.
const watchEvery = 500 * time.Millisecond

// watch loads the pipeline again whenever its files have changed and have been left alone for one look, until ctx ends. It looks at names,
// sizes and times: that sees files that are replaced, and links that are turned, on every file system.
func (d *daemon) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	loaded := d.fingerprint()
	last := loaded
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := d.fingerprint()
		if now != loaded && now == last {
			loaded = now
			_, _ = d.Reload(ctx, "watch") // the log has said how it went
		}
		last = now
	}
}

// fingerprint differs when the pipeline's files do.
func (d *daemon) fingerprint() string {
	paths := []string{d.flags.config}
	if entries, err := os.ReadDir(d.flags.config); err == nil {
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
				paths = append(paths, d.flags.config+string(os.PathSeparator)+name)
			}
		}
	}
	var out strings.Builder
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&out, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		} else {
			fmt.Fprintf(&out, "%s %v\n", path, err)
		}
	}
	return out.String()
}
