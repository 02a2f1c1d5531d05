package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/penstock-dev/penstock/config"
	"github.com/spf13/cobra"
)

func (a *App) lintCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "lint [FILE|DIR|GLOB]...", Short: "Check pipelines' files; exit with 1 if one is wrong",
		Long:    "Check pipelines' files; exit with 1 if one is wrong. Files that end in _test.yaml hold tests and are left out: `test` checks those.",
		Example: "  penstock lint\n  penstock lint 'conf/*.yaml'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if value, set := a.Getenv("PENSTOCK_CONFIG"); len(args) == 0 || cmd.Flags().Changed("config") && (!set || value != path) {
				args = append(args, path)
			}
			paths, tests, err := expand(args)
			if err != nil {
				return exit(ExitUsage, err)
			}
			for _, path := range tests {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: left out: it holds tests, which `%s test` checks and runs\n", path, a.Name)
			}
			if len(paths) == 0 {
				return exit(ExitUsage, errors.New("no pipeline among these files"))
			}
			return a.lint(cmd, paths)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func (a *App) lint(cmd *cobra.Command, paths []string) error {
	bad := 0
	for _, path := range paths {
		c, err := config.Load(path, a.options())
		if err == nil {
			_, err = c.Pipeline(config.Build{})
		}
		if err != nil {
			bad++
			fmt.Fprintln(cmd.ErrOrStderr(), err)
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s\n", path, contents(c))
	}
	if bad > 0 {
		return exit(ExitFailed, nil)
	}
	return nil
}

// expand replaces globs by what they match, and tells pipelines from their tests.
func expand(args []string) (pipelines, tests []string, err error) {
	for _, arg := range args {
		found, err := filepath.Glob(arg)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", arg, err)
		}
		if len(found) == 0 {
			return nil, nil, fmt.Errorf("%s: no such file", arg)
		}
		for _, path := range found {
			if isTest(path) {
				tests = append(tests, path)
			} else {
				pipelines = append(pipelines, path)
			}
		}
	}
	return pipelines, tests, nil
}

// isTest says that a name is one of a file of tests.
func isTest(path string) bool {
	return strings.HasSuffix(path, "_test.yaml") || strings.HasSuffix(path, "_test.yml")
}

func contents(c *config.Config) string {
	return fmt.Sprintf("%s, %s, %s", count(len(c.Sources), "source"), count(len(c.Plugins), "plugin"), count(len(c.Sinks), "sink"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
