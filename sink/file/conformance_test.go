package file

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/penstock-dev/penstock/internal/fsx/fsxtest"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/sink/sinktest"
)

// The file sink sits the exam of all sinks, under each policy of fsync, with small and usual buffers and with a delimiter of its own.
func TestConformance(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Sync: SyncFlush},
		{Sync: SyncClose, Buffer: minBuffer},
		{Sync: SyncFlush, Buffer: minBuffer, Delimiter: "<end of message>"},
	} {
		t.Run(fmt.Sprintf("sync %s buffer %d delimiter %q", cfg.Sync, cfg.Buffer, cfg.Delimiter), func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Fixture { return fixture(t, cfg) })
		})
	}
}

func fixture(t *testing.T, cfg Config) sinktest.Fixture {
	disk := fsxtest.New()
	cfg.Path = filepath.Join(t.TempDir(), "out")
	delim := []byte("\n")
	if cfg.Delimiter != "" {
		delim = []byte(cfg.Delimiter)
	}
	return sinktest.Fixture{
		New:      func() (sink.Sink, error) { return newSink(cfg, disk) },
		Read:     func() ([]sinktest.Message, error) { return readBack(cfg.Path, delim) },
		Break:    func(after int) { disk.Room(int64(after)) },
		Mend:     func() { disk.Room(-1) },
		Promises: sinktest.Promises{Exact: true, Keeps: true, Binary: len(delim) > 1},
	}
}

// readBack splits a file; what follows the last delimiter counts as a message, so that a torn one is seen.
func readBack(path string, delim []byte) (msgs []sinktest.Message, err error) {
	data, err := os.ReadFile(path)
	for len(data) > 0 {
		var p []byte
		p, data, _ = bytes.Cut(data, delim)
		msgs = append(msgs, sinktest.Message{Payload: p})
	}
	return msgs, err
}
