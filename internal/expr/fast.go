package expr

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"

	"github.com/penstock-dev/penstock/arena"
)

// cond is a condition in its fast form. A nil error comes with the answer. eval may use in.scratch.
type cond interface {
	eval(in *Input) (bool, *EvalError)
}

// kind is the type of a value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindContainer // an object or an array: equal to no literal
)

var kindNames = [...]string{"null", "a bool", "a number", "a string", "an object or a list"}

// value is what an operand has for a message.
type value struct {
	kind kind
	yes  bool
	num  number
	text []byte // of a string; with escapes if it is from a payload
	json bool   // text is from a payload
}

// plainText is the text with its escapes resolved. It is valid until the next call.
func (v *value) plainText(in *Input) []byte {
	if v.json && bytes.IndexByte(v.text, '\\') >= 0 {
		in.scratch = unescape(in.scratch[:0], v.text)
		return in.scratch
	}
	return v.text
}

// operand is a part of a message.
type operand struct {
	what  what
	path  []string // of a field
	name  string   // of a header
	label string   // for people
	gone  []*EvalError
}

type what uint8

const (
	ofField what = iota
	ofKey
	ofStream
	ofHeader
	ofSize
	ofAttempt
)

// token finds the bytes of a field.
func (o *operand) token(payload []byte) ([]byte, *EvalError) {
	from := skipSpace(payload, 0)
	if len(o.path) == 0 {
		to := skipValue(payload, from)
		if to < 0 {
			return nil, errMalformed()
		}
		return payload[from:to], nil
	}
	to := 0
	for i, name := range o.path {
		start, end, f := lookup(payload, from, name)
		from, to = start, end
		switch f {
		case there:
		case broken:
			return nil, errMalformed()
		default:
			return nil, o.gone[i]
		}
	}
	return payload[from:to], nil
}

// load is the operand's value.
func (o *operand) load(in *Input, v *value) *EvalError {
	switch o.what {
	case ofField:
		token, err := o.token(in.payload)
		if err != nil {
			return err
		}
		return v.read(token)
	case ofKey:
		v.kind, v.text = kindString, in.key
	case ofStream:
		v.kind, v.text = kindString, unsafe.Slice(unsafe.StringData(in.stream), len(in.stream))
	case ofHeader:
		text := arena.Header(in.headers, o.name)
		if text == nil && !hasHeader(in.headers, o.name) {
			return o.gone[0]
		}
		v.kind, v.text = kindString, text
	case ofSize:
		v.kind, v.num = kindNumber, number{i: int64(len(in.payload))}
	case ofAttempt:
		v.kind, v.num = kindNumber, number{i: int64(in.attempt)}
	}
	return nil
}

func hasHeader(block []byte, name string) bool {
	for n, _, rest, ok := arena.NextHeader(block); ok; n, _, rest, ok = arena.NextHeader(rest) {
		if string(n) == name {
			return true
		}
	}
	return false
}

// read makes a value of the bytes of one.
func (v *value) read(token []byte) *EvalError {
	ok := true
	switch token[0] {
	case '"':
		v.kind, v.text, v.json = kindString, token[1:len(token)-1], true
	case '{', '[':
		v.kind = kindContainer
	case 'n':
		v.kind, ok = kindNull, string(token) == "null"
	case 't':
		v.kind, v.yes, ok = kindBool, true, string(token) == "true"
	case 'f':
		v.kind, ok = kindBool, string(token) == "false"
	default:
		v.kind = kindNumber
		v.num, ok = parseNumber(token)
	}
	if !ok {
		return errMalformed()
	}
	return nil
}

// literal is a value that stands in an expression.
type literal struct {
	kind kind
	yes  bool
	num  number
	text string
}

func (l *literal) equals(in *Input, v *value) bool {
	if l.kind != v.kind {
		return false
	}
	switch l.kind {
	case kindString:
		if len(v.text) < len(l.text) {
			return false
		}
		return string(v.plainText(in)) == l.text
	case kindNumber:
		return v.num.compare(l.num) == 0
	case kindBool:
		return v.yes == l.yes
	}
	return true
}

// comparison compares an operand with a literal.
type comparison struct {
	of       operand
	op       op
	with     literal
	mismatch *EvalError
}

