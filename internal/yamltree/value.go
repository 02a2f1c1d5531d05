package yamltree

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Shape is what a value is.
type Shape int

// The shapes of values: scalars, then what holds other values, then what is neither.
const (
	Null Shape = iota
	Bool
	Int
	Float
	Text
	List
	Map
	Broken // something is wrong with it, and that has been reported
)

// Scalar says whether a value of that shape is one word, and not a list or a map.
func (s Shape) Scalar() bool { return s < List }

// Value is a node of the file with aliases, merge keys and variables resolved.
type Value struct {
	Shape    Shape
	Text     string // of a scalar: what it stands for, in the way that YAML writes it
	Raw      string // of a scalar, as the file has it: what a variable stands for may be secret
	Variable bool   // a part of Text came from a variable
	Pos      Pos
	Items    []*Value // of a list
	Entries  []Entry  // of a map, in order
}

// Entry is a key of a map and its value.
type Entry struct {
	Key   string
	Pos   Pos // of the key
	Value *Value
}

// Get finds the entry of a key.
func (v *Value) Get(key string) (Entry, bool) {
	for _, e := range v.Entries {
		if e.Key == key {
			return e, true
		}
	}
	return Entry{}, false
}

const maxShown = 64 // bytes of a text that is shown

// What describes the value for people, as in `the text "a"`. It shows no variable's content.
func (v *Value) What() string {
	name := ""
	switch v.Shape {
	case Null:
		return "nothing"
	case List:
		return "a list"
	case Map:
		return "a map"
	case Bool:
	case Int, Float:
		name = "the number "
	case Text:
		name = "the text "
	default:
		return "something else"
	}
	shown := v.Raw
	if len(shown) > maxShown {
		shown = shown[:maxShown] + "..."
	}
	if v.Shape == Text || v.Variable {
		shown = strconv.Quote(shown)
	}
	return name + shown
}

// Number reads an integer or a float as YAML writes it. It is false if there is no such number of 64 bits; infinity is none.
func (v *Value) Number() (float64, bool) {
	if n, ok := v.Integer(); ok {
		return float64(n), true
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(v.Text, "_", ""), 64)
	return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}

// Integer reads an integer as YAML writes it. It is false if the value is of another shape, or does not fit.
func (v *Value) Integer() (int64, bool) {
	n, err := strconv.ParseInt(strings.ReplaceAll(v.Text, "_", ""), 0, 64)
	return n, err == nil && v.Shape == Int
}

var (
	intForm   = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+)$`)
	floatForm = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
)

// resolve is the shape of a scalar without quotes, by the core schema of YAML 1.2.
func resolve(s string) Shape {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return Null
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return Bool
	}
	switch {
	case intForm.MatchString(s):
		return Int
	case floatForm.MatchString(s):
		return Float
	}
	return Text
}

// shapeOf is the shape of a scalar by its tag, or Broken if the tag is not one of a scalar.
func shapeOf(tag string) Shape {
	switch tag {
	case "!!null":
		return Null
	case "!!bool":
		return Bool
	case "!!int":
		return Int
	case "!!float":
		return Float
	case "!!str", "!!timestamp", "!!merge":
		return Text
	}
	return Broken
}
