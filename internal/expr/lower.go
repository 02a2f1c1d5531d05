package expr

import (
	"strconv"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// fastCond is the fast form of a checked condition, or nil if it has none.
func fastCond(e ast.Expr) cond {
	switch e.Kind() {
	case ast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			return constant(b)
		}
		return nil
	case ast.CallKind:
		return fastCall(e.AsCall())
	case ast.SelectKind:
		if e.AsSelect().IsTestOnly() {
			return fastPresence(e.AsSelect())
		}
	}
	if o, ok := fastOperand(e); ok && o.what == ofField {
		return &truth{of: o, mismatch: mismatch(&o, "true or false")}
	}
	return nil
}

func fastCall(call ast.CallExpr) cond {
	args := call.Args()
	switch name := call.FunctionName(); name {
	case operators.LogicalNot:
		if of := fastCond(args[0]); of != nil {
			return &negation{of}
		}
	case operators.LogicalAnd, operators.LogicalOr:
		var out cond
		for _, arg := range args {
			c := fastCond(arg)
			if c == nil {
				return nil
			}
			if out == nil {
				out = c
			} else {
				out = &junction{left: out, right: c, decides: name == operators.LogicalOr}
			}
		}
		return out
	case operators.Index:
		if o, ok := fastIndex(args); ok && o.what == ofField {
			return &truth{of: o, mismatch: mismatch(&o, "true or false")}
		}
	case operators.In:
		return fastIn(args)
	case "startsWith", "endsWith", "contains":
		if !call.IsMemberFunction() || len(args) != 1 {
			return nil
		}
		o, ok := fastOperand(call.Target())
		l, isLiteral := fastLiteral(args[0])
		if ok && isLiteral && l.kind == kindString && o.what != ofSize && o.what != ofAttempt {
			return &affix{of: o, test: affixTest(name), part: l.text, mismatch: mismatch(&o, "a string")}
		}
	default:
		return fastComparison(name, args)
	}
	return nil
}

// comparisonOp is the comparison that a function of CEL's is, and what it is with its sides exchanged.
func comparisonOp(function string) (as, flipped op, ok bool) {
	switch function {
	case operators.Equals:
		return opEqual, opEqual, true
	case operators.NotEquals:
		return opNotEqual, opNotEqual, true
	case operators.Less:
		return opLess, opGreater, true
	case operators.LessEquals:
		return opLessEqual, opGreaterEqual, true
	case operators.Greater:
		return opGreater, opLess, true
	case operators.GreaterEquals:
		return opGreaterEqual, opLessEqual, true
	default:
		return 0, 0, false
	}
}

func fastComparison(name string, args []ast.Expr) cond {
	as, flipped, ok := comparisonOp(name)
	if !ok || len(args) != 2 {
		return nil
	}
	o, isOperand := fastOperand(args[0])
	l, isLiteral := fastLiteral(args[1])
	if !isOperand {
		as = flipped
		o, isOperand = fastOperand(args[1])
		l, isLiteral = fastLiteral(args[0])
	}
	if !isOperand || !isLiteral {
		return nil
	}
	return &comparison{of: o, op: as, with: l, mismatch: mismatch(&o, kindNames[l.kind]+", which "+opNames[as]+" needs here")}
}

func fastIn(args []ast.Expr) cond {
	if len(args) != 2 {
		return nil
	}
	if l, ok := fastLiteral(args[0]); ok && l.kind == kindString && args[1].Kind() == ast.IdentKind && args[1].AsIdent() == "headers" {
		return &presence{of: operand{what: ofHeader}, name: l.text}
	}
	o, ok := fastOperand(args[0])
	if !ok || args[1].Kind() != ast.ListKind || len(args[1].AsList().OptionalIndices()) > 0 {
		return nil
	}
	c := &membership{of: o}
	for _, e := range args[1].AsList().Elements() {
		l, ok := fastLiteral(e)
		if !ok {
			return nil
		}
		c.set = append(c.set, l)
	}
	return c
}

func fastPresence(s ast.SelectExpr) cond {
	if s.Operand().Kind() == ast.IdentKind && s.Operand().AsIdent() == "headers" {
		return &presence{of: operand{what: ofHeader}, name: s.FieldName()}
	}
	o, ok := fastOperand(s.Operand())
	if !ok || o.what != ofField {
		return nil
	}
	return &presence{of: o, name: s.FieldName(), onList: mismatch(&o, "an object, which has() needs")}
}

// fastOperand is a part of a message that is found without CEL.
func fastOperand(e ast.Expr) (operand, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		o := operand{label: e.AsIdent()}
		switch e.AsIdent() {
		case "msg":
			o.what = ofField
		case "key":
			o.what = ofKey
		case "stream":
			o.what = ofStream
		case "size":
			o.what = ofSize
		case "attempt":
			o.what = ofAttempt
		default:
			return operand{}, false
		}
		return o, true
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() {
			return operand{}, false
		}
		return member(s.Operand(), s.FieldName())
	case ast.CallKind:
		if e.AsCall().FunctionName() == operators.Index {
			return fastIndex(e.AsCall().Args())
		}
	}
	return operand{}, false
}

// fastIndex is msg["a"] or headers["a"].
func fastIndex(args []ast.Expr) (operand, bool) {
	if len(args) != 2 {
		return operand{}, false
	}
	l, ok := fastLiteral(args[1])
	if !ok || l.kind != kindString {
		return operand{}, false
	}
	return member(args[0], l.text)
}

// member is a member of an object, or a header.
func member(of ast.Expr, name string) (operand, bool) {
	if of.Kind() == ast.IdentKind && of.AsIdent() == "headers" {
		o := operand{what: ofHeader, name: name, label: "headers[" + strconv.Quote(name) + "]"}
		o.gone = []*EvalError{{Reason: "no such key: " + name + ": the message has no header of that name"}}
		return o, true
	}
	o, ok := fastOperand(of)
	if !ok || o.what != ofField {
		return operand{}, false
	}
	o.gone = append(o.gone[:len(o.gone):len(o.gone)], &EvalError{Reason: "no such key: " + name + ": " + o.label + " has no such field"})
	o.path = append(o.path[:len(o.path):len(o.path)], name)
	o.label += "." + name
	return o, true
}

func fastLiteral(e ast.Expr) (literal, bool) {
	if e.Kind() != ast.LiteralKind {
		return literal{}, false
	}
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		return literal{kind: kindBool, yes: bool(v)}, true
	case types.String:
		return literal{kind: kindString, text: string(v)}, true
	case types.Int:
		return literal{kind: kindNumber, num: number{kind: isInt, i: int64(v)}}, true
	case types.Uint:
		return literal{kind: kindNumber, num: number{kind: isUint, u: uint64(v)}}, true
	case types.Double:
		return literal{kind: kindNumber, num: number{kind: isDouble, f: float64(v)}}, true
	case types.Null:
		return literal{kind: kindNull}, true
	}
	return literal{}, false
}
