package file

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// Settings is what the file of a pipeline says of a source of kind file.
type Settings struct {
	Path   string        `yaml:"path" jsonschema:"required,example=./in.ndjson" jsonschema_description:"File to read."`
	Follow bool          `yaml:"follow" jsonschema_description:"Wait for more at the end, across rotation, and go on there after a restart. Otherwise the file is read once, from its beginning."`
	Poll   time.Duration `yaml:"poll" jsonschema:"example=1s" jsonschema_description:"With follow: how often to look for more."`
}

var (
	_ kind.Checked = Settings{}
	_ kind.Claimer = Settings{}
)

// Claims says that the file is read: no sink may write it.
func (s Settings) Claims() []string {
	path, err := filepath.Abs(s.Path)
	if s.Path == "" || err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return []string{"read " + path}
}

// Kind is the kind of source that reads a file.
func Kind() kind.Kind {
	about := kind.About{
		Name:    "file",
		Summary: "Messages of a file, read once or followed as it grows.",
		Doc: "With `follow` the place up to which all is settled is kept in the data directory, and reading goes on there after a " +
			"restart. Files that are rotated by renaming are read to their end first.",
		Example: "file: { path: in.ndjson, follow: true }\nframe: lines\n",
	}
	return kind.Source(about, Settings{Poll: DefaultPoll}, func(s Settings, env kind.Env) (source.Source, error) {
		return New(Config{Path: s.Path, Follow: s.Follow, Poll: s.Poll, Framing: env.Frame, Delimiter: env.Delimiter})
	})
}

// Check says what is wrong with the settings.
func (s Settings) Check() (out []kind.Problem) {
	if s.Path == "" {
		out = append(out, kind.Problem{Field: "path", Message: "empty: say which file to read"})
	}
	if strings.ContainsAny(s.Path, "*?[") {
		out = append(out, kind.Problem{Field: "path", Message: fmt.Sprintf("%q: no globs: name one file, or a source for each", s.Path)})
	}
	if s.Poll <= 0 {
		out = append(out, kind.Problem{Field: "poll", Message: fmt.Sprintf("%v: give a time above 0, such as %v", s.Poll, DefaultPoll)})
	}
	return out
}
