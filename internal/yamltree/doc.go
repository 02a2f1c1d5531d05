// Package yamltree reads YAML that people write: from text to a tree of values, each with its place, past bounds that hold before memory is
// taken.
//
//	text ──Parse──> yaml nodes ──aliases, <<, ${VAR}──> Value
//	     size, UTF-8           10,000 values
//	     nesting
//
// What is wrong is gathered in [Problems], as many as there are, each with file, line and column, and comes out as one [*Error].
//
// What the values mean is the caller's business: a decoder walks the tree, and reports what it finds in the same Problems.
package yamltree
