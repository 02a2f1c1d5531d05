package socket

import (
	"fmt"
	"testing"

	"github.com/penstock-dev/penstock/source/sourcetest"
)

// Without acks a producer that connects again sends all again: there is no promise to keep over a restart. With them it goes on behind
// what was acknowledged, which makes the connection a log with a cursor.
func TestConformance(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, framing := range []string{"lines", "u32", "varint"} {
			for _, acks := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s acks=%v", network, framing, acks), func(t *testing.T) {
					features := sourcetest.Features{Append: true, Binary: framing != "lines", Cursor: acks}
					sourcetest.Run(t, features, func(t *testing.T) sourcetest.Fixture {
						return newProducer(t, Config{Network: network, Framing: framing, Acks: acks})
					})
				})
			}
		}
	}
}
