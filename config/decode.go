package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock-dev/penstock/kind"
)

var sizeText = regexp.MustCompile(sizeForm)

// decoder puts values into settings.
type decoder struct {
	*problems
	in string // what is being read, for messages: `plugin "delays": `
	// at is where each key stands, by its path from the settings down, with dots: what Check says is put there.
	at map[string]Pos
	// failed is the keys right below the settings that could not be read, or are missing.
	failed map[string]bool
}

// decode makes a decoder of its own for one struct of settings.
func (c *problems) decode(in string) *decoder {
	return &decoder{problems: c, in: in, at: map[string]Pos{}, failed: map[string]bool{}}
}

func (d *decoder) bad(pos Pos, format string, args ...any) {
	d.add(pos, "%s%s", d.in, fmt.Sprintf(format, args...))
}

// object reads the keys of v that into, a struct, has, and returns the entries whose keys it does not have. It reports required keys
// that are not there.
func (d *decoder) object(v *value, into reflect.Value, path string) (rest []entry) {
	known := fields(into.Type())
	for _, e := range v.entries {
		i := slices.IndexFunc(known, func(f field) bool { return f.name == e.key })
		if i < 0 {
			rest = append(rest, e)
			continue
		}
		f := known[i]
		d.at[join(path, f.name)] = e.val.pos
		before := d.count()
		d.field(e.val, into.FieldByIndex(f.index), f, path)
		if path == "" && (e.val.shape == broken || d.count() > before) {
			d.failed[f.name] = true
		}
	}
	for _, f := range known {
		if _, there := v.get(f.name); f.required && !there {
			example := ""
			if f.example != "" {
				example = fmt.Sprintf(", for example %s: %s", f.name, f.example)
			}
			d.bad(v.pos, "the key %q is missing: add it%s", join(path, f.name), example)
			if path == "" {
				d.failed[f.name] = true
			}
		}
	}
	return rest
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// unknown reports keys that nothing is known of.
func (d *decoder) unknown(rest []entry, into reflect.Type, path string, also ...string) {
	known := slices.Clone(also)
	for _, f := range fields(into) {
		known = append(known, f.name)
	}
	slices.Sort(known)
	for _, e := range rest {
		if d.full() {
			d.more++
			continue
		}
		help := didYouMean(e.key, known)
		switch {
		case help == "" && len(known) == 0:
			help = ": there are no settings here"
		case help == "" && len(known) <= 24:
			help = ": there are " + strings.Join(known, ", ")
		}
		d.bad(e.pos, "unknown key %q%s", join(path, e.key), help)
	}
}

// field reads the value of one key, and holds it against what its tags ask for.
func (d *decoder) field(v *value, into reflect.Value, f field, path string) {
	at := join(path, f.name)
	if v.shape == broken || !d.value(v, into, at) {
		return
	}
	for into.Kind() == reflect.Pointer {
		into = into.Elem()
	}
	items := []reflect.Value{into}
	values := []*value{v}
	if into.Kind() == reflect.Slice && !isText(into.Type()) {
		items = nil
		for i := range into.Len() {
			items = append(items, into.Index(i))
		}
		values = v.items
		if f.minLength > 0 && len(items) < f.minLength {
			d.bad(v.pos, "%s: want at least %d in the list, got %d", at, f.minLength, len(items))
		}
	} else if into.Kind() == reflect.String && utf8.RuneCountInString(v.text) < f.minLength {
		d.bad(v.pos, "%s: want at least %d characters of text, got %d", at, f.minLength, utf8.RuneCountInString(v.text))
	}
	for i, item := range items {
		if i < len(values) && values[i].shape != broken {
			d.bounds(values[i], item, f, at)
		}
	}
}

// bounds holds one value against enum, minimum, maximum and pattern.
func (d *decoder) bounds(v *value, into reflect.Value, f field, at string) {
	shown := v.what()
	if into.Type() == reflect.TypeFor[kind.Secret]() {
		shown = "something else"
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, v.text) {
		d.bad(v.pos, "%s: want one of %s, got %s%s", at, strings.Join(f.enum, ", "), shown, didYouMean(v.raw, f.enum))
	}
	if f.pattern != "" && into.Kind() == reflect.String {
		if re, err := regexp.Compile(f.pattern); err == nil && !re.MatchString(into.String()) {
			d.bad(v.pos, "%s: want text of the form %s, got %s", at, f.pattern, shown)
		}
	}
	n, numeric := asNumber(into)
	if low, ok := bound(f.min, into.Type()); numeric && ok && n < low {
		d.bad(v.pos, "%s: want at least %s, got %s", at, f.min, shown)
	}
	if high, ok := bound(f.max, into.Type()); numeric && ok && n > high {
		d.bad(v.pos, "%s: want at most %s, got %s", at, f.max, shown)
	}
}

func asNumber(v reflect.Value) (float64, bool) {
	switch {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}

// bound reads a minimum or maximum: a number, or for durations and sizes what the file would have.
func bound(s string, t reflect.Type) (float64, bool) {
	if s == "" {
		return 0, false
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return f, true
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(s)
		return float64(d), err == nil
	case reflect.TypeFor[kind.Size]():
		var size kind.Size
		err := size.UnmarshalText([]byte(s))
		return float64(size), err == nil
	}
	return 0, false
}

// value reads v into into, and says whether it could.
func (d *decoder) value(v *value, into reflect.Value, at string) bool {
	t := into.Type()
	switch {
	case v.shape == broken:
		return false
	case t.Kind() == reflect.Pointer:
		if v.shape != dict && v.shape != list && t.Elem().Kind() == reflect.Struct && !isText(t.Elem()) {
			return d.wrong(v, t, at)
		}
		if into.IsNil() {
			into.Set(reflect.New(t.Elem()))
		} else { // the default is shared by all that have it
			own := reflect.New(t.Elem())
			own.Elem().Set(into.Elem())
			into.Set(own)
		}
		return d.value(v, into.Elem(), at)
	case t == reflect.TypeFor[time.Duration]():
		length, err := time.ParseDuration(v.text)
		if v.shape != text && !(v.variable && v.shape < list) || err != nil {
			return d.wrong(v, t, at)
		}
		into.SetInt(int64(length))
		return true
	case isNames(t):
		return d.names(v, into, at)
	case isText(t):
		return d.textual(v, into, at)
	}
	switch t.Kind() {
	case reflect.Struct:
		if v.shape != dict {
			return d.wrong(v, t, at)
		}
		d.unknown(d.object(v, into, at), t, at)
		return true
	case reflect.Slice, reflect.Map:
		return d.many(v, into, at)
	case reflect.Interface:
		into.Set(reflect.Zero(t))
		if plain := d.plain(v, at); plain != nil {
			into.Set(reflect.ValueOf(plain))
		}
		return true
	}
	return d.scalar(v, into, at)
}

// wrong reports that v is not what t is read from.
func (d *decoder) wrong(v *value, t reflect.Type, at string) bool {
	help := ""
	switch {
	case v.shape == null:
		help = ": write a value, or take the key out"
	case v.shape <= float && !v.variable && (typeName(t) == "text" || typeName(t) == "secret"):
		help = ": put it in quotes"
	case typeName(t) == "true or false" && slices.Contains([]string{"yes", "on"}, strings.ToLower(v.raw)):
		help = " (did you mean true?)"
	case typeName(t) == "true or false" && slices.Contains([]string{"no", "off"}, strings.ToLower(v.raw)):
		help = " (did you mean false?)"
	case strings.HasPrefix(typeName(t), "list of ") && v.shape < list:
		help = ": put it in brackets, as in [a, b]"
	}
	got := v.what()
	if typeName(t) == "secret" && v.shape < list && v.shape != null {
		got = "something else"
	}
	d.bad(v.pos, "%s: want %s, got %s%s", at, want(t), got, help)
	return false
}

// textual reads a type that reads itself from text. A number will do for a size.
func (d *decoder) textual(v *value, into reflect.Value, at string) bool {
	t := into.Type()
	size := t == reflect.TypeFor[kind.Size]() && v.shape == integer
	if v.shape != text && !size && !(v.variable && v.shape < list) {
		return d.wrong(v, t, at)
	}
	input := v.text
	if n, ok := v.integer(); ok && size {
		input = strconv.FormatInt(n, 10)
	}
	err := into.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(input))
	if t == reflect.TypeFor[kind.Size]() && err == nil && !sizeText.MatchString(input) {
		err = fmt.Errorf("%q is not a size: write a number of bytes with a unit, as in 512KiB or 8MiB", input)
	}
	if err == nil {
		return true
	}
	message := err.Error()
	if v.variable || typeName(t) == "secret" { // what a variable holds is not shown
		message = "want " + want(t)
		if v.variable {
			message += ", and what stands for " + strconv.Quote(v.raw) + " is none"
		}
	}
	d.bad(v.pos, "%s: %s", at, message)
	return false
}

// names reads one name, or a list of names.
func (d *decoder) names(v *value, into reflect.Value, at string) bool {
	if v.shape == list {
		var out Names
		for i, item := range v.items {
			s := ""
			if d.scalar(item, reflect.ValueOf(&s).Elem(), fmt.Sprintf("%s[%d]", at, i)) {
				out = append(out, Name{Text: s, Pos: item.pos, raw: item.raw})
			}
		}
		into.Set(reflect.ValueOf(out))
		return true
	}
	if v.shape != text && !(v.variable && v.shape < list) {
		return d.wrong(v, into.Type(), at)
	}
	into.Set(reflect.ValueOf(Names{{Text: v.text, Pos: v.pos, raw: v.raw}}))
	return true
}

// many reads a list or a map.
func (d *decoder) many(v *value, into reflect.Value, at string) bool {
	t := into.Type()
	if t.Kind() == reflect.Slice {
		if v.shape != list {
			return d.wrong(v, t, at)
		}
		out := reflect.MakeSlice(t, len(v.items), len(v.items))
		for i, item := range v.items {
			where := fmt.Sprintf("%s[%d]", at, i)
			d.at[where] = item.pos
			d.value(item, out.Index(i), where)
		}
		into.Set(out)
		return true
	}
	if v.shape != dict {
		return d.wrong(v, t, at)
	}
	out := reflect.MakeMapWithSize(t, len(v.entries))
	for _, e := range v.entries {
		where := join(at, e.key)
		d.at[where] = e.val.pos
		item := reflect.New(t.Elem()).Elem()
		d.value(e.val, item, where)
		out.SetMapIndex(reflect.ValueOf(e.key).Convert(t.Key()), item)
	}
	into.Set(out)
	return true
}

// scalar reads text, a number, or true or false.
func (d *decoder) scalar(v *value, into reflect.Value, at string) bool {
	t := into.Type()
	switch t.Kind() {
	case reflect.String:
		if v.shape == text || v.variable && v.shape < list {
			into.SetString(v.text)
			return true
		}
	case reflect.Bool:
		if v.shape == boolean {
			into.SetBool(strings.EqualFold(v.text, "true"))
			return true
		}
	case reflect.Float32, reflect.Float64:
		if f, ok := v.number(); ok && (v.shape == integer || v.shape == float) {
			into.SetFloat(f)
			return true
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, ok := v.integer(); ok && !into.OverflowInt(n) {
			into.SetInt(n)
			return true
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, ok := v.integer(); ok && n >= 0 && !into.OverflowUint(uint64(n)) {
			into.SetUint(uint64(n))
			return true
		}
	}
	if v.shape == broken {
		return false
	}
	return d.wrong(v, t, at)
}

// plain is v as it would come out of JSON.
func (d *decoder) plain(v *value, at string) any {
	switch v.shape {
	case boolean:
		return strings.EqualFold(v.text, "true")
	case integer:
		if n, ok := v.integer(); ok {
			return n
		}
		return d.float(v, at)
	case float:
		return d.float(v, at)
	case text:
		return v.text
	case list:
		out := make([]any, 0, len(v.items))
		for i, item := range v.items {
			out = append(out, d.plain(item, fmt.Sprintf("%s[%d]", at, i)))
		}
		return out
	case dict:
		out := make(map[string]any, len(v.entries))
		for _, e := range v.entries {
			out[e.key] = d.plain(e.val, join(at, e.key))
		}
		return out
	}
	return nil
}

func (d *decoder) float(v *value, at string) any {
	f, ok := v.number()
	if !ok {
		d.bad(v.pos, "%s: want a number that JSON can hold, got %s", at, v.what())
		return nil
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f) // so that 60 and 60.0 are the same settings
	}
	return f
}
