package expr

import (
	"encoding/json"
	"errors"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/penstock-dev/penstock/arena"
)

// Input is a message as expressions see it. One Input serves message after message; it must not be used by two goroutines at once.
// The zero value is an empty message.
type Input struct {
	payload, key, headers []byte
	stream                string
	attempt               int

	decoded bool
	doc     any
	table   map[string]string
	scratch []byte // for strings with escapes
}

// Set points the Input at a message: its payload, key, header block, stream and attempt. They are read until the next Set, and not changed.
func (in *Input) Set(payload, key, headers []byte, stream string, attempt int) {
	in.payload, in.key, in.headers, in.stream, in.attempt = payload, key, headers, stream, attempt
	if in.decoded {
		in.decoded, in.doc = false, nil
	}
	if in.table != nil {
		in.table = nil
	}
}

// activation shows CEL an Input.
type activation struct{ in *Input }

var _ cel.Activation = activation{}

// ResolveName is the value of a variable. The payload is decoded when msg is asked for.
func (a activation) ResolveName(name string) (any, bool) {
	in := a.in
	switch name {
	case "msg":
		if !in.decoded {
			in.doc, in.decoded = in.decode(), true
		}
		return in.doc, true
	case "key":
		return string(in.key), true
	case "stream":
		return in.stream, true
	case "headers":
		if in.table == nil {
			in.table = map[string]string{}
			for n, v, rest, ok := arena.NextHeader(in.headers); ok; n, v, rest, ok = arena.NextHeader(rest) {
				if _, there := in.table[string(n)]; !there {
					in.table[string(n)] = string(v)
				}
			}
		}
		return in.table, true
	case "attempt":
		return int64(in.attempt), true
	case "size":
		return int64(len(in.payload)), true
	}
	return nil, false
}

// Parent is nil: there is nothing outside.
func (activation) Parent() cel.Activation { return nil }

func errMalformed() *EvalError { return &EvalError{Reason: "the payload is not JSON"} }

func errTooDeep() *EvalError {
	return &EvalError{Reason: fmt.Sprintf("the payload has more than %d objects and arrays within each other", MaxDepth)}
}

// decode is the payload as CEL takes it, or an error of CEL's.
func (in *Input) decode() any {
	if len(in.payload) > MaxDecode {
		return celError(&EvalError{Reason: fmt.Sprintf("the payload has %d bytes: an expression like this one reads at most %d",
			len(in.payload), MaxDecode)})
	}
	if !json.Valid(in.payload) {
		return celError(&EvalError{Reason: malformed(in.payload)})
	}
	v, _, err := build(in.payload, skipSpace(in.payload, 0), MaxDepth)
	if err != nil {
		return celError(err)
	}
	return v
}

func celError(err *EvalError) *types.Err { return types.WrapErr(err).(*types.Err) }

// malformed says where payload stops being JSON.
func malformed(payload []byte) string {
	var v any
	err := json.Unmarshal(payload, &v)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("the payload is not JSON: offset %d: %v", syntax.Offset, syntax)
	}
	return errMalformed().Reason
}

// build makes the value at offset i of b, which is valid JSON. It returns where the value ends.
func build(b []byte, i, depth int) (v any, end int, fail *EvalError) {
	switch b[i] {
	case '{':
		if depth == 0 {
			return nil, i, errTooDeep()
		}
		return buildObject(b, i, depth-1)
	case '[':
		if depth == 0 {
			return nil, i, errTooDeep()
		}
		list := []any{}
		for i = skipSpace(b, i+1); b[i] != ']'; {
			v, end, fail := build(b, i, depth-1)
			if fail != nil {
				return nil, i, fail
			}
			list = append(list, v)
			if i = skipSpace(b, end); b[i] == ',' {
				i = skipSpace(b, i+1)
			}
		}
		return list, i + 1, nil
	case '"':
		end := stringEnd(b, i)
		return string(unescape(nil, b[i+1:end-1])), end, nil
	case 't':
		return true, i + 4, nil
	case 'f':
		return false, i + 5, nil
	case 'n':
		return nil, i + 4, nil
	}
	end = skipValue(b, i)
	n, ok := parseNumber(b[i:end])
	switch {
	case !ok:
		return nil, i, errMalformed()
	case n.kind == isInt:
		return n.i, end, nil
	case n.kind == isUint:
		return n.u, end, nil
	}
	return n.f, end, nil
}

func buildObject(b []byte, i, depth int) (v any, end int, fail *EvalError) {
	object := map[string]any{}
	for i = skipSpace(b, i+1); b[i] != '}'; {
		colon := stringEnd(b, i)
		name := string(unescape(nil, b[i+1:colon-1]))
		i = skipSpace(b, skipSpace(b, colon)+1)
		v, end, fail := build(b, i, depth)
		if fail != nil {
			return nil, i, fail
		}
		if _, there := object[name]; !there {
			object[name] = v
		}
		if i = skipSpace(b, end); b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return object, i + 1, nil
}
