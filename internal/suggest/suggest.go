// Package suggest helps those who have mistyped a word.
package suggest

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds on suggestions: nobody reads more.
const (
	maxWord   = 64  // bytes of a word that is compared
	maxKnown  = 512 // words that one is compared with
	maxListed = 24  // words that are listed
)

// DidYouMean names the known word that is closest to a wrong one, as in ` (did you mean "key"?)`, or is empty if none is close.
func DidYouMean(wrong string, known []string) string {
	if len(wrong) > maxWord || len(known) > maxKnown {
		return ""
	}
	best, at := "", 3
	if len(wrong) <= 4 { // short words are all alike
		at = (len(wrong) + 1) / 2
	}
	for _, k := range slices.Sorted(slices.Values(known)) {
		if len(k) > maxWord || max(len(k)-len(wrong), len(wrong)-len(k)) >= at {
			continue
		}
		if d := distance(wrong, k); d < at {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// OrList is what DidYouMean says or, if no word is close, all known words in their order, as in `: there are key, value`. It is empty if
// there are none, or more than anybody reads.
func OrList(wrong string, known []string) string {
	help := DidYouMean(wrong, known)
	if help == "" && len(known) > 0 && len(known) <= maxListed {
		help = ": there are " + strings.Join(known, ", ")
	}
	return help
}

// distance is how many characters must be put in, left out, changed, or swapped with their neighbour to make a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
