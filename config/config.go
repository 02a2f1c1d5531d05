package config

import (
	"os"
	"reflect"
	"slices"

	"github.com/penstock-dev/penstock/internal/yamltree"
	"github.com/penstock-dev/penstock/kind"
)

// Options is what reading a file depends on.
type Options struct {
	Registry *kind.Registry                    // the kinds that there are; required
	Getenv   func(name string) (string, bool)  // value of a variable, and whether it is set; default [os.LookupEnv]
	ReadFile func(path string) ([]byte, error) // default: from disk, files that are too large left unread
}

// Config is the file of a pipeline, or several that make one, read and checked. It must not be changed.
type Config struct {
	FileKeys

	Files   []string // that were read, in that order
	Sources []Source // in the order of the files
	Plugins []Plugin
	Sinks   []Sink

	at map[string]Pos // of the keys of FileKeys
}

// Source is an entry of sources.
type Source struct {
	Name     string
	Kind     kind.Kind
	Settings any // of the type of Kind.Settings
	Pos      Pos
	SourceKeys
}

// Plugin is an entry of plugins.
type Plugin struct {
	Name     string
	Kind     kind.Kind
	Settings any // of the type of Kind.Settings; nil if that is nil
	Config   any // of a native plugin whose settings are free: what stands under config, as JSON would have it
	Pos      Pos
	PluginKeys
}

// Sink is an entry of sinks.
type Sink struct {
	Name     string
	Kind     kind.Kind
	Settings any // of the type of Kind.Settings
	Pos      Pos
	SinkKeys
}

// Set says whether a key of FileKeys stands in the file.
func (c *Config) Set(key string) bool {
	_, ok := c.at[key]
	return ok
}

// Load reads the file of a pipeline, or all files of a directory that end in .yaml or .yml, as if they were one; those that end in
// _test.yaml or _test.yml hold tests and are left out. If something is wrong with what the files say, the error is an [*Error] with all
// of it. Paths in settings are taken as they are: those that are relative start at the working directory of the process.
func Load(path string, o Options) (*Config, error) {
	names, err := paths(path)
	if err != nil {
		return nil, err
	}
	if o.ReadFile == nil {
		o.ReadFile = readFile
	}
	files := make([]file, len(names))
	for i, name := range names {
		text, err := o.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files[i] = file{name, text}
	}
	return read(files, o)
}

// Parse reads the text of one file. name is what the problems call it.
func Parse(name string, text []byte, o Options) (*Config, error) {
	return read([]file{{name, text}}, o)
}

// reader gathers a Config from files.
type reader struct {
	*yamltree.Problems
	registry *kind.Registry
	c        *Config
	end      Pos              // where what is missing from all files is reported
	top      *decoder         // of FileKeys
	first    map[string]Pos   // keys of FileKeys, and names of entries as "section/name"
	claims   map[string]owner // what only one entry may have

	// Something that could not be read may have made, or read, any stream.
	makersUnsure, readersUnsure bool
}

// owner is an entry that has claimed something.
type owner struct {
	name string // `sink "late"`
	pos  Pos
}

// read reads files, of which there is at least one.
func read(files []file, o Options) (*Config, error) {
	if o.Getenv == nil {
		o.Getenv = os.LookupEnv
	}
	if o.Registry == nil {
		o.Registry = kind.NewRegistry()
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.name
	}
	p := yamltree.NewProblems(names...)
	r := &reader{
		Problems: p, registry: o.Registry, c: &Config{FileKeys: defaultFile(), Files: names}, top: newDecoder(p, ""),
		end: Pos{File: names[0], Line: 1, Column: 1}, first: map[string]Pos{}, claims: map[string]owner{},
	}
	r.c.at = r.top.at
	for _, f := range files {
		r.file(f, o)
	}
	r.ownKeys()
	r.graph()
	if err := p.Err(); err != nil {
		return nil, err
	}
	return r.c, nil
}

// file reads one file into the Config.
func (r *reader) file(f file, o Options) {
	v := yamltree.Parse(f.name, f.text, r.Problems, yamltree.Options{Getenv: o.Getenv, Advice: advice()})
	if v == nil {
		r.unsure()
		return
	}
	if v.Shape != yamltree.Map {
		r.Add(v.Pos, "want a map with keys such as sources, plugins and sinks, got %s", v.What())
		r.unsure()
		return
	}
	for _, e := range v.Entries {
		if pos, twice := r.first[e.Key]; twice && !slices.Contains(sections(), e.Key) {
			r.Add(e.Pos, "%s is set already, at %v", e.Key, pos)
		}
		if _, known := r.first[e.Key]; !known {
			r.first[e.Key] = e.Pos
		}
	}
	keys := r.top.object(v, reflect.ValueOf(&r.c.FileKeys).Elem(), "")
	rest := keys[:0]
	for _, e := range keys {
		switch e.Key {
		case "sources":
			r.section(e, r.source)
		case "plugins":
			r.section(e, r.plugin)
		case "sinks":
			r.section(e, r.sink)
		default:
			rest = append(rest, e)
			r.unsure()
		}
	}
	r.top.unknown(rest, reflect.TypeFor[FileKeys](), "", sections()...)
}

func sections() []string { return []string{"sources", "plugins", "sinks"} }

// ownKeys checks the keys at the top.
func (r *reader) ownKeys() {
	if r.c.Listen == "off" {
		r.c.Listen = ""
	}
	if !slices.ContainsFunc([]string{"listen", "tls", "token"}, func(k string) bool { return r.top.failed[k] }) {
		r.check(r.top, r.c.FileKeys, r.end)
	}
	if r.c.Listen != "" {
		r.claim("tcp "+r.c.Listen, owner{"listen", r.place("listen")})
	}
}

// place is where a key of the top stands, or the beginning of the first file.
func (r *reader) place(key string) Pos {
	if pos, ok := r.top.at[key]; ok {
		return pos
	}
	return r.end
}

// unsure notes that something could not be read, so that streams may only seem to be missing.
func (r *reader) unsure() { r.makersUnsure, r.readersUnsure = true, true }
