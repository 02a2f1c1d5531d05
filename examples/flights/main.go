// Command flights is Penstock with three plugins of its own. With examples/flights/penstock.yaml it reads 20,000 real US flights of early
// 2001 and finds the late ones, the long ones, and the airports that cost their passengers most time.
//
//	flights.ndjson ──> flights ──┬─> delays ────> late ─────> late.ndjson
//	                  (by origin)├─> longhaul ──> long ─────> long.ndjson        fails now and then, and retries
//	                             └─> airports ──> airports ─> airports.ndjson    counts, and emits as it stops
package main

import (
	"os"

	"github.com/penstock-dev/penstock/cli"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/standard"
)

func main() { os.Exit(cli.Main(kinds())) }

// kinds are the standard ones and those of this example.
func kinds() *kind.Registry {
	kinds := standard.Kinds()
	kinds.Add(kind.NativeWith(kind.About{
		Name: "delays", Summary: "Emits flights that left late.", Example: "native: delays\nconfig: { threshold: 60 }",
	}, delays{Threshold: 60}, newDelays))
	kinds.Add(kind.Native("longhaul", newLonghaul))
	kinds.Add(kind.Native("airports", newAirports))
	return kinds
}
