package config

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/kind"
)

// Identity is a hash of all that makes the source what it is: its kind and settings, frame and delimiter. Where things stand in the
// file, and whether a default is written out, does not change it.
func (s *Source) Identity() string {
	return identity("source", s.Kind.Name, s.Settings, s.Frame, s.Delimiter)
}

// Identity is a hash of the plugin's kind and settings, the streams that it may emit to, and its version.
func (g *Plugin) Identity() string {
	emits := g.Emits.Texts()
	slices.Sort(emits)
	return identity("plugin", g.Kind.Name, g.Settings, g.Config, g.Version, emits)
}

// Identity is a hash of the sink's kind and settings.
func (s *Sink) Identity() string { return identity("sink", s.Kind.Name, s.Settings) }

// identity hashes values, secrets included, so that equal ones give one hash.
func identity(parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		digest(h, reflect.ValueOf(p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// put writes a word such that no two rows of words look alike.
func put(h hash.Hash, s string) { _, _ = fmt.Fprintf(h, "%d:%s", len(s), s) } // a hash takes anything

func digest(h hash.Hash, v reflect.Value) {
	if !v.IsValid() {
		put(h, "nil")
		return
	}
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			put(h, "nil")
			return
		}
		digest(h, v.Elem())
		return
	}
	if v.CanInterface() {
		if secret, ok := v.Interface().(kind.Secret); ok {
			put(h, secret.Reveal())
			return
		}
		if m, ok := v.Interface().(encoding.TextMarshaler); ok {
			if text, err := m.MarshalText(); err == nil {
				put(h, string(text))
				return
			}
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		put(h, "struct")
		for i := range v.NumField() {
			put(h, v.Type().Field(i).Name)
			digest(h, v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		put(h, fmt.Sprintf("list %d", v.Len()))
		for i := range v.Len() {
			digest(h, v.Index(i))
		}
	case reflect.Map:
		put(h, fmt.Sprintf("map %d", v.Len()))
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			put(h, k.String())
			digest(h, v.MapIndex(k))
		}
	default:
		put(h, fmt.Sprint(v.Kind(), v))
	}
}
