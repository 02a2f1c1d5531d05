package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/internal/suggest"
	"github.com/penstock-dev/penstock/internal/yamltree"
	"github.com/penstock-dev/penstock/kind"
)

var nameForm = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

const nameRule = "a name has 1 to 64 of a to z, 0 to 9, _ and -"

// section reads the entries of sources, plugins or sinks.
func (r *reader) section(e yamltree.Entry, each func(name string, e yamltree.Entry)) {
	switch e.Value.Shape {
	case yamltree.Null: // all entries are commented out, perhaps
		return
	case yamltree.Map:
	case yamltree.Broken:
		r.unsure()
		return
	default:
		r.Add(e.Value.Pos, "%s: want a map from names to what they are, got %s", e.Key, e.Value.What())
		r.unsure()
		return
	}
	for _, entry := range e.Value.Entries {
		one := strings.TrimSuffix(e.Key, "s")
		if !nameForm.MatchString(entry.Key) {
			r.Add(entry.Pos, "%s %q: %s", one, entry.Key, nameRule)
		}
		id := e.Key + "/" + entry.Key
		if first, twice := r.first[id]; twice {
			r.Add(entry.Pos, "%s %q: there is one of that name already, at %v", one, entry.Key, first)
		} else {
			r.first[id] = entry.Pos
		}
		each(fmt.Sprintf("%s %q", one, entry.Key), entry)
	}
}

// entry says whether what stands under a name can be read at all.
func (r *reader) entry(name string, e yamltree.Entry, role kind.Role) bool {
	switch e.Value.Shape {
	case yamltree.Map:
		return true
	case yamltree.Broken:
	default:
		r.Add(e.Value.Pos, "%s: want a map with a kind, one of %s, got %s", name, strings.Join(r.kindNames(role), ", "), e.Value.What())
	}
	r.unsure()
	return false
}

func (r *reader) source(name string, e yamltree.Entry) {
	s := Source{Name: e.Key, Pos: e.Pos, SourceKeys: defaultSource()}
	if r.entry(name, e, kind.RoleSource) {
		d := newDecoder(r.Problems, name+": ")
		rest := d.object(e.Value, reflect.ValueOf(&s.SourceKeys).Elem(), "")
		if k, at, ok := r.kind(d, kind.RoleSource, rest, e, reflect.TypeFor[SourceKeys]()); ok {
			s.Kind, s.Settings = k, r.settings(owner{name, e.Pos}, name+": "+k.Name+": ", k, at)
		}
		if len(d.failed) == 0 {
			r.check(d, s.SourceKeys, e.Pos)
		}
	}
	r.c.Sources = append(r.c.Sources, s)
}

func (r *reader) sink(name string, e yamltree.Entry) {
	s := Sink{Name: e.Key, Pos: e.Pos, SinkKeys: defaultSink()}
	if r.entry(name, e, kind.RoleSink) {
		d := newDecoder(r.Problems, name+": ")
		rest := d.object(e.Value, reflect.ValueOf(&s.SinkKeys).Elem(), "")
		if k, at, ok := r.kind(d, kind.RoleSink, rest, e, reflect.TypeFor[SinkKeys]()); ok {
			s.Kind, s.Settings = k, r.settings(owner{name, e.Pos}, name+": "+k.Name+": ", k, at)
		}
		d.longest(&s.Retry)
		if len(d.failed) == 0 {
			r.check(d, s.SinkKeys, e.Pos)
		}
		r.readersUnsure = r.readersUnsure || d.failed["from"]
	}
	r.c.Sinks = append(r.c.Sinks, s)
}

func (r *reader) plugin(name string, e yamltree.Entry) {
	g := Plugin{Name: e.Key, Pos: e.Pos, PluginKeys: defaultPlugin()}
	if r.entry(name, e, kind.RolePlugin) {
		d := newDecoder(r.Problems, name+": ")
		rest := d.object(e.Value, reflect.ValueOf(&g.PluginKeys).Elem(), "")
		r.handler(d, &g, rest, name, e)
		d.longest(&g.Retry)
		if len(d.failed) == 0 {
			r.check(d, g.PluginKeys, e.Pos)
		}
		r.readersUnsure = r.readersUnsure || d.failed["from"]
		r.makersUnsure = r.makersUnsure || d.failed["emits"]
	}
	r.c.Plugins = append(r.c.Plugins, g)
}

// longest raises the longest wait to the first, where only that is set.
func (d *decoder) longest(retry *Retry) {
	if _, set := d.at["retry.max"]; !set {
		retry.Max = max(retry.Max, retry.Backoff)
	}
}

