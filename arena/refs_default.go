//go:build !penstock_trace

package arena

const tracing = false

// slabTrace remembers nothing in this build and costs nothing.
type slabTrace struct{}

func (*slabTrace) note(string, bool) {}
func (*slabTrace) stacks() []string  { return nil }
func (*slabTrace) history() string   { return "" }
