package config

import "github.com/penstock-dev/penstock/internal/yamltree"

// Pos is a place in a file: File, and Line and Column, which count from 1; a column is a character. String is file:line:column, as editors
// and terminals know it.
type Pos = yamltree.Pos

// Problem is one thing that is wrong with a file: File, Line and Column, from 1, and Message, which says what is wrong, and what to do.
// String is the problem in one line.
type Problem = yamltree.Problem

// Error is all that is wrong with the file of a pipeline: Problems, in the order of the files. Error lists them, one in a line.
type Error = yamltree.Error