// take takes the entry of a key out of some.
func take(rest []yamltree.Entry, key string) (yamltree.Entry, bool, []yamltree.Entry) {
	i := slices.IndexFunc(rest, func(e yamltree.Entry) bool { return e.Key == key })
	if i < 0 {
		return yamltree.Entry{}, false, rest
	}
	return rest[i], true, slices.Delete(slices.Clone(rest), i, i+1)
}

// handler finds out what a plugin does: a kind that is built in, or native: NAME.
func (r *reader) handler(d *decoder, g *Plugin, rest []yamltree.Entry, name string, e yamltree.Entry) {
	native, isNative, rest := take(rest, "native")
	config, hasConfig, rest := take(rest, "config")
	own := owner{name, e.Pos}
	if !isNative {
		if hasConfig {
			d.bad(config.Pos, "config goes with native only: settings of a kind stand under the kind, as in filter: {...}")
		}
		if k, at, ok := r.kind(d, kind.RolePlugin, rest, e, reflect.TypeFor[PluginKeys](), "native", "config"); ok {
			g.Kind, g.Settings = k, r.settings(own, name+": "+k.Name+": ", k, at)
		}
		return
	}
	var unknown []yamltree.Entry
	for _, other := range rest {
		if k, ok := r.registry.Lookup(kind.RolePlugin, other.Key); ok && !k.Native {
			d.bad(other.Pos, "there are two kinds, native and %s: give one", other.Key)
		} else {
			unknown = append(unknown, other)
		}
	}
	d.unknown(unknown, reflect.TypeFor[PluginKeys](), "", "native", "config")
	if native.Value.Shape == yamltree.Broken {
		return
	}
	called := ""
	if !d.scalar(native.Value, reflect.ValueOf(&called).Elem(), "native") {
		return
	}
	k, ok := r.registry.Lookup(kind.RolePlugin, called)
	if !ok || !k.Native {
		r.noNative(d, native.Value, called, ok)
		return
	}
	g.Kind = k
	if !hasConfig {
		config = yamltree.Entry{Key: "config", Pos: e.Pos, Value: &yamltree.Value{Shape: yamltree.Null, Pos: native.Value.Pos}}
	}
	if k.Settings == nil {
		g.Config = d.plain(config.Value, "config")
		return
	}
	g.Settings = r.settings(own, name+": config: ", k, config)
}

// noNative reports the name of a plugin that this binary does not have.
func (r *reader) noNative(d *decoder, v *yamltree.Value, called string, builtIn bool) {
	if builtIn {
		d.bad(v.Pos, "%s is built in: write %s: {...} instead of native: %s", called, called, called)
		return
	}
	var names []string
	for _, k := range r.registry.Kinds(kind.RolePlugin) {
		if k.Native {
			names = append(names, k.Name)
		}
	}
	if len(names) == 0 {
		d.bad(v.Pos, "no native plugin %q: this binary was built without any: run the one that your plugins are compiled into", called)
		return
	}
	d.bad(v.Pos, "no native plugin %q%s: this binary has %s", called, suggest.DidYouMean(called, names), strings.Join(names, ", "))
}

// kindNames is the kinds of a role as keys of an entry.
func (r *reader) kindNames(role kind.Role) []string {
	var out []string
	for _, k := range r.registry.Kinds(role) {
		if !k.Native {
			out = append(out, k.Name)
		}
	}
	if role == kind.RolePlugin {
		out = append(out, "native")
	}
	return out
}

// kind finds the one kind among the keys that are not common to all entries, and reports all other keys.
func (r *reader) kind(
	d *decoder, role kind.Role, rest []yamltree.Entry, e yamltree.Entry, common reflect.Type, also ...string,
) (kind.Kind, yamltree.Entry, bool) {
	var found, unknown []yamltree.Entry
	for _, key := range rest {
		if k, ok := r.registry.Lookup(role, key.Key); ok && !k.Native {
			found = append(found, key)
		} else {
			unknown = append(unknown, key)
		}
	}
	names := r.kindNames(role)
	if len(found) > 0 {
		for _, more := range found[1:] {
			d.bad(more.Pos, "there are two kinds, %s and %s: give one", found[0].Key, more.Key)
		}
		d.unknown(unknown, common, "", also...)
		k, _ := r.registry.Lookup(role, found[0].Key)
		return k, found[0], true
	}
	known := slices.Clone(also)
	for _, f := range fields(common) {
		known = append(known, f.name)
	}
	var keys []yamltree.Entry
	wrong := false
	for _, u := range unknown {
		if wrong || suggest.DidYouMean(u.Key, names) == "" && (suggest.DidYouMean(u.Key, known) != "" || elsewhere(u.Key)) {
			keys = append(keys, u)
			continue
		}
		wrong = true
		help := suggest.DidYouMean(u.Key, names)
		for _, other := range []kind.Role{kind.RoleSource, kind.RolePlugin, kind.RoleSink} {
			if k, ok := r.registry.Lookup(other, u.Key); ok && k.Native && role == other {
				help = fmt.Sprintf(" (it is native: write native: %s)", u.Key)
			} else if ok && help == "" {
				help = fmt.Sprintf(" (it is a kind of %s)", other)
			}
		}
		d.bad(u.Pos, "unknown kind %q of %s%s: there are %s", u.Key, role, help, strings.Join(names, ", "))
	}
	d.unknown(keys, common, "", also...)
	if !wrong {
		d.bad(e.Pos, "the kind is missing: add one of %s", strings.Join(names, ", "))
	}
	return kind.Kind{}, yamltree.Entry{}, false
}

