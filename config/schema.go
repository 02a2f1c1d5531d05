package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
	"github.com/penstock-dev/penstock/kind"
)

// Forms of scalars, for the schema. What the decoder takes fits them.
const (
	durationForm = `^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	sizeForm     = `^[0-9]+(\.[0-9]+)? ?([KMGT]iB|[kKMGT]B|B)?$`
	rateForm     = `^\s*\+?[0-9]+\s*/\s*\S+\s*$`
	pathForm     = `^\$(\.[A-Za-z0-9_-]+|\[[0-9]+\]|\['.+'\])+$`
	streamForm   = `^[a-z0-9_-]{1,64}$`
	variableForm = `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`
)

// Schema is the JSON Schema (draft 2020-12) of a file with the kinds of a registry, for editors. A file that it refuses is refused by
// Load, too; the other way round there is much that it cannot tell, such as streams that nobody makes.
func Schema(reg *kind.Registry) ([]byte, error) {
	s := &schemas{reflector: jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, DoNotReference: true, Anonymous: true, ExpandedStruct: true, Mapper: scalarSchema,
	}}
	root := s.object(reflect.ValueOf(defaultFile()))
	root.Version, root.Title = jsonschema.Version, "Pipeline of Penstock"
	root.Description = "Sources, plugins and sinks, and how messages flow between them."
	root.Definitions = jsonschema.Definitions{
		"variable": {Type: "string", Pattern: variableForm, Description: "A variable of the environment: ${NAME} or ${NAME:-default}."},
		"source":   s.entry(reg, kind.RoleSource, reflect.ValueOf(defaultSource())),
		"plugin":   s.entry(reg, kind.RolePlugin, reflect.ValueOf(defaultPlugin())),
		"sink":     s.entry(reg, kind.RoleSink, reflect.ValueOf(defaultSink())),
	}
	for _, section := range []struct{ role, about string }{
		{"source", "Where messages come from. Each makes the stream of its name."},
		{"plugin", "What handles messages."},
		{"sink", "Where messages go."},
	} {
		root.Properties.Set(section.role+"s", &jsonschema.Schema{Description: section.about, AnyOf: []*jsonschema.Schema{
			{
				Type: "object", PropertyNames: &jsonschema.Schema{Pattern: streamForm},
				AdditionalProperties: &jsonschema.Schema{Ref: "#/$defs/" + section.role},
			},
			{Type: "null"},
		}})
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("config: schema: %w", err)
	}
	return append(out, '\n'), nil
}

// schemas makes the parts of a schema.
type schemas struct{ reflector jsonschema.Reflector }

// object is the schema of a struct with the defaults that it holds.
func (s *schemas) object(defaults reflect.Value) *jsonschema.Schema {
	out := s.reflector.ReflectFromType(defaults.Type())
	out.Version = ""
	s.finish(out, defaults)
	return out
}

// finish adds to the schema of a struct what its types alone do not tell.
func (s *schemas) finish(out *jsonschema.Schema, defaults reflect.Value) {
	for _, f := range fields(defaults.Type()) {
		p, ok := out.Properties.Get(f.name)
		if !ok {
			continue
		}
		v := defaults.FieldByIndex(f.index)
		if shown, ok := show(v); ok {
			p.Default = shown
		}
		p.Examples = nil
		if f.example != "" {
			p.Examples = []any{exampleOf(f)}
		}
		s.property(p, f, v)
	}
}

// property finishes the schema of one key.
func (s *schemas) property(p *jsonschema.Schema, f field, v reflect.Value) {
	t := v.Type()
	for t.Kind() == reflect.Pointer {
		if t = t.Elem(); v.IsNil() {
			v = reflect.New(t).Elem()
		} else {
			v = v.Elem()
		}
	}
	switch {
	case t.Kind() == reflect.Interface:
		return
	case t == reflect.TypeFor[time.Duration](), isText(t), isNames(t):
		if isNames(t) && f.minLength > 0 {
			n := uint64(f.minLength)
			p.AnyOf[1].MinItems = &n
		}
		s.restrict(p, f)
	case t.Kind() == reflect.Struct:
		s.finish(p, v)
	case t.Kind() == reflect.Slice:
		inner := f
		inner.minLength, inner.description = 0, ""
		if p.Items != nil {
			s.property(p.Items, inner, reflect.New(t.Elem()).Elem())
		}
	case t.Kind() == reflect.Map:
		if p.AdditionalProperties != nil {
			s.property(p.AdditionalProperties, field{}, reflect.New(t.Elem()).Elem())
		}
	default:
		s.restrict(p, f)
	}
}

// restrict lets a variable stand for a scalar of which more is asked than that it is text.
func (s *schemas) restrict(p *jsonschema.Schema, f field) {
	if len(p.AnyOf) > 0 {
		return
	}
	p.Enum = nil
	for _, e := range f.enum {
		p.Enum = append(p.Enum, enumValue(e, p.Type))
	}
	if p.Type == "string" && len(p.Enum) == 0 && p.Pattern == "" && p.MinLength == nil {
		return
	}
	own := &jsonschema.Schema{
		Type: p.Type, Enum: p.Enum, Pattern: p.Pattern, MinLength: p.MinLength, Minimum: p.Minimum, Maximum: p.Maximum,
		ExclusiveMinimum: p.ExclusiveMinimum, ExclusiveMaximum: p.ExclusiveMaximum,
	}
	*p = jsonschema.Schema{Description: p.Description, Default: p.Default, Examples: p.Examples, AnyOf: []*jsonschema.Schema{own, variable()}}
}

func variable() *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/variable"} }

func enumValue(e, typ string) any {
	var number any
	if typ != "string" && json.Unmarshal([]byte(e), &number) == nil {
		return number
	}
	return e
}

// scalarSchema is the schema of types that are written as scalars, whatever they are in Go; nil for all others.
func scalarSchema(t reflect.Type) *jsonschema.Schema {
	form := func(pattern string, also ...*jsonschema.Schema) *jsonschema.Schema {
		return &jsonschema.Schema{AnyOf: append([]*jsonschema.Schema{{Type: "string", Pattern: pattern}}, append(also, variable())...)}
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		return form(durationForm)
	case reflect.TypeFor[kind.Size]():
		return form(sizeForm, &jsonschema.Schema{Type: "integer", Minimum: "0"})
	case reflect.TypeFor[kind.Rate]():
		return form(rateForm)
	case reflect.TypeFor[KeyPath]():
		return form(pathForm)
	case reflect.TypeFor[Names]():
		one := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Pattern: streamForm}, variable()}}
		return form(streamForm, &jsonschema.Schema{Type: "array", Items: one, UniqueItems: true})
	}
	if isText(t) {
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}

// entry is the schema of what stands under a name: the common keys, and exactly one kind.
func (s *schemas) entry(reg *kind.Registry, role kind.Role, common reflect.Value) *jsonschema.Schema {
	out := s.object(common)
	var natives []kind.Kind
	for _, k := range reg.Kinds(role) {
		if k.Native {
			natives = append(natives, k)
			continue
		}
		out.Properties.Set(k.Name, s.settings(k))
		out.OneOf = append(out.OneOf, &jsonschema.Schema{Required: []string{k.Name}})
	}
	if role != kind.RolePlugin {
		return out
	}
	native := &jsonschema.Schema{Type: "string"}
	for _, k := range natives {
		native.Enum = append(native.Enum, k.Name)
		if k.Settings != nil {
			out.AllOf = append(out.AllOf, &jsonschema.Schema{
				If:   with(&jsonschema.Schema{Required: []string{"native"}}, "native", &jsonschema.Schema{Const: k.Name}),
				Then: with(&jsonschema.Schema{}, "config", s.settings(k)),
			})
		}
	}
	s.restrict(native, field{enum: texts(native.Enum)})
	native.Description = "A plugin that is compiled into the binary."
	out.Properties.Set("native", native)
	out.Properties.Set("config", &jsonschema.Schema{Description: "The native plugin's own settings."})
	out.DependentRequired = map[string][]string{"config": {"native"}}
	out.OneOf = append(out.OneOf, &jsonschema.Schema{Required: []string{"native"}})
	return out
}

// with gives a schema one property.
func with(s *jsonschema.Schema, name string, p *jsonschema.Schema) *jsonschema.Schema {
	s.Properties = jsonschema.NewProperties()
	s.Properties.Set(name, p)
	return s
}

func texts(enum []any) []string {
	out := make([]string, len(enum))
	for i, e := range enum {
		out[i] = fmt.Sprint(e)
	}
	return out
}

// settings is the schema of the settings of a kind, which may be left empty if none is required.
func (s *schemas) settings(k kind.Kind) *jsonschema.Schema {
	if k.Settings == nil {
		return &jsonschema.Schema{Description: k.Summary, AnyOf: []*jsonschema.Schema{{Type: "object"}, {Type: "null"}}}
	}
	out := s.object(reflect.ValueOf(k.Settings))
	if len(out.Required) > 0 {
		out.Description = k.Summary
		return out
	}
	return &jsonschema.Schema{Description: k.Summary, AnyOf: []*jsonschema.Schema{out, {Type: "null"}}}
}

// show is a value as the file has it, and false if it is one that says nothing: empty, or secret.
func show(v reflect.Value) (any, bool) {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Bool:
		return v.Bool(), true
	case v.IsZero() || t == reflect.TypeFor[kind.Secret]() || isNames(t) || t.Kind() == reflect.Pointer:
		return nil, false
	case t == reflect.TypeFor[time.Duration]():
		return duration(time.Duration(v.Int())), true
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		return string(text), err == nil
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Interface, reflect.Func, reflect.Chan:
		return nil, false
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			item, ok := show(v.Index(i))
			if !ok {
				return nil, false
			}
			out[i] = item
		}
		return out, true
	}
	return v.Interface(), true
}

// duration is a duration without the zeros that Go writes behind it.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// exampleOf is the example of a field as JSON has it.
func exampleOf(f field) any {
	var v any
	numeric := slices.Contains([]string{"integer", "number", "true or false"}, typeName(f.typ))
	if numeric && json.Unmarshal([]byte(f.example), &v) == nil {
		return v
	}
	return f.example
}
