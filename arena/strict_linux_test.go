package arena

import (
	"bytes"
	"os"
	"testing"
)

// Revoked pages become one mapping, however many there were.
func TestStrictKeepsMappingsFew(t *testing.T) {
	a := newStrict(t)
	maps := func() int {
		b, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(b, []byte("\n"))
	}
	before := maps()
	var live []*StrictPage
	for i := range 2000 {
		p, err := a.StrictCopy([]byte("message"))
		if err != nil {
			t.Fatal(err)
		}
		if live = append(live, p); len(live) > 8 {
			j := i % len(live) // not in order
			live[j].Revoke()
			live = append(live[:j], live[j+1:]...)
		}
	}
	if n := maps() - before; n > 60 {
		t.Errorf("%d more mappings with %d live copies", n, len(live))
	}
	if rss, err := residentBytes(a.strict.region.mem[:a.strict.region.next]); err != nil || rss > 64<<10 {
		t.Errorf("%d bytes of revoked copies stay in memory (%v)", rss, err)
	}
	for _, p := range live {
		p.Revoke()
	}
}
