package mutate

import "testing"

func TestEveryBugHasAName(t *testing.T) {
	if len(names) != int(Count) {
		t.Fatalf("%d names for %d bugs", len(names), Count)
	}
	for id := None; id < Count; id++ {
		if id.String() == "" {
			t.Errorf("bug %d has no name", id)
		}
	}
	if !Enabled && On(None) {
		t.Error("a bug is on in a build without planted bugs")
	}
}
