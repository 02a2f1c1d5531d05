package file

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
)

func TestKind(t *testing.T) {
	k := Kind()
	s, ok := k.Settings.(Settings)
	if !ok {
		t.Fatalf("settings are a %T", k.Settings)
	}
	if p := s.Check(); len(p) != 1 || p[0].Field != "path" {
		t.Errorf("the defaults have the problems %v", p)
	}
	s.Path, s.Follow = "in", true
	if p := s.Check(); len(p) != 0 {
		t.Errorf("problems %v", p)
	}
	for _, path := range []string{"in/*.ndjson", "in?", "[ab]"} {
		if p := (Settings{Path: path, Poll: 1}).Check(); len(p) != 1 || !strings.Contains(p[0].Message, "no globs: name one file") {
			t.Errorf("%s: problems %v", path, p)
		}
	}
	made, err := k.NewSource(s, kind.Env{Frame: "lines", Delimiter: ";"})
	if err != nil {
		t.Fatal(err)
	}
	f, ok := made.(*Source)
	if !ok {
		t.Fatalf("made a %T", made)
	}
	if want := (Config{Path: "in", Follow: true, Framing: "lines", Delimiter: ";", Poll: DefaultPoll}); f.cfg != want {
		t.Errorf("made from %+v, want %+v", f.cfg, want)
	}
	if _, err := k.NewSource(s, kind.Env{Frame: "whole"}); err == nil {
		t.Error("a followed file may be framed as a whole")
	}
	s.Poll = -time.Second
	if p := s.Check(); len(p) != 1 || p[0].Field != "poll" {
		t.Errorf("problems %v", p)
	}
}
