package sim_test

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-dev/penstock/internal/sim"
)

// run makes the history of a seed in a bubble of its own.
func run(t *testing.T, seed uint64, opt sim.Options) (r sim.Report, err error) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		opt.Wait = synctest.Wait
		r, err = sim.Run(seed, opt)
	})
	return r, err
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 0, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Promise: whatever plugins, memory and time do, nothing is lost, doubled, reordered or leaked, and nothing stands still.
// PENSTOCK_SIM_SEED replays one seed, with its trace; PENSTOCK_SIM_SEEDS says how many seeds are run; PENSTOCK_SIM_DURATION runs new
// seeds for that long.
func TestSimulator(t *testing.T) {
	if os.Getenv("PENSTOCK_SIM_SEED") != "" {
		replay(t, number(t, "PENSTOCK_SIM_SEED", 0))
		return
	}
	if v := os.Getenv("PENSTOCK_SIM_DURATION"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		forLong(t, d)
		return
	}
	seeds := number(t, "PENSTOCK_SIM_SEEDS", defaultSeeds())
	var total sim.Report
	gaveUp := 0
	for seed := range seeds {
		r, err := run(t, seed, sim.Options{})
		if err != nil {
			t.Fatalf("%v\nreplay it: PENSTOCK_SIM_SEED=%d go test ./internal/sim -run TestSimulator -v", err, seed)
		}
		total.Steps += r.Steps
		total.Messages += r.Messages
		total.Swaps += r.Swaps
		total.Reloads += r.Reloads
		total.Removed += r.Removed
		if r.GaveUp {
			gaveUp++
		}
	}
	t.Logf("%d seeds: %d steps, %d messages, %d swaps, %d reloads, %d plugins and sinks retired, %d drains that gave up",
		seeds, total.Steps, total.Messages, total.Swaps, total.Reloads, total.Removed, gaveUp)
}

func replay(t *testing.T, seed uint64) {
	var trace bytes.Buffer
	_, err := run(t, seed, sim.Options{Trace: &trace})
	t.Logf("the trace of seed %d:\n%s", seed, trace.Bytes())
	if err != nil {
		t.Fatal(err)
	}
}

func forLong(t *testing.T, d time.Duration) {
	first := uint64(time.Now().UnixNano())
	end := time.Now().Add(d)
	n := uint64(0)
	for ; time.Now().Before(end); n++ {
		if _, err := run(t, first+n, sim.Options{}); err != nil {
			var f *sim.Failure
			if errors.As(err, &f) {
				t.Fatalf("%v\nreplay it: make sim SEED=%d", err, f.Seed)
			}
			t.Fatal(err)
		}
	}
	t.Logf("%d seeds from %d on", n, first)
}

// Promise: a seed is a history: the same seed makes the same one.
func TestReplayIsIdentical(t *testing.T) {
	for seed := range uint64(30) {
		one, err := run(t, seed, sim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		two, err := run(t, seed, sim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if one != two {
			t.Fatalf("seed %d made two histories: %+v and %+v", seed, one, two)
		}
	}
}
