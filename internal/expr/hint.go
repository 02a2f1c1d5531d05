package expr

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// unfinished are the operators that want something behind them, the longest first.
func unfinished() []string {
	return []string{"&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "?", ":", "!", ",", "."}
}

// explain makes what CEL says of an expression one sentence that says what to do.
func (e *Error) explain(source string) {
	const syntax = "Syntax error: "
	if what, ok := strings.CutPrefix(e.Message, syntax); ok {
		if at, help, ok := hint(source); ok {
			e.Line, e.Column = position(source, at)
			e.Message, e.More = syntax+help, 0
			return
		}
		e.Message = syntax + unexpected(what)
		return
	}
	if what, ok := strings.CutPrefix(e.Message, "found no matching overload for '"); ok {
		if name, types, ok := strings.Cut(strings.TrimSuffix(what, "'"), "' applied to '"); ok {
			e.Message = fmt.Sprintf("%s does not take %s", strings.Trim(name, "_"), types)
			if strings.HasPrefix(name, "_") {
				e.Message += ": convert one of them with string(), int() or double()"
			}
		}
		return
	}
	what, ok := strings.CutPrefix(e.Message, "undeclared reference to '")
	if !ok {
		return
	}
	name, _, _ := strings.Cut(what, "'")
	if help := word(name); help != "" {
		e.Message += ": " + help
		return
	}
	e.Message += ": there are msg, key, headers, stream, attempt and size, and the functions of CEL"
}

// unexpected is a complaint of the parser without its list of all that it would take.
func unexpected(what string) string {
	what, _, _ = strings.Cut(what, " expecting ")
	for _, begin := range []string{"mismatched input ", "extraneous input ", "no viable alternative at input "} {
		if token, ok := strings.CutPrefix(what, begin); ok {
			what = token + " cannot stand here"
		}
	}
	if token, ok := strings.CutPrefix(what, "token recognition error at: '"); ok {
		token = strings.TrimSpace(strings.TrimSuffix(token, "'"))
		what = fmt.Sprintf("'%s' cannot stand here", token)
		if r, _ := utf8.DecodeRuneInString(token); r >= utf8.RuneSelf {
			what += `: a field with other letters than a to z goes in brackets, as in msg["é"]`
		}
	}
	if what == "'<EOF>' cannot stand here" {
		return "the expression ends too early"
	}
	return strings.ReplaceAll(what, "at '<EOF>'", "at the end")
}

// word says what to write in the place of a word of other languages.
func word(name string) string {
	switch strings.ToLower(name) {
	case "and":
		return "write && for " + name
	case "or":
		return "write || for " + name
	case "not":
		return "write ! for " + name
	}
	return ""
}

// hint finds the first thing in an expression that is right in other languages and not in this one, and says what to write. It is asked
// only where the parser has found something wrong.
func hint(source string) (at int, help string, found bool) {
	last, lastAt := "", 0 // the token before
	for i := 0; i < len(source); {
		token := next(source[i:])
		help := ""
		switch c := token[0]; {
		case strings.TrimSpace(token) == "" || strings.HasPrefix(token, "//"):
			i += len(token)
			continue
		case (c == '"' || c == '\'') && len(token) == 1:
			help = fmt.Sprintf("the text has no end: add the closing %c", c)
		case c == '$':
			help = "there is no $: write msg.x for $.x"
		case token == "=" || token == "===":
			help = token + " is no operator: did you mean ==?"
		case token == "<>":
			help = "<> is no operator: did you mean !=?"
		case token == "&" || token == "|":
			help = fmt.Sprintf("%[1]s is no operator: did you mean %[1]s%[1]s?", token)
		case last == "in" && c == '(' && strings.Contains(inside(source[i:]), ","):
			help = `a list stands in brackets: in ["a", "b"]`
		case last != ".":
			help = word(token)
		}
		if help != "" {
			return i, help, true
		}
		last, lastAt = token, i
		i += len(token)
	}
	if slices.Contains(unfinished(), last) || last == "in" {
		return lastAt + len(last), "the expression ends after " + last, true
	}
	return 0, "", false
}

// inside is what stands up to the first closing parenthesis.
func inside(s string) string {
	s, _, _ = strings.Cut(s, ")")
	return s
}

// next is the token that s begins with: a word, a text with its quotes (the first one alone if it is not closed), an operator, blanks, a
// comment, or one character.
func next(s string) string {
	span := func(in func(c byte) bool) string {
		n := 0
		for n < len(s) && in(s[n]) {
			n++
		}
		return s[:n]
	}
	switch c := s[0]; {
	case blank(c):
		return span(blank)
	case letter(c):
		return span(letter)
	case strings.HasPrefix(s, "//"):
		comment, _, _ := strings.Cut(s, "\n")
		return comment
	case c == '"' || c == '\'':
		for i := 1; i < len(s); i++ {
			if s[i] == '\\' {
				i++
			} else if s[i] == c {
				return s[:i+1]
			}
		}
		return s[:1]
	}
	for _, op := range append([]string{"===", "<>"}, unfinished()...) {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	_, n := utf8.DecodeRuneInString(s)
	return s[:n]
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func letter(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// position is the line and the column of a byte, from 1.
func position(source string, at int) (line, column int) {
	before := source[:at]
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}
