//go:build race

package sim_test

// defaultSeeds is how many seeds are run where nobody says: few, since the race detector is slow.
func defaultSeeds() uint64 { return 100 }
