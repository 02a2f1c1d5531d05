//go:build !linux || race

package arena

import "testing"

func checkResident(*testing.T, *Arena) {} // nobody to ask
