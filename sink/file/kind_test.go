package file

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
)

func TestKind(t *testing.T) {
	k := Kind()
	path := filepath.Join(t.TempDir(), "out")
	set := k.Settings.(Settings)
	set.Path = path
	set.Rotate.MaxBytes, set.Rotate.MaxAge = 8, time.Hour
	if p := set.Check(); len(p) > 0 {
		t.Fatalf("the defaults have problems: %v", p)
	}
	if c := set.Claims(); len(c) != 1 || c[0] != "file "+path {
		t.Errorf("claims %q", c)
	}
	made, err := k.NewSink(set, kind.Env{Name: "out"})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Open(t.Context(), sink.Env{}); err != nil {
		t.Fatal(err)
	}
	if err := made.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestKindSaysWhatIsWrong(t *testing.T) {
	bad := Settings{Mode: "overwrite", Sync: "always", Delimiter: strings.Repeat("-", 65), Rotate: RotateSettings{Keep: -1}}
	var fields []string
	for _, p := range bad.Check() {
		fields = append(fields, p.Field)
	}
	if got := strings.Join(fields, " "); got != "path mode delimiter sync rotate" {
		t.Errorf("problems with %s", got)
	}
	if c := bad.Claims(); c != nil {
		t.Errorf("a sink without a path claims %q", c)
	}
}
