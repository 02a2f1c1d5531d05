package expr

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// AppendJSON evaluates p and appends its value as JSON to dst. A value that is nothing but a field is appended as it stands in the payload,
// so its numbers are exact. Members of objects come in the order of their names, bytes in base64, times as RFC 3339, durations as strings.
// The error is an [*EvalError]; dst then comes back as it was.
func (p *Program) AppendJSON(dst []byte, in *Input) ([]byte, error) {
	if p.plain != nil && p.plain.what == ofField {
		token, err := p.plain.token(in.payload)
		if err != nil {
			return dst, err
		}
		return append(dst, token...), nil
	}
	v, err := p.eval(in)
	if err != nil {
		return dst, err
	}
	out, fail := appendValue(dst, v, MaxDepth)
	if fail != nil {
		return dst, fail
	}
	return out, nil
}

// AppendText evaluates p and appends its value as text to dst: a string as it is, null as nothing, anything else as JSON. The error is an
// [*EvalError]; dst then comes back as it was.
func (p *Program) AppendText(dst []byte, in *Input) ([]byte, error) {
	if p.plain != nil {
		return p.plain.appendText(dst, in)
	}
	v, err := p.eval(in)
	if err != nil {
		return dst, err
	}
	switch v := v.(type) {
	case types.String:
		return append(dst, v...), nil
	case types.Bytes:
		return append(dst, v...), nil
	case types.Null:
		return dst, nil
	}
	out, fail := appendValue(dst, v, MaxDepth)
	if fail != nil {
		return dst, fail
	}
	return out, nil
}

func (o *operand) appendText(dst []byte, in *Input) ([]byte, error) {
	if o.what == ofField {
		token, err := o.token(in.payload)
		switch {
		case err != nil:
			return dst, err
		case token[0] == '"':
			return unescape(dst, token[1:len(token)-1]), nil
		case string(token) == "null":
			return dst, nil
		}
		return append(dst, token...), nil
	}
	var v value
	if err := o.load(in, &v); err != nil {
		return dst, err
	}
	if v.kind == kindNumber {
		return strconv.AppendInt(dst, v.num.i, 10), nil
	}
	return append(dst, v.text...), nil
}

func appendValue(dst []byte, v ref.Val, depth int) ([]byte, *EvalError) {
	if depth == 0 {
		return dst, &EvalError{Reason: fmt.Sprintf("the value has more than %d objects and lists within each other", MaxDepth)}
	}
	switch v := v.(type) {
	case types.Null:
		return append(dst, "null"...), nil
	case types.Bool:
		return strconv.AppendBool(dst, bool(v)), nil
	case types.Int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case types.Uint:
		return strconv.AppendUint(dst, uint64(v), 10), nil
	case types.Double:
		return appendDouble(dst, float64(v))
	case types.String:
		return appendString(dst, string(v)), nil
	case types.Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v), '"'), nil
	case types.Timestamp:
		return append(v.Time.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"'), nil
	case types.Duration:
		return append(append(append(dst, '"'), v.Duration.String()...), '"'), nil
	case *types.Optional:
		if !v.HasValue() {
			return append(dst, "null"...), nil
		}
		return appendValue(dst, v.GetValue(), depth)
	case traits.Mapper:
		return appendMap(dst, v, depth-1)
	case traits.Lister:
		dst = append(dst, '[')
		for i, it := 0, v.Iterator(); it.HasNext() == types.True; i++ {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err *EvalError
			if dst, err = appendValue(dst, it.Next(), depth-1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	}
	return dst, &EvalError{Reason: fmt.Sprintf("a value of type %s cannot be written as JSON: convert it, for example by string()",
		v.Type().TypeName())}
}

func appendMap(dst []byte, m traits.Mapper, depth int) ([]byte, *EvalError) {
	type entry struct {
		name  string
		value ref.Val
	}
	var entries []entry
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		name, ok := k.ConvertToType(types.StringType).(types.String)
		if !ok {
			return dst, &EvalError{Reason: fmt.Sprintf("a map whose keys are of type %s cannot be written as JSON", k.Type().TypeName())}
		}
		entries = append(entries, entry{string(name), m.Get(k)})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	dst = append(dst, '{')
	for i, e := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, e.name), ':')
		var err *EvalError
		if dst, err = appendValue(dst, e.value, depth); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendDouble(dst []byte, f float64) ([]byte, *EvalError) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, &EvalError{Reason: fmt.Sprintf("%v cannot be written as JSON", f)}
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64), nil
}

// appendString appends s as a string of JSON. Bytes that are no UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // of a string it does not fail
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
