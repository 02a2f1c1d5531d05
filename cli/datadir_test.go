package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/penstock-dev/penstock/cli"
)

// Promise: two pipelines never share a data directory, and one that cannot be written ends the start; lint makes none.
func TestDataDirectory(t *testing.T) {
	s := newShell(t)
	s.write("in.txt", "a\n")
	s.write("penstock.yaml", lasting)
	s.want(0, nil, "lint", "penstock.yaml")
	if _, err := os.Stat("data"); !os.IsNotExist(err) {
		t.Errorf("lint made a data directory: %v", err)
	}
	exit := s.begin("run", "--listen", "off", "--data", "kept")
	s.err.await(t, "running")
	log := s.err
	s.write("job.yaml", copies)
	s.want(cli.ExitFailed, []string{"data directory kept", "pid", "--data"}, "run", "-c", "job.yaml", "--until-idle", "--data", "kept")
	s.want(0, nil, "run", "-c", "job.yaml", "--until-idle", "--data", "other")
	s.want(cli.ExitFailed, []string{"in.txt", "cannot be used"}, "run", "-c", "job.yaml", "--until-idle", "--data", filepath.Join("in.txt", "data"))
	s.err = log
	s.end(exit)
	s.want(0, nil, "run", "-c", "job.yaml", "--until-idle", "--data", "kept")
}
