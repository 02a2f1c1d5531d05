package kind

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 8MiB, 64KB or 512.
type Size int64

// sizeUnits are what a Size may end in, longer endings before those that they end in.
var sizeUnits = [...]struct {
	name string
	n    float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n >= 0 && n*u.n < math.MaxInt64) { // NaN is neither
			break
		}
		*s = Size(n * u.n)
		return nil
	}
	return fmt.Errorf("%q is not a size: write a number of bytes with a unit, as in 512KiB or 8MiB", text)
}

// String is the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		name string
		n    Size
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= u.n && s%u.n == 0 {
			return fmt.Sprintf("%d%s", s/u.n, u.name)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Rate is so many of something in a time, written as 100/s, 6000/m, 50/250ms.
type Rate struct {
	N   int
	Per time.Duration
}

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	count, per, ok := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	per = strings.TrimSpace(per)
	if per == "s" || per == "m" || per == "h" || per == "ms" {
		per = "1" + per
	}
	d, durErr := time.ParseDuration(per)
	if !ok || err != nil || durErr != nil || n <= 0 || d <= 0 {
		return fmt.Errorf("%q is not a rate: write how many in how long, as in 100/s or 50/250ms", text)
	}
	*r = Rate{N: n, Per: d}
	return nil
}

// String is the rate as it is written.
func (r Rate) String() string {
	if r == (Rate{}) {
		return ""
	}
	per := r.Per.String()
	switch r.Per {
	case time.Millisecond, time.Second:
		per = strings.TrimPrefix(per, "1")
	case time.Minute:
		per = "m"
	case time.Hour:
		per = "h"
	}
	return fmt.Sprintf("%d/%s", r.N, per)
}

// MarshalText writes the rate as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Secret is a string that is never shown: whatever prints or marshals it gets a placeholder.
type Secret string

const hidden = "(hidden)"

// UnmarshalText takes the secret as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret(text)
	return nil
}

// String is a placeholder.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is a placeholder.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText is a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }
