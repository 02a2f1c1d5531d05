package pipetest

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/penstock-dev/penstock/internal/yamltree"
)

// payload is the bytes of a message: text as it is, anything else as JSON.
func (r *reader) payload(v *yamltree.Value) []byte {
	switch v.Shape {
	case yamltree.Broken:
		return nil
	case yamltree.Text:
		return []byte(v.Text)
	case yamltree.Null:
		r.Add(v.Pos, `want a message: text, or a map or list that stands for JSON; an empty one is ""`)
		return nil
	}
	return r.json(nil, v)
}

// json appends v as JSON, with keys in the order of the file and numbers as they are written.
func (r *reader) json(out []byte, v *yamltree.Value) []byte {
	switch v.Shape {
	case yamltree.Null:
		return append(out, "null"...)
	case yamltree.Bool:
		return append(out, strings.ToLower(v.Text)...)
	case yamltree.Int, yamltree.Float:
		return append(out, r.number(v)...)
	case yamltree.List:
		out = append(out, '[')
		for i, item := range v.Items {
			if i > 0 {
				out = append(out, ',')
			}
			out = r.json(out, item)
		}
		return append(out, ']')
	case yamltree.Map:
		out = append(out, '{')
		for i, e := range v.Entries {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(appendString(out, e.Key), ':')
			out = r.json(out, e.Value)
		}
		return append(out, '}')
	case yamltree.Text:
		return appendString(out, v.Text)
	}
	return append(out, "null"...) // something is wrong with it, and that has been reported
}

func appendString(out []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string can always be encoded
	}
	return append(out, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// number is a number as JSON has it.
func (r *reader) number(v *yamltree.Value) string {
	if json.Valid([]byte(v.Text)) {
		return v.Text
	}
	plain := strings.ReplaceAll(v.Text, "_", "")
	if n, err := strconv.ParseInt(plain, 0, 64); err == nil && v.Shape == yamltree.Int {
		return strconv.FormatInt(n, 10)
	}
	if f, err := strconv.ParseFloat(plain, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	r.Add(v.Pos, "want a number that JSON can hold, got %s", v.Text)
	return "null"
}
