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

	"github.com/penstock-dev/penstock/internal/suggest"
	"github.com/penstock-dev/penstock/internal/yamltree"
	"github.com/penstock-dev/penstock/kind"
)

var sizeText = regexp.MustCompile(sizeForm)

// decoder puts values into settings.
type decoder struct {
	*yamltree.Problems
	in string // what is being read, for messages: `plugin "delays": `
	// at is where each key stands, by its path from the settings down, with dots: what Check says is put there.
	at map[string]Pos
	// failed is the keys right below the settings that could not be read, or are missing.
	failed map[string]bool
}

// newDecoder makes a decoder for one struct of settings.
func newDecoder(p *yamltree.Problems, in string) *decoder {
	return &decoder{Problems: p, in: in, at: map[string]Pos{}, failed: map[string]bool{}}
}

func (d *decoder) bad(pos Pos, format string, args ...any) {
	d.Add(pos, "%s%s", d.in, fmt.Sprintf(format, args...))
}

// object reads the keys of v that into, a struct, has, and returns the entries whose keys it does not have. It reports required keys
// that are not there.
func (d *decoder) object(v *yamltree.Value, into reflect.Value, path string) (rest []yamltree.Entry) {
	known := fields(into.Type())
	for _, e := range v.Entries {
		i := slices.IndexFunc(known, func(f field) bool { return f.name == e.Key })
		if i < 0 {
			rest = append(rest, e)
			continue
		}
		f := known[i]
		d.at[join(path, f.name)] = e.Value.Pos
		before := d.Count()
		d.field(e.Value, into.FieldByIndex(f.index), f, path)
		if path == "" && (e.Value.Shape == yamltree.Broken || d.Count() > before) {
			d.failed[f.name] = true
		}
	}
	for _, f := range known {
		if _, there := v.Get(f.name); f.required && !there {
			example := ""
			if f.example != "" {
				example = fmt.Sprintf(", for example %s: %s", f.name, f.example)
			}
			d.bad(v.Pos, "the key %q is missing: add it%s", join(path, f.name), example)
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
func (d *decoder) unknown(rest []yamltree.Entry, into reflect.Type, path string, also ...string) {
	known := slices.Clone(also)
	for _, f := range fields(into) {
		known = append(known, f.name)
	}
	slices.Sort(known)
	for _, e := range rest {
		if d.Full() {
			d.Skip()
			continue
		}
		help := suggest.OrList(e.Key, known)
		if len(known) == 0 {
			help = ": there are no settings here"
		}
		d.bad(e.Pos, "unknown key %q%s", join(path, e.Key), help)
	}
}

// field reads the value of one key, and holds it against what its tags ask for.
func (d *decoder) field(v *yamltree.Value, into reflect.Value, f field, path string) {
	at := join(path, f.name)
	if v.Shape == yamltree.Broken || !d.value(v, into, at) {
		return
	}
	for into.Kind() == reflect.Pointer {
		into = into.Elem()
	}
	items := []reflect.Value{into}
	values := []*yamltree.Value{v}
	if into.Kind() == reflect.Slice && !isText(into.Type()) {
		items = nil
		for i := range into.Len() {
			items = append(items, into.Index(i))
		}
		values = v.Items
		if f.minLength > 0 && len(items) < f.minLength {
			d.bad(v.Pos, "%s: want at least %d in the list, got %d", at, f.minLength, len(items))
		}
	} else if into.Kind() == reflect.String && utf8.RuneCountInString(v.Text) < f.minLength {
		d.bad(v.Pos, "%s: want at least %d characters of text, got %d", at, f.minLength, utf8.RuneCountInString(v.Text))
	}
	for i, item := range items {
		if i < len(values) && values[i].Shape != yamltree.Broken {
			d.bounds(values[i], item, f, at)
		}
	}
}

// bounds holds one value against enum, minimum, maximum and pattern.
func (d *decoder) bounds(v *yamltree.Value, into reflect.Value, f field, at string) {
	shown := v.What()
	if into.Type() == reflect.TypeFor[kind.Secret]() {
		shown = "something else"
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, v.Text) {
		d.bad(v.Pos, "%s: want one of %s, got %s%s", at, strings.Join(f.enum, ", "), shown, suggest.DidYouMean(v.Raw, f.enum))
	}
	if f.pattern != "" && into.Kind() == reflect.String {
		if re, err := regexp.Compile(f.pattern); err == nil && !re.MatchString(into.String()) {
			d.bad(v.Pos, "%s: want text of the form %s, got %s", at, f.pattern, shown)
		}
	}
	n, numeric := asNumber(into)
	if low, ok := bound(f.min, into.Type()); numeric && ok && n < low {
		d.bad(v.Pos, "%s: want at least %s, got %s", at, f.min, shown)
	}
	if high, ok := bound(f.max, into.Type()); numeric && ok && n > high {
		d.bad(v.Pos, "%s: want at most %s, got %s", at, f.max, shown)
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
func (d *decoder) value(v *yamltree.Value, into reflect.Value, at string) bool {
	t := into.Type()
	switch {
	case v.Shape == yamltree.Broken:
		return false
	case t.Kind() == reflect.Pointer:
		if v.Shape != yamltree.Map && v.Shape != yamltree.List && t.Elem().Kind() == reflect.Struct && !isText(t.Elem()) {
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
		length, err := time.ParseDuration(v.Text)
		if v.Shape != yamltree.Text && !(v.Variable && v.Shape.Scalar()) || err != nil {
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
		if v.Shape != yamltree.Map {
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
func (d *decoder) wrong(v *yamltree.Value, t reflect.Type, at string) bool {
	help := ""
	switch {
	case v.Shape == yamltree.Null:
		help = ": write a value, or take the key out"
	case v.Shape <= yamltree.Float && !v.Variable && (typeName(t) == "text" || typeName(t) == "secret"):
		help = ": put it in quotes"
	case typeName(t) == "true or false" && slices.Contains([]string{"yes", "on"}, strings.ToLower(v.Raw)):
		help = " (did you mean true?)"
	case typeName(t) == "true or false" && slices.Contains([]string{"no", "off"}, strings.ToLower(v.Raw)):
		help = " (did you mean false?)"
	case strings.HasPrefix(typeName(t), "list of ") && v.Shape.Scalar():
		help = ": put it in brackets, as in [a, b]"
	}
	got := v.What()
	if typeName(t) == "secret" && v.Shape.Scalar() && v.Shape != yamltree.Null {
		got = "something else"
	}
	d.bad(v.Pos, "%s: want %s, got %s%s", at, want(t), got, help)
	return false
}

// textual reads a type that reads itself from text. A number will do for a size.
func (d *decoder) textual(v *yamltree.Value, into reflect.Value, at string) bool {
	t := into.Type()
	size := t == reflect.TypeFor[kind.Size]() && v.Shape == yamltree.Int
	if v.Shape != yamltree.Text && !size && !(v.Variable && v.Shape.Scalar()) {
		return d.wrong(v, t, at)
	}
	input := v.Text
	if n, ok := v.Integer(); ok && size {
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
	if v.Variable || typeName(t) == "secret" { // what a variable holds is not shown
		message = "want " + want(t)
		if v.Variable {
			message += ", and what stands for " + strconv.Quote(v.Raw) + " is none"
		}
	}
	d.bad(v.Pos, "%s: %s", at, message)
	return false
}

// names reads one name, or a list of names.
func (d *decoder) names(v *yamltree.Value, into reflect.Value, at string) bool {
	if v.Shape == yamltree.List {
		var out Names
		for i, item := range v.Items {
			s := ""
			if d.scalar(item, reflect.ValueOf(&s).Elem(), fmt.Sprintf("%s[%d]", at, i)) {
				out = append(out, Name{Text: s, Pos: item.Pos, raw: item.Raw})
			}
		}
		into.Set(reflect.ValueOf(out))
		return true
	}
	if v.Shape != yamltree.Text && !(v.Variable && v.Shape.Scalar()) {
		return d.wrong(v, into.Type(), at)
	}
	into.Set(reflect.ValueOf(Names{{Text: v.Text, Pos: v.Pos, raw: v.Raw}}))
	return true
}

// many reads a list or a map.
func (d *decoder) many(v *yamltree.Value, into reflect.Value, at string) bool {
	t := into.Type()
	if t.Kind() == reflect.Slice {
		if v.Shape != yamltree.List {
			return d.wrong(v, t, at)
		}
		out := reflect.MakeSlice(t, len(v.Items), len(v.Items))
		for i, item := range v.Items {
			where := fmt.Sprintf("%s[%d]", at, i)
			d.at[where] = item.Pos
			d.value(item, out.Index(i), where)
		}
		into.Set(out)
		return true
	}
	if v.Shape != yamltree.Map {
		return d.wrong(v, t, at)
	}
	out := reflect.MakeMapWithSize(t, len(v.Entries))
	for _, e := range v.Entries {
		where := join(at, e.Key)
		d.at[where] = e.Value.Pos
		item := reflect.New(t.Elem()).Elem()
		d.value(e.Value, item, where)
		out.SetMapIndex(reflect.ValueOf(e.Key).Convert(t.Key()), item)
	}
	into.Set(out)
	return true
}

// scalar reads text, a number, or true or false.
func (d *decoder) scalar(v *yamltree.Value, into reflect.Value, at string) bool {
	t := into.Type()
	switch t.Kind() {
	case reflect.String:
		if v.Shape == yamltree.Text || v.Variable && v.Shape.Scalar() {
			into.SetString(v.Text)
			return true
		}
	case reflect.Bool:
		if v.Shape == yamltree.Bool {
			into.SetBool(strings.EqualFold(v.Text, "true"))
			return true
		}
	case reflect.Float32, reflect.Float64:
		if f, ok := v.Number(); ok && (v.Shape == yamltree.Int || v.Shape == yamltree.Float) {
			into.SetFloat(f)
			return true
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, ok := v.Integer(); ok && !into.OverflowInt(n) {
			into.SetInt(n)
			return true
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, ok := v.Integer(); ok && n >= 0 && !into.OverflowUint(uint64(n)) {
			into.SetUint(uint64(n))
			return true
		}
	}
	if v.Shape == yamltree.Broken {
		return false
	}
	return d.wrong(v, t, at)
}

// plain is v as it would come out of JSON.
func (d *decoder) plain(v *yamltree.Value, at string) any {
	switch v.Shape {
	case yamltree.Bool:
		return strings.EqualFold(v.Text, "true")
	case yamltree.Int:
		if n, ok := v.Integer(); ok {
			return n
		}
		return d.float(v, at)
	case yamltree.Float:
		return d.float(v, at)
	case yamltree.Text:
		return v.Text
	case yamltree.List:
		out := make([]any, 0, len(v.Items))
		for i, item := range v.Items {
			out = append(out, d.plain(item, fmt.Sprintf("%s[%d]", at, i)))
		}
		return out
	case yamltree.Map:
		out := make(map[string]any, len(v.Entries))
		for _, e := range v.Entries {
			out[e.Key] = d.plain(e.Value, join(at, e.Key))
		}
		return out
	}
	return nil
}

func (d *decoder) float(v *yamltree.Value, at string) any {
	f, ok := v.Number()
	if !ok {
		d.bad(v.Pos, "%s: want a number that JSON can hold, got %s", at, v.What())
		return nil
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f) // so that 60 and 60.0 are the same settings
	}
	return f
}
