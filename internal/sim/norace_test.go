//go:build !race

package sim_test

// defaultSeeds is how many seeds are run where nobody says.
func defaultSeeds() uint64 { return 1000 }
