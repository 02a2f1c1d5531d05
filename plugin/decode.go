package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
)

// strictDecode reads one JSON value into v; unknown keys and trailing data are errors.
func strictDecode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errTrailing
	}
	return nil
}

// PanicError is a panic of a handler as an error; it is [ErrPanic].
type PanicError struct {
	Value any
	Stack []byte
}

// Error shows the panic's value. The stack is in the field.
func (e *PanicError) Error() string { return fmt.Sprintf("%v: %v", ErrPanic, e.Value) }

// Unwrap makes errors.Is(e, ErrPanic) hold.
func (e *PanicError) Unwrap() error { return ErrPanic }

// protect calls f and turns a panic into its error.
func protect(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
