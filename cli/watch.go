package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/penstock-dev/penstock"
)

// watchEvery is how often --watch looks at the files.
const watchEvery = 500 * time.Millisecond

// watch loads the pipeline again whenever its files have changed and have been left alone for one look, until ctx ends. It looks at names,
// sizes and times: that sees files that are replaced, and links that are turned, on every file system.
func (d *daemon) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	loaded := d.flags.seen
	last := loaded
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := fingerprint(d.flags.config)
		if now != loaded && now == last {
			if _, err := d.Reload(ctx, "watch"); !errors.Is(err, penstock.ErrChanging) { // else at the next look; the log has said how it went
				loaded = now
			}
		}
		last = now
	}
}

// fingerprint differs when the pipeline's files do.
func fingerprint(path string) string {
	paths := []string{path}
	if entries, err := os.ReadDir(path); err == nil {
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
				paths = append(paths, path+string(os.PathSeparator)+name)
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
