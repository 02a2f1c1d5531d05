//go:build penstock_mutate

package sim_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/internal/mutate"
	"github.com/penstock-dev/penstock/internal/sim"
)

// Promise: the simulator proves itself: it finds every planted bug, within 1,000 seeds.
func TestPlantedBugs(t *testing.T) {
	defer mutate.Set(mutate.None)
	seeds := number(t, "PENSTOCK_SIM_SEEDS", 1000)
	var table strings.Builder
	fmt.Fprintf(&table, "%-24s %5s  %s\n", "planted bug", "seed", "found by")
	for id := mutate.None + 1; id < mutate.Count; id++ {
		mutate.Set(id)
		seed, f := hunt(t, seeds)
		if f == nil {
			fmt.Fprintf(&table, "%-24s %5s\n", id, "NONE")
			t.Errorf("%v: not found in %d seeds", id, seeds)
			continue
		}
		fmt.Fprintf(&table, "%-24s %5d  %s\n", id, seed, f.Invariant)
	}
	t.Logf("%d planted bugs:\n%s", mutate.Count-1, table.String())
}

// hunt is the first seed that fails, and how.
func hunt(t *testing.T, seeds uint64) (uint64, *sim.Failure) {
	for seed := range seeds {
		_, err := run(t, seed, sim.Options{})
		var f *sim.Failure
		if errors.As(err, &f) {
			return seed, f
		}
	}
	return seeds, nil
}
