//go:build linux && !race

package arena

import "testing"

// checkResident asks the operating system whether the slabs take as much memory as the arena believes.
func checkResident(t *testing.T, a *Arena) {
	t.Helper()
	got, err := residentBytes(a.pool.memory.region)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(a.pool.touched) * int64(a.slabSize); got > want || got < want/2 {
		t.Errorf("the operating system says that slabs take %d bytes, the arena %d", got, want)
	}
}
