// Package invariants says whether checks that cost time are compiled in: they are in race builds and under the build tag
// penstock_invariants. Code behind `if invariants.Enabled` vanishes from other builds.
package invariants
