package cli

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/penstock-dev/penstock/internal/pipetest"
	"github.com/spf13/cobra"
)

func (a *App) testCommand() *cobra.Command {
	var run, junit string
	var verbose bool
	cmd := &cobra.Command{
		Use: "test [FILE|DIR]...", Short: "Run the tests of pipelines: files that end in _test.yaml",
		Long: "Run the tests of pipelines, which stand beside them in files that end in _test.yaml: input for sources, and what is expected of\n" +
			"streams, sinks and dead letters. Time is virtual, and neither files nor the network are touched.",
		Example: "  penstock test\n  penstock test conf.d --run late --junit report.xml",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) == 0 {
				args = []string{"."}
			}
			o := pipetest.Options{Registry: a.Kinds}
			if run != "" {
				if o.Run, err = regexp.Compile(run); err != nil {
					return exit(ExitUsage, fmt.Errorf("--run: %w", err))
				}
			}
			files, err := pipetest.Files(args...)
			if err != nil {
				return exit(ExitUsage, err)
			}
			results, err := pipetest.Run(cmd.Context(), files, o)
			if err != nil {
				return exit(ExitConfig, err)
			}
			if err := pipetest.WriteText(cmd.OutOrStdout(), results, verbose); err != nil {
				return exit(ExitFailed, err)
			}
			if junit != "" {
				if err := writeJUnit(junit, results); err != nil {
					return exit(ExitFailed, err)
				}
			}
			for i := range results {
				if len(results[i].Failures) > 0 {
					return exit(ExitFailed, nil)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&run, "run", "", "only tests whose names match this regular expression")
	cmd.Flags().StringVar(&junit, "junit", "", "file to write the results to, for CI systems")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list the tests that pass, too")
	return cmd
}

func writeJUnit(path string, results []pipetest.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pipetest.WriteJUnit(f, results), f.Close())
}
