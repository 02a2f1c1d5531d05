// Package cli is the command line of Penstock: run, lint, test and explain pipelines. The binary penstock is this package with the standard
// kinds; a binary with plugins of your own adds them to those:
//
//	func main() {
//		kinds := standard.Kinds()
//		kinds.Add(kind.Native("delays", newDelays))
//		os.Exit(cli.Main(kinds))
//	}
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes.
const (
	ExitOK      = 0 // all went well
	ExitFailed  = 1 // something failed: a source, a message that was not settled, a test, a file that lint found wrong
	ExitUsage   = 2 // the command line is wrong
	ExitConfig  = 3 // the pipeline's file is wrong, or cannot be read
	ExitStopped = 4 // a second signal ended it before all was settled
)

// App is a command line. All fields but Kinds have defaults.
type App struct {
	Kinds   *kind.Registry
	Name    string // default: the base name of the running binary
	Version string // default: what the build says
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(name string) (string, bool)
	Signals <-chan os.Signal // what to act upon instead of the process's own signals
}

// Main runs the process's command line and returns its exit code.
func Main(kinds *kind.Registry) int {
	app := App{Kinds: kinds}
	return app.Run(context.Background(), os.Args[1:])
}

// Run runs a command line and returns its exit code.
func (a App) Run(ctx context.Context, args []string) int {
	a = a.withDefaults()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var code *exitError
	if !errors.As(err, &code) {
		code = &exitError{code: ExitUsage, err: err}
	}
	if code.err != nil {
		text := code.err.Error()
		var problems *config.Error
		if !errors.As(code.err, &problems) { // those say where they are
			text = a.Name + ": " + text
		}
		fmt.Fprintln(a.Stderr, text)
		if code.code == ExitUsage {
			fmt.Fprintf(a.Stderr, "Run `%s help` for what there is.\n", a.Name)
		}
	}
	return code.code
}

func (a App) withDefaults() App {
	if a.Kinds == nil {
		a.Kinds = kind.NewRegistry()
	}
	if a.Name == "" {
		a.Name = strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	}
	if a.Version == "" {
		a.Version = buildVersion()
	}
	if a.Stdin == nil {
		a.Stdin = os.Stdin
	}
	if a.Stdout == nil {
		a.Stdout = os.Stdout
	}
	if a.Stderr == nil {
		a.Stderr = os.Stderr
	}
	if a.Getenv == nil {
		a.Getenv = os.LookupEnv
	}
	return a
}

// buildVersion is the version that the go command has written into the binary.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// exitError is an error with an exit code. err may be nil: then all has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }

func (e *exitError) Unwrap() error { return e.err }

func exit(code int, err error) error { return &exitError{code, err} }

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:   a.Name,
		Short: "Run message handlers as plugins over streams of messages",
		Long: "Run message handlers as plugins over streams of messages, as a YAML file says.\n\n" +
			"Every flag can also be set by a variable: --log-format by PENSTOCK_LOG_FORMAT, and so on. A flag goes before its variable.\n\n" +
			"Exit codes: 0 all went well; 1 something failed; 2 the command line is wrong; 3 the pipeline's file is wrong;\n" +
			"4 a second signal ended it before all was settled.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.fromEnvironment(cmd.Flags()) },
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) && bad.GetFlag().Value.Type() == "bool" {
			return fmt.Errorf("--%s=%s: give true or false", bad.GetFlag().Name, bad.GetValue())
		}
		return err
	})
	root.Version = a.Version
	root.SetVersionTemplate(strings.ReplaceAll(a.versionText(), "{{", "{"))
	root.AddCommand(a.runCommand(), a.lintCommand(), a.testCommand(), a.graphCommand(), a.schemaCommand(), a.referenceCommand(),
		a.listCommand(), a.explainCommand(), a.newCommand(), a.manCommand(), a.versionCommand())
	return root
}

// fromEnvironment sets the flags that were not given from their variables.
func (a *App) fromEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		name := "PENSTOCK_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := a.Getenv(name)
		if f.Changed || !ok || f.Name == "help" || f.Name == "version" || err != nil {
			return
		}
		setErr := flags.Set(f.Name, value)
		if setErr != nil && f.Value.Type() == "bool" {
			setErr = errors.New("give true or false")
		}
		if setErr != nil {
			err = exit(ExitUsage, fmt.Errorf("variable %s=%q: %w", name, value, setErr))
		}
	})
	return err
}

// options is how files are read.
func (a *App) options() config.Options {
	return config.Options{Registry: a.Kinds, Getenv: a.Getenv}
}

// noFile is the rule of commands that get their file by -c only.
func noFile(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected %q after %s: name the file with -c %s", args[0], cmd.CommandPath(), args[0])
	}
	return nil
}

// values has the shell complete a flag with some values.
func values(cmd *cobra.Command, flag string, of ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag, or it has been done before
	}
}

// configFlag adds --config.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "penstock.yaml", "file of the pipeline, or directory whose *.yaml files make it")
}

// load reads a pipeline's file.
func (a *App) load(path string) (*config.Config, error) {
	c, err := config.Load(path, a.options())
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: no such file or directory: name the pipeline's file with -c, or write one with `%s new pipeline`", path, a.Name)
	}
	if err != nil {
		return nil, exit(ExitConfig, err)
	}
	return c, nil
}
