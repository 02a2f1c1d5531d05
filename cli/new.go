package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// starter is what `new pipeline` writes. It runs as it is.
const starter = `# A pipeline: sources make streams, plugins read streams and emit to others, sinks write streams out.
#   penstock lint              check this file
#   penstock test              run penstock_test.yaml
#   penstock run --until-idle  run it until all input is settled
#   penstock explain file      what a kind can do; penstock list shows all kinds

sources:
  flights:                                # makes the stream "flights"
    file: { path: flights.ndjson }
    frame: lines
    key: $.origin                         # what order: key goes by

plugins:
  late:
    filter: { where: 'msg.delay >= ${MINUTES:-60}' }
    from: flights
    emits: late

sinks:
  late:
    from: late
    file: { path: late.ndjson, mode: truncate }
`

const starterTest = `# Tests of penstock.yaml: penstock test runs them, in virtual time, without files and network.
tests:
  - name: a flight that is an hour late is kept, and a punctual one is not
    input:
      - { source: flights, payload: { origin: SEA, delay: 75 } }
      - { source: flights, payload: { origin: SFO, delay: 2 } }
    expect:
      late: [ { origin: SEA, delay: 75 } ]
      counts: { accepted: 2, settled: 2 }
`

const starterInput = `{"origin":"SEA","destination":"SFO","delay":75}
{"origin":"SFO","destination":"LAX","delay":2}
{"origin":"DFW","destination":"SEA","delay":130}
`

func (a *App) newCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "new", Short: "Write files to begin with", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return exit(ExitUsage, fmt.Errorf("say what to write: %s new pipeline [DIR]", a.Name))
	}}
	cmd.AddCommand(&cobra.Command{
		Use: "pipeline [DIR]", Short: "Write a pipeline that runs, its test and some input", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			files := []struct{ name, text string }{
				{"penstock.yaml", starter}, {"penstock_test.yaml", starterTest}, {"flights.ndjson", starterInput},
			}
			for _, f := range files { // all or none
				if path := filepath.Join(dir, f.name); isThere(path) {
					return exit(ExitFailed, &thereError{path})
				}
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return exit(ExitFailed, err)
			}
			for _, f := range files {
				if err := writeNew(filepath.Join(dir, f.name), f.text); err != nil {
					return exit(ExitFailed, err)
				}
				fmt.Fprintln(cmd.OutOrStdout(), "wrote", filepath.Join(dir, f.name))
			}
			if dir != "." {
				fmt.Fprintf(cmd.OutOrStdout(), "\ncd %s\n", dir)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s test\n%s run --until-idle\n", a.Name, a.Name)
			return nil
		},
	})
	return cmd
}

// thereError says that a file is not written because it is there.
type thereError struct{ path string }

// Error names the file, and says what to do.
func (e *thereError) Error() string {
	return e.path + " is there already: choose another directory, or remove it"
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeNew writes a file that is not there yet.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &thereError{path}
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