type op uint8

const (
	opEqual op = iota
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
)

var opNames = [...]string{"==", "!=", "<", "<=", ">", ">="}

func (c *comparison) eval(in *Input) (bool, *EvalError) {
	var v value
	if err := c.of.load(in, &v); err != nil {
		return false, err
	}
	if c.op <= opNotEqual {
		return c.with.equals(in, &v) == (c.op == opEqual), nil
	}
	if v.kind != c.with.kind {
		return false, c.mismatch
	}
	way := 0
	switch v.kind {
	case kindNumber:
		way = v.num.compare(c.with.num)
	case kindString:
		way = bytes.Compare(v.plainText(in), unsafe.Slice(unsafe.StringData(c.with.text), len(c.with.text)))
	case kindBool:
		if v.yes != c.with.yes {
			if way = -1; v.yes {
				way = 1
			}
		}
	default:
		return false, c.mismatch
	}
	switch c.op {
	case opLess:
		return way < 0, nil
	case opLessEqual:
		return way <= 0, nil
	case opGreater:
		return way > 0, nil
	default:
		return way >= 0, nil
	}
}

// membership says whether an operand is one of some literals.
type membership struct {
	of  operand
	set []literal
}

func (c *membership) eval(in *Input) (bool, *EvalError) {
	var v value
	if err := c.of.load(in, &v); err != nil {
		return false, err
	}
	for i := range c.set {
		if c.set[i].equals(in, &v) {
			return true, nil
		}
	}
	return false, nil
}

// presence is has(msg.a.b).
type presence struct {
	of     operand // without the last name
	name   string
	onList *EvalError
}

func (c *presence) eval(in *Input) (bool, *EvalError) {
	if c.of.what == ofHeader {
		return hasHeader(in.headers, c.name), nil
	}
	token, err := c.of.token(in.payload)
	if err != nil {
		return false, err
	}
	if token[0] == '[' {
		return false, c.onList
	}
	_, _, f := lookup(token, 0, c.name)
	if f == broken {
		return false, errMalformed()
	}
	return f == there, nil
}

// affix is startsWith, endsWith or contains.
type affix struct {
	of       operand
	test     func(s, part string) bool
	part     string
	mismatch *EvalError
}

func (c *affix) eval(in *Input) (bool, *EvalError) {
	var v value
	if err := c.of.load(in, &v); err != nil {
		return false, err
	}
	if v.kind != kindString {
		return false, c.mismatch
	}
	text := v.plainText(in)
	return c.test(unsafe.String(unsafe.SliceData(text), len(text)), c.part), nil
}

// affixTest is the test of a function's name.
func affixTest(function string) func(s, part string) bool {
	switch function {
	case "startsWith":
		return strings.HasPrefix
	case "endsWith":
		return strings.HasSuffix
	default:
		return strings.Contains
	}
}

// truth is a field that is a condition itself.
type truth struct {
	of       operand
	mismatch *EvalError
}

func (c *truth) eval(in *Input) (bool, *EvalError) {
	var v value
	if err := c.of.load(in, &v); err != nil {
		return false, err
	}
	if v.kind != kindBool {
		return false, c.mismatch
	}
	return v.yes, nil
}

// constant is true or false.
type constant bool

func (c constant) eval(*Input) (bool, *EvalError) { return bool(c), nil }

// negation is !.
type negation struct{ of cond }

func (c *negation) eval(in *Input) (bool, *EvalError) {
	yes, err := c.of.eval(in)
	return !yes && err == nil, err
}

// junction is && and ||. One side that decides makes up for an error of the other.
type junction struct {
	left, right cond
	decides     bool // what one side must be to decide: false for &&, true for ||
}

func (c *junction) eval(in *Input) (bool, *EvalError) {
	l, failed := c.left.eval(in)
	if failed == nil && l == c.decides {
		return l, nil
	}
	r, err := c.right.eval(in)
	switch {
	case err == nil && r == c.decides:
		return r, nil
	case failed != nil:
		return false, failed
	case err != nil:
		return false, err
	}
	return !c.decides, nil
}

func mismatch(o *operand, what string) *EvalError {
	return &EvalError{Reason: fmt.Sprintf("%s is not %s", o.label, what)}
}
