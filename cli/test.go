package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/penstock-dev/penstock/internal/pipetest"
	"github.com/spf13/cobra"
)

// testFlags are the flags of test.
type testFlags struct {
	run     string
	junit   string
	verbose bool
}

func (a *App) testCommand() *cobra.Command {
	f := &testFlags{}
	cmd := &cobra.Command{
		Use: "test [FILE|DIR]...", Short: "Run the tests of pipelines: files that end in _test.yaml",
		Long: "Run the tests of pipelines, which stand beside them in files that end in _test.yaml: input for sources, and what is expected of\n" +
			"streams, sinks and dead letters. Time is virtual, and neither files nor the network are touched. Ctrl-C ends it with the results\n" +
			"of the tests that are done.",
		Example: "  penstock test\n  penstock test conf.d --run late --junit report.xml",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			return a.test(cmd.Context(), f, args)
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", "only tests whose names match this regular expression")
	cmd.Flags().StringVar(&f.junit, "junit", "", "file to write the results to, for CI systems")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false,
		"list the tests that pass, too, and write what the pipelines log to standard error, debug messages included")
	return cmd
}

// test runs the tests of some files and directories. If it is told to end, it still shows the results so far.
func (a *App) test(ctx context.Context, f *testFlags, paths []string) (err error) {
	o := pipetest.Options{Registry: a.Kinds}
	if f.run != "" {
		if o.Run, err = regexp.Compile(f.run); err != nil {
			return exit(ExitUsage, fmt.Errorf("--run: %w", err))
		}
	}
	if f.verbose {
		o.Logger = slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	files, err := pipetest.Files(paths...)
	if err == nil {
		err = a.onlyTests(files)
	}
	if err != nil {
		return exit(ExitUsage, err)
	}
	ctx, stop := a.untilSignal(ctx)
	defer stop()
	results, err := pipetest.Run(ctx, files, o)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return exit(ExitConfig, err)
	}
	if err != nil {
		err = fmt.Errorf("ended before all tests were run, %d were: %w", len(results), err)
	}
	failed := pipetest.WriteText(a.Stdout, results, f.verbose)
	if f.junit != "" {
		failed = errors.Join(failed, writeJUnit(f.junit, results))
	}
	if err == nil && len(results) == 0 && f.run != "" {
		err = fmt.Errorf("no test matches --run %q", f.run)
	}
	if err := errors.Join(err, failed); err != nil {
		return exit(ExitFailed, err)
	}
	for i := range results {
		if len(results[i].Failures) > 0 {
			return exit(ExitFailed, nil)
		}
	}
	return nil
}

// onlyTests sees whether somebody has named a pipeline in the place of its tests.
func (a *App) onlyTests(files []string) error {
	for _, path := range files {
		if isTest(path) || !looksLikePipeline(path) {
			continue // a file of tests may have another name
		}
		ext := filepath.Ext(path)
		tests := strings.TrimSuffix(path, ext) + "_test" + ext
		return fmt.Errorf("%s is a pipeline: its tests stand in %s: `%s test %s`", path, tests, a.Name, tests)
	}
	return nil
}

// looksLikePipeline says that a file has keys at its top that a pipeline has, and no tests.
func looksLikePipeline(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()                // only read from
	text, _ := io.ReadAll(io.LimitReader(f, 1<<20)) // what cannot be read is found later
	found := false
	for line := range strings.Lines(string(text)) {
		switch key, _, _ := strings.Cut(line, ":"); key {
		case "tests":
			return false
		case "sources", "plugins", "sinks":
			found = true
		}
	}
	return found
}

// untilSignal is a context that ends with the first signal; a second one meets no handler. stop frees what it needs.
func (a *App) untilSignal(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals, stopSignals := a.signals()
	go func() {
		defer stopSignals()
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func writeJUnit(path string, results []pipetest.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pipetest.WriteJUnit(f, results), f.Close())
}