// elsewhere says whether a key is one that all entries of some role can have.
func elsewhere(key string) bool {
	for _, t := range []reflect.Type{reflect.TypeFor[SourceKeys](), reflect.TypeFor[PluginKeys](), reflect.TypeFor[SinkKeys]()} {
		if slices.ContainsFunc(fields(t), func(f field) bool { return f.name == key }) {
			return true
		}
	}
	return false
}

// settings reads the settings of a kind, checks them and notes what they claim.
func (r *reader) settings(own owner, in string, k kind.Kind, e yamltree.Entry) any {
	d := newDecoder(r.Problems, in)
	v := e.Value
	if v.Shape == yamltree.Null { // `stdin:` has no settings to write
		v = &yamltree.Value{Shape: yamltree.Map, Pos: e.Value.Pos}
	}
	switch {
	case v.Shape == yamltree.Broken:
		return k.Settings
	case v.Shape != yamltree.Map:
		d.bad(v.Pos, "want a map of settings, got %s", v.What())
		return k.Settings
	case k.Settings == nil:
		return d.plain(v, "")
	}
	before := d.Count()
	into := reflect.New(reflect.TypeOf(k.Settings)).Elem()
	into.Set(reflect.ValueOf(k.Settings))
	d.unknown(d.object(v, into, ""), into.Type(), "")
	settings := into.Interface()
	if d.Count() > before {
		return settings
	}
	r.check(d, settings, v.Pos)
	if c, ok := as[kind.Claimer](settings); ok && d.Count() == before {
		for _, claim := range c.Claims() {
			r.claim(claim, own)
		}
	}
	return settings
}

// as finds an interface of settings, whose methods may want a pointer to them.
func as[I any](settings any) (I, bool) {
	if i, ok := settings.(I); ok {
		return i, true
	}
	p := reflect.New(reflect.TypeOf(settings))
	p.Elem().Set(reflect.ValueOf(settings))
	i, ok := p.Interface().(I)
	return i, ok
}

// check asks settings what is wrong with them, and finds out where that stands: at the field, or else at the closest one around it.
func (r *reader) check(d *decoder, settings any, whole Pos) {
	c, ok := as[kind.Checked](settings)
	if !ok {
		return
	}
	for _, p := range c.Check() {
		pos := whole
		for field := p.Field; field != ""; {
			if at, there := d.at[field]; there {
				pos = at
				break
			}
			field = field[:max(strings.LastIndexAny(field, ".["), 0)]
		}
		message := d.Hide(p.Message)
		if p.Field != "" && !strings.HasPrefix(message, p.Field) {
			message = p.Field + ": " + message
		}
		d.bad(pos, "%s", message)
	}
}

// claim notes that an entry needs something for itself, such as an address. Any free port can be had twice.
func (r *reader) claim(what string, by owner) {
	if strings.HasPrefix(what, "tcp ") && strings.HasSuffix(what, ":0") {
		return
	}
	if path, reads := strings.CutPrefix(what, "read "); reads {
		if other, taken := r.claims["file "+path]; taken {
			r.Add(by.pos, "%s: %s writes %s, at %v: what is read must be another file", by.name, other.name, path, other.pos)
		}
		r.claims[what] = by
		return
	}
	if path, writes := strings.CutPrefix(what, "file "); writes {
		if other, taken := r.claims["read "+path]; taken {
			r.Add(by.pos, "%s: %s reads %s, at %v: write to another file", by.name, other.name, path, other.pos)
		}
	}
	if other, taken := r.claims[what]; taken {
		r.Add(by.pos, "%s: %s has %s already, at %v: only one can", by.name, other.name, what, other.pos)
		return
	}
	r.claims[what] = by
}
