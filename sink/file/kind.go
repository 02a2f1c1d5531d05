package file

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
)

// Settings is what a pipeline's file says about a file sink.
type Settings struct {
	Path      string         `yaml:"path" jsonschema:"required,example=./out.ndjson" jsonschema_description:"File to write. Its directory must exist, unless create_dir is set."`
	CreateDir bool           `yaml:"create_dir" jsonschema_description:"Make the directory of path if it is not there. Without it, a disk that is not mounted is an error."`
	Mode      Mode           `yaml:"mode" jsonschema:"enum=append,enum=truncate" jsonschema_description:"append writes behind what is there; truncate empties the file at the first message, or at the end of a run that had none."`
	Delimiter string         `yaml:"delimiter" jsonschema_description:"What ends each message, at most 64 bytes."`
	Sync      Sync           `yaml:"sync" jsonschema:"enum=none,enum=flush,enum=close" jsonschema_description:"When fsync is called: never, before messages count as written, or when the file is closed."`
	Rotate    RotateSettings `yaml:"rotate" jsonschema_description:"When a file is started anew; what was there is renamed to path.1, path.1 to path.2, and so on."`
}

// RotateSettings is when a new file is started. Without max_bytes and max_age it never is.
type RotateSettings struct {
	MaxBytes kind.Size     `yaml:"max_bytes" jsonschema:"example=100MiB" jsonschema_description:"Largest size of a file; 0 for no bound."`
	MaxAge   time.Duration `yaml:"max_age" jsonschema:"example=24h" jsonschema_description:"Longest that one file is written to; 0 for ever."`
	Keep     int           `yaml:"keep" jsonschema:"minimum=1" jsonschema_description:"Old files that are kept."`
}

// Kind describes the file sink to pipelines that are written in YAML.
func Kind() kind.Kind {
	return kind.Sink(kind.About{
		Name:    "file",
		Summary: "Writes messages to a file, each followed by a delimiter.",
		Doc: "A message is settled when the file has it, or after an fsync with `sync: flush`. On a full disk the file is cut back to the end " +
			"of the last whole message; what did not fit is tried again. Files can be rotated by size and age.",
		Example: "from: flights\nfile: { path: late.ndjson, mode: append }\n",
	}, Settings{
		Mode: Append, Delimiter: "\n", Sync: SyncNone, Rotate: RotateSettings{Keep: defaultKeep},
	}, func(s Settings, _ kind.Env) (sink.Sink, error) { return New(s.config()) })
}

func (s Settings) config() Config {
	return Config{
		Path: s.Path, CreateDir: s.CreateDir, Mode: s.Mode, Delimiter: s.Delimiter, Sync: s.Sync,
		Rotate: Rotate{MaxBytes: int64(s.Rotate.MaxBytes), MaxAge: s.Rotate.MaxAge, Keep: s.Rotate.Keep},
	}
}

// Check says what is wrong with the settings.
func (s Settings) Check() (out []kind.Problem) {
	cfg := s.config()
	cfg.fill()
	for _, p := range cfg.problems() {
		out = append(out, kind.Problem{Field: p.field, Message: p.text})
	}
	return out
}

// Claims is the file: only one sink may write it.
func (s Settings) Claims() []string {
	abs, err := filepath.Abs(s.Path)
	if s.Path == "" || err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return []string{"file " + abs}
}

var (
	_ kind.Checked = Settings{}
	_ kind.Claimer = Settings{}
)

// problem is a setting that makes no sense.
type problem struct{ field, text string }

// join makes one error of problems; nil if there are none.
func join(problems []problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = errors.New(p.text)
	}
	return errors.Join(errs...)
}
