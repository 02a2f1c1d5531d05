// Package expr evaluates expressions over a message: conditions, which give true or false, and values.
//
//	msg.delay >= 60 && msg.origin in ["SEA", "PDX"]
//
// The language is CEL, the Common Expression Language, with the variables msg (the payload as JSON), key, headers, stream, attempt and
// size (bytes of the payload). A condition that only compares fields with literals is evaluated on the bytes of the payload, without
// decoding it and without allocating; anything else goes to CEL, which gets the payload decoded. Both ways give the same answer for every
// payload that is JSON; the tests hold them against each other.
//
// What a payload means: a number without fraction and exponent that fits is an int, or a uint if it is only too large for an int; every
// other number is a double. Of two members with one name the first counts. A fast condition reads a payload only as far as it must, so
// it may not notice that the rest is no JSON.
package expr

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Bounds. An expression comes from a file that somebody trusts, a payload from anywhere.
const (
	MaxSource = 16 << 10 // bytes of an expression
	MaxDecode = 4 << 20  // bytes of a payload that is decoded; the fast path has no bound
	MaxDepth  = 256      // objects and arrays within each other, in a payload that is decoded
	MaxCost   = 1e6      // of one evaluation by CEL, in its units: about one for each operation, or ten bytes of a string
	nesting   = 200      // of an expression
)

// Error is what is wrong with the text of an expression.
type Error struct {
	Line, Column int // of the expression, from 1; Column counts characters
	Message      string
	More         int // further errors that were found
}

// Error is the position and the message.
func (e *Error) Error() string {
	s := fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
	if e.More > 0 {
		s += fmt.Sprintf(" (and %d more)", e.More)
	}
	return s
}

// EvalError says why an expression has no value for a message.
type EvalError struct {
	Reason string
	Err    error // the cause, if there is one
}

// Error is the reason.
func (e *EvalError) Error() string { return e.Reason }

// Unwrap is the cause.
func (e *EvalError) Unwrap() error { return e.Err }

// Program is an expression, ready to be evaluated. It may be used concurrently, each use with an Input of its own.
type Program struct {
	source string
	cond   cond     // the fast form of a condition; nil if it has none
	plain  *operand // the fast form of a value: one field or variable; nil if it is more than that
	slow   cel.Program
}

// CompileBool makes a condition. The error is an [*Error].
func CompileBool(source string) (*Program, error) {
	p, ast, err := compile(source)
	if err != nil {
		return nil, err
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, &Error{Line: 1, Column: 1, Message: fmt.Sprintf(
			"the expression gives a value of type %s, and a condition must be true or false: compare it with something", t)}
	}
	p.cond = fastCond(ast.NativeRep().Expr())
	return p, nil
}

// CompileValue makes a value of any type. The error is an [*Error].
func CompileValue(source string) (*Program, error) {
	p, ast, err := compile(source)
	if err != nil {
		return nil, err
	}
	if o, ok := fastOperand(ast.NativeRep().Expr()); ok {
		p.plain = &o
	}
	return p, nil
}

func compile(source string) (*Program, *cel.Ast, error) {
	switch {
	case strings.TrimSpace(source) == "":
		return nil, nil, &Error{Line: 1, Column: 1, Message: "the expression is empty: write one, such as msg.delay >= 60"}
	case len(source) > MaxSource:
		return nil, nil, &Error{Line: 1, Column: 1, Message: fmt.Sprintf("the expression has %d bytes: at most %d", len(source), MaxSource)}
	case !utf8.ValidString(source):
		return nil, nil, &Error{Line: 1, Column: 1, Message: "the expression is not UTF-8"}
	}
	env, err := newEnv()
	if err != nil {
		return nil, nil, &Error{Line: 1, Column: 1, Message: err.Error()}
	}
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, nil, issue(issues, source)
	}
	slow, err := env.Program(ast, cel.CostLimit(MaxCost))
	if err != nil {
		return nil, nil, &Error{Line: 1, Column: 1, Message: err.Error()}
	}
	return &Program{source: source, slow: slow}, ast, nil
}

func newEnv() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("msg", cel.DynType), cel.Variable("key", cel.StringType), cel.Variable("stream", cel.StringType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("attempt", cel.IntType), cel.Variable("size", cel.IntType),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(),
		cel.ParserRecursionLimit(nesting), cel.ParserExpressionSizeLimit(MaxSource),
	)
}

// issue is the first of CEL's complaints about an expression.
func issue(issues *cel.Issues, source string) *Error {
	errs := issues.Errors()
	if len(errs) == 0 {
		return &Error{Line: 1, Column: 1, Message: issues.Err().Error()}
	}
	first := errs[0]
	e := &Error{Line: 1, Column: 1, Message: strings.TrimSuffix(first.Message, " (in container '')"), More: len(errs) - 1}
	if l := first.Location; l != nil && l.Line() > 0 {
		e.Line, e.Column = l.Line(), l.Column()+1
	}
	e.explain(source)
	return e
}

// String is the text of the expression.
func (p *Program) String() string { return p.source }

// Fast says whether p is evaluated without decoding the payload.
func (p *Program) Fast() bool { return p.cond != nil || p.plain != nil }

// Bool evaluates a condition made by [CompileBool]. The error is an [*EvalError].
func (p *Program) Bool(in *Input) (bool, error) {
	if p.cond != nil {
		yes, err := p.cond.eval(in)
		if err != nil {
			return false, err
		}
		return yes, nil
	}
	v, err := p.eval(in)
	if err != nil {
		return false, err
	}
	yes, ok := v.(types.Bool)
	if !ok {
		return false, &EvalError{Reason: fmt.Sprintf("the condition gives a value of type %s, not true or false", v.Type().TypeName())}
	}
	return bool(yes), nil
}

// eval asks CEL.
func (p *Program) eval(in *Input) (ref.Val, error) {
	v, _, err := p.slow.Eval(activation{in})
	if err == nil {
		return v, nil
	}
	var e *EvalError
	if errors.As(err, &e) {
		return nil, e
	}
	reason := err.Error()
	if strings.Contains(reason, "cost limit exceeded") {
		reason = fmt.Sprintf("the expression takes more than %d steps for this message: it was given up", int(MaxCost))
	}
	if strings.HasPrefix(reason, "no such overload") {
		reason += ": something has another type than is needed there: convert it, as in double(msg.n) * 1.5 or string(msg.n) + \"x\""
	}
	return nil, &EvalError{Reason: reason, Err: err}
}
