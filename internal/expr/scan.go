package expr

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// The scanner looks for one value in a payload without decoding the rest. On JSON it is exact. On anything else it may report a value or
// an error of it, but it never reads outside of the payload, and it ends within one pass over it.

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// shortString is the length up to which stringEnd looks for a quote by itself: for longer ones bytes.IndexByte is worth its call.
const shortString = 32

// stringEnd is the offset behind the string whose opening quote is at i, or -1.
func stringEnd(b []byte, i int) int {
	const ones, highs, quotes = 0x0101010101010101, 0x8080808080808080, 0x2222222222222222
	i++
	for end := min(i+shortString, len(b)) - 8; i <= end; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:]) ^ quotes // a quote is 0
		if found := (w - ones) &^ w & highs; found != 0 {
			if i += bits.TrailingZeros64(found) / 8; b[i-1] != '\\' {
				return i + 1
			}
			break
		}
	}
	for ; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' { // ends at the opening quote at the latest
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
	return -1
}

// skipValue is the offset behind the value that begins at i, or -1.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		return skipContainer(b, i)
	}
	start := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] > ' ' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

func skipContainer(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			end := stringEnd(b, i)
			if end < 0 {
				return -1
			}
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// found is the outcome of a look-up.
type found uint8

const (
	there     found = iota
	missing         // the object has no such member
	notObject       // there is something else than an object
	broken          // not JSON
)

// hasWord says whether b begins with one of the words of JSON.
func hasWord(b []byte) bool {
	return bytes.HasPrefix(b, []byte("true")) || bytes.HasPrefix(b, []byte("false")) || bytes.HasPrefix(b, []byte("null"))
}

// lookup finds the member of the object at offset i of b: the span of its value.
func lookup(b []byte, i int, name string) (from, to int, f found) {
	if i >= len(b) {
		return 0, 0, broken
	}
	switch c := b[i]; {
	case c == '{':
	case c == '[', c == '"', c == '-', c >= '0' && c <= '9', hasWord(b[i:]):
		return 0, 0, notObject
	default:
		return 0, 0, broken
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return 0, 0, missing
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return 0, 0, broken
		}
		end := startsWith(b, i+1, name)
		same := end > 0
		if !same {
			if end = stringEnd(b, i); end < 0 {
				return 0, 0, broken
			}
			same = sameName(b[i+1:end-1], name)
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ':' {
			return 0, 0, broken
		}
		i = skipSpace(b, i+1)
		end = skipValue(b, i)
		if end < 0 {
			return 0, 0, broken
		}
		if same {
			return i, end, there
		}
		if i = skipSpace(b, end); i >= len(b) {
			return 0, 0, broken
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			return 0, 0, missing
		default:
			return 0, 0, broken
		}
	}
}

// startsWith is the offset behind the quote that ends name at i; 0 if there is something else, or name as JSON writes it with escapes.
func startsWith(b []byte, i int, name string) int {
	end := i + len(name)
	if end >= len(b) || b[end] != '"' {
		return 0
	}
	for j, c := range b[i:end] {
		if c != name[j] || c == '\\' {
			return 0
		}
	}
	return end + 1
}

// sameName compares the inside of a JSON string with a name.
func sameName(raw []byte, name string) bool {
	for i, c := range raw {
		if c == '\\' {
			var buf [64]byte
			return string(unescape(buf[:0], raw)) == name
		}
		if i >= len(name) || c != name[i] {
			return false
		}
	}
	return len(raw) == len(name)
}

// unescape appends the inside of a JSON string with its escapes resolved. Half a surrogate pair becomes U+FFFD; bytes that are no UTF-8 stay.
func unescape(dst, raw []byte) []byte {
	for {
		n := bytes.IndexByte(raw, '\\')
		if n < 0 || n+1 >= len(raw) {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:n]...)
		c := raw[n+1]
		raw = raw[n+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := hex4(raw)
			if r < 0 {
				continue
			}
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				second := rune(-1)
				if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
					second = hex4(raw[2:])
				}
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					raw = raw[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
	}
}

// hex4 is the number that four hexadecimal digits stand for, or -1.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	r := rune(0)
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// number is a number of JSON or of an expression.
type number struct {
	kind numberKind
	i    int64
	u    uint64
	f    float64
}

type numberKind uint8

const (
	isInt numberKind = iota
	isUint
	isDouble
)

// safeDigits is how many digits a uint64 holds, whichever they are.
const safeDigits = 19

// parseNumber reads a number as JSON writes it.
func parseNumber(b []byte) (number, bool) {
	i, negative := 0, false
	if len(b) > 0 && b[0] == '-' {
		negative, i = true, 1
	}
	first, u, over := i, uint64(0), false
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		d := uint64(b[i] - '0')
		over = over || i-first >= safeDigits && u > (math.MaxUint64-d)/10
		u = u*10 + d
	}
	if i == first || b[first] == '0' && i > first+1 {
		return number{}, false
	}
	if i == len(b) && !over {
		switch {
		case negative && u <= 1<<63:
			return number{kind: isInt, i: -int64(u)}, true
		case !negative && u <= math.MaxInt64:
			return number{kind: isInt, i: int64(u)}, true
		case !negative:
			return number{kind: isUint, u: u}, true
		}
	}
	if !fraction(b[i:]) {
		return number{}, false
	}
	f, _ := strconv.ParseFloat(unsafe.String(unsafe.SliceData(b), len(b)), 64) // too large a number is infinite
	return number{kind: isDouble, f: f}, true
}

// fraction says whether b is what may follow the digits of a number: a fraction and an exponent.
func fraction(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && '0' <= b[n] && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '.' {
		if b = b[1:]; !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// compare orders two numbers as CEL does: an int and a double are compared as doubles.
func (n number) compare(m number) int {
	switch {
	case n.kind == isDouble && m.kind == isDouble:
		return order(n.f, m.f)
	case n.kind == isDouble:
		return -m.compare(n)
	case m.kind == isDouble && n.kind == isInt:
		return order(float64(n.i), m.f)
	case m.kind == isDouble:
		return order(float64(n.u), m.f)
	case n.kind == isInt && m.kind == isInt:
		return order(n.i, m.i)
	case n.kind == isUint && m.kind == isUint:
		return order(n.u, m.u)
	case n.kind == isUint:
		return -m.compare(n)
	case n.i < 0:
		return -1
	}
	return order(uint64(n.i), m.u)
}

func order[T int64 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
