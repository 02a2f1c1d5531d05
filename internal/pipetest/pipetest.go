package pipetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
)

// Options is what running tests depends on.
type Options struct {
	Registry *kind.Registry // the kinds that pipelines may name; required
	Run      *regexp.Regexp // only tests whose names match; nil for all
	Logger   *slog.Logger   // gets what the pipelines log; nil for nobody
	Limit    time.Duration  // the longest that one test may take, in real time; default 10 s
}

// Result is what became of one test.
type Result struct {
	File     string // as it was given
	Name     string
	Line     int           // of the test in File, from 1
	Took     time.Duration // real time
	Failures []Failure     // none: it passed
}

// Failure is one thing that was not as expected.
type Failure struct {
	Line int    // of the expectation, or of the input that is not settled, from 1
	Text string // may have several lines
}

const (
	defaultLimit  = 10 * time.Second
	defaultWithin = time.Hour
)

// ErrNoTests says that there is no file of tests where some were looked for.
var ErrNoTests = errors.New("no tests: a file of tests stands beside the pipeline, and its name ends in _test.yaml")

// Files finds files of tests: a path of a file is that file, a path of a directory all files in it whose names end in _test.yaml or
// _test.yml, sorted. No file is there twice. It fails with [ErrNoTests] if there is none.
func Files(paths ...string) ([]string, error) {
	var out []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("tests: %w", err)
		}
		if !info.IsDir() {
			out = append(out, path)
			continue
		}
		var found []string
		for _, pattern := range []string{"*_test.yaml", "*_test.yml"} {
			names, err := fs.Glob(os.DirFS(path), pattern)
			if err != nil {
				return nil, fmt.Errorf("tests: %s: %w", path, err)
			}
			for _, name := range names {
				if !strings.HasPrefix(name, ".") {
					found = append(found, filepath.Join(path, name))
				}
			}
		}
		slices.Sort(found)
		out = append(out, found...)
	}
	seen := map[string]bool{}
	out = slices.DeleteFunc(out, func(path string) bool {
		path = filepath.Clean(path)
		twice := seen[path]
		seen[path] = true
		return twice
	})
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Join(paths, ", "), ErrNoTests)
	}
	return out, nil
}

// Run runs the tests of some files, one after another. If something is wrong with a file of tests, or with the pipeline that one names,
// no test is run and the error is a [*config.Error] with all that is wrong with all of them. A test that fails is no error. If ctx ends,
// Run returns its error and the results so far.
//
// Calls must not overlap. Goroutines that are not the pipeline's are left out of account, as far as they were there before, or were started
// by one that was.
func Run(ctx context.Context, files []string, o Options) ([]Result, error) {
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var suites []*suite
	var problems []config.Problem
	for _, name := range files {
		s, bad, err := load(name, o.Registry)
		if err != nil {
			return nil, err
		}
		for _, p := range bad {
			if !slices.Contains(problems, p) { // two files may test one pipeline
				problems = append(problems, p)
			}
		}
		suites = append(suites, s)
	}
	if len(problems) > 0 {
		return nil, &config.Error{Problems: problems}
	}
	var out []Result
	for _, s := range suites {
		for _, t := range s.tests {
			if o.Run != nil && !o.Run.MatchString(t.name) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return out, err
			}
			began := time.Now()
			failures := s.run(ctx, t, o)
			out = append(out, Result{File: s.name, Name: t.name, Line: t.at.Line, Took: time.Since(began), Failures: failures})
		}
	}
	return out, ctx.Err()
}
