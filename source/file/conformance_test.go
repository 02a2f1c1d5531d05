package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// fixture is a file that messages are appended to, a line each.
type fixture struct {
	cfg Config
}

func newFixture(t testing.TB, follow bool) *fixture {
	f := &fixture{Config{Path: filepath.Join(t.TempDir(), "in.ndjson"), Follow: follow, Poll: time.Millisecond}}
	f.Put(t, nil)
	return f
}

func (f *fixture) Put(t testing.TB, messages [][]byte) {
	var data []byte
	for _, m := range messages {
		data = append(append(data, m...), '\n')
	}
	add(t, f.cfg.Path, string(data))
}

func (f *fixture) Open(t testing.TB) source.Source {
	s, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// add appends to a file and makes it if need be.
func add(t testing.TB, path, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = f.WriteString(data)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	sourcetest.Run(t, sourcetest.Features{Ends: true}, func(t *testing.T) sourcetest.Fixture { return newFixture(t, false) })
}

func TestConformanceFollow(t *testing.T) {
	features := sourcetest.Features{Append: true, Cursor: true}
	sourcetest.Run(t, features, func(t *testing.T) sourcetest.Fixture { return newFixture(t, true) })
}
