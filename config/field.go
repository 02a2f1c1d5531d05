package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
)

// field is one key of a struct of settings, as its tags describe it.
type field struct {
	name        string
	index       []int
	typ         reflect.Type
	required    bool
	enum        []string
	min, max    string // as the tags have them; empty for none
	pattern     string
	minLength   int
	example     string
	description string
}

// fields is the keys of a struct, those of structs embedded in it included.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Struct && (f.Anonymous && name == "" || rest == "inline") {
			for _, inner := range fields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		d := field{name: name, index: []int{i}, typ: f.Type, description: f.Tag.Get("jsonschema_description")}
		d.keywords(f.Tag.Get("jsonschema"))
		out = append(out, d)
	}
	return out
}

// keywords reads the tag jsonschema: words and name=value, with commas between them, and \, for a comma.
func (d *field) keywords(tag string) {
	const comma = "\x00"
	for word := range strings.SplitSeq(strings.ReplaceAll(tag, `\,`, comma), ",") {
		word = strings.ReplaceAll(word, comma, ",")
		name, val, _ := strings.Cut(word, "=")
		switch name {
		case "required":
			d.required = true
		case "enum":
			d.enum = append(d.enum, val)
		case "minimum":
			d.min = val
		case "maximum":
			d.max = val
		case "pattern":
			d.pattern = val
		case "minLength", "minItems":
			d.minLength, _ = strconv.Atoi(val)
		case "example":
			if d.example == "" {
				d.example = val
			}
		}
	}
}

// isText says whether values of a type are read from text by the type itself.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// isNames is a type for which one word may stand for a list of one.
func isNames(t reflect.Type) bool { return t == reflect.TypeFor[Names]() }

// typeName says what to write for a type, as a noun without an article.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[kind.Size]():
		return "size"
	case reflect.TypeFor[kind.Rate]():
		return "rate"
	case reflect.TypeFor[kind.Secret]():
		return "secret"
	case reflect.TypeFor[KeyPath]():
		return "path"
	case reflect.TypeFor[Names]():
		return "name or list of names"
	}
	if isText(t) {
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Struct:
		return "map"
	}
	return "any"
}

// want says what to write for a type, with an example.
func want(t reflect.Type) string {
	if t.Kind() != reflect.Int64 && !isText(t) {
		zero := reflect.Zero(t)
		switch bits := t.Bits; {
		case zero.CanInt() && t.Kind() != reflect.Int:
			return fmt.Sprintf("an integer from %d to %d", -1<<(bits()-1), 1<<(bits()-1)-1)
		case zero.CanUint() && t.Size() < 8:
			return fmt.Sprintf("an integer from 0 to %d", 1<<bits()-1)
		}
	}
	switch name := typeName(t); name {
	case "duration":
		return "a duration such as 5s"
	case "size":
		return "a size such as 8MiB"
	case "rate":
		return "a rate such as 100/s"
	case "path":
		return "a path such as $.origin"
	case "integer":
		return "an integer"
	case "text", "true or false":
		return name
	default:
		return "a " + name
	}
}
