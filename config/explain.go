package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/penstock-dev/penstock/kind"
)

// Setting is one setting of a kind, for people.
type Setting struct {
	Path        string   // keys from the settings down, with dots; [] behind a list, .NAME behind a map
	Type        string   // such as duration, size, text, list of text
	Default     string   // as the file would have it; empty for none
	Required    bool     // there is no default, and it must be set; below a map that is optional: if that is there
	Enum        []string // what it may be; empty for no such bound
	Example     string
	Description string
}

// Explain lists the settings of a kind, in the order of its struct, with what stands inside of maps behind them. It is empty for a kind
// that takes any settings, or none.
func Explain(k kind.Kind) []Setting {
	if k.Settings == nil {
		return nil
	}
	return explain(reflect.ValueOf(k.Settings), "")
}

// Common lists the keys that any entry of a role can have beside its kind.
func Common(role kind.Role) []Setting {
	switch role {
	case kind.RoleSource:
		return explain(reflect.ValueOf(defaultSource()), "")
	case kind.RolePlugin:
		return explain(reflect.ValueOf(defaultPlugin()), "")
	case kind.RoleSink:
		return explain(reflect.ValueOf(defaultSink()), "")
	}
	return nil
}

// Top lists the keys at the top of a file, but for sources, plugins and sinks.
func Top() []Setting { return explain(reflect.ValueOf(defaultFile()), "") }

func explain(defaults reflect.Value, path string) []Setting {
	var out []Setting
	for _, f := range fields(defaults.Type()) {
		s := Setting{
			Path: join(path, f.name), Type: typeName(f.typ), Required: f.required, Enum: f.enum, Example: f.example, Description: f.description,
		}
		v := defaults.FieldByIndex(f.index)
		if shown, ok := show(v); ok {
			s.Default = written(shown)
		}
		out = append(out, s)
		inner, suffix := f.typ, ""
		for {
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			} else if inner.Kind() == reflect.Slice && !isText(inner) && !isNames(inner) {
				inner, suffix = inner.Elem(), suffix+"[]"
			} else if inner.Kind() == reflect.Map {
				inner, suffix = inner.Elem(), suffix+".NAME"
			} else {
				break
			}
		}
		if inner.Kind() == reflect.Struct && !isText(inner) {
			below := reflect.New(inner).Elem()
			if v.Kind() == reflect.Struct {
				below = v
			} else if v.Kind() == reflect.Pointer && !v.IsNil() {
				below = v.Elem()
			}
			out = append(out, explain(below, s.Path+suffix)...)
		}
	}
	return out
}

// written is a default as the file would have it.
func written(shown any) string {
	switch v := shown.(type) {
	case string:
		if strings.TrimSpace(v) != v {
			return strconv.Quote(v)
		}
		return v
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = written(v[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(shown)
}

// Reference is a page in Markdown with every key that a file can have, for the kinds of a registry.
func Reference(reg *kind.Registry) []byte {
	var out bytes.Buffer
	out.WriteString("# Reference\n\nEvery key that the file of a pipeline can have. [The guide](config.md) says how they go together. " +
		"This page is generated from the program: `penstock schema` has the same as JSON Schema, `penstock explain KIND` in a terminal.\n")
	out.WriteString("\nIn the column \"default\", *required* is a key that must be there; below an optional map, if the map is there.\n")
	out.WriteString("\n## The file\n\n" +
		"Beside these: `sources`, `plugins` and `sinks`, each a map from names to entries.\n\n")
	table(&out, Top())
	for _, role := range []kind.Role{kind.RoleSource, kind.RolePlugin, kind.RoleSink} {
		title := strings.ToUpper(string(role[:1])) + string(role[1:])
		fmt.Fprintf(&out, "\n## %ss\n\nAny %s can have these, beside its kind:\n\n", title, role)
		table(&out, Common(role))
		if role == kind.RolePlugin {
			out.WriteString("\n### Plugin `native`\n\nA plugin that is compiled into the binary: `native: NAME`, with its own settings under `config`.\n")
		}
		for _, k := range reg.Kinds(role) {
			page(&out, k)
		}
	}
	return out.Bytes()
}

// page writes what there is to say about a kind.
func page(out *bytes.Buffer, k kind.Kind) {
	title := strings.ToUpper(string(k.Role[:1])) + string(k.Role[1:])
	fmt.Fprintf(out, "\n### %s `%s`\n\n%s\n", title, k.Name, k.Summary)
	if doc := strings.TrimSpace(k.Doc); doc != "" {
		fmt.Fprintf(out, "\n%s\n", doc)
	}
	if example := strings.TrimRight(k.Example, "\n "); strings.TrimSpace(example) != "" {
		fmt.Fprintf(out, "\n```yaml\n%ss:\n  name:\n%s\n```\n", k.Role, indent(example, "    "))
	}
	settings := Explain(k)
	switch {
	case len(settings) > 0:
		out.WriteByte('\n')
		table(out, settings)
	case k.Settings == nil && k.Native:
		out.WriteString("\nIts settings are its own.\n")
	default:
		out.WriteString("\nIt has no settings.\n")
	}
}

// indent moves all lines of an example to the right, and those of one that is indented already together.
func indent(s, by string) string {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	common := len(lines[0]) - len(strings.TrimLeft(lines[0], " "))
	for i, l := range lines {
		cut := min(common, len(l)-len(strings.TrimLeft(l, " ")))
		if lines[i] = by + l[cut:]; strings.TrimSpace(l) == "" {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

func table(out *bytes.Buffer, settings []Setting) {
	out.WriteString("| key | what to write | default | |\n|---|---|---|---|\n")
	for _, s := range settings {
		typ := s.Type
		if len(s.Enum) > 0 {
			typ = "`" + strings.Join(s.Enum, "`, `") + "`"
		}
		preset := ""
		switch {
		case s.Required:
			preset = "*required*"
		case s.Default != "":
			preset = "`" + s.Default + "`"
		}
		text := s.Description
		if s.Example != "" {
			text = strings.TrimSpace(text + " Example: `" + s.Example + "`")
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", s.Path, cell(typ), cell(preset), cell(text))
	}
}

// cell is text that does not end a cell of a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }
