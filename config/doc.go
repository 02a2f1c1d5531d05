// Package config reads the file of a pipeline: from YAML to a checked graph to a [github.com/penstock-dev/penstock.Pipeline].
//
//	text ──door──> nodes ──aliases, ${VAR}──> values ──kinds, settings──> Config ──graph checked──> Pipeline
//	     size, UTF-8      10,000 values              types, keys, enums        streams, cycles, memory
//	     nesting
//
// The way to values is internal/yamltree's, which files of tests go too. All that is wrong is reported at once, each problem with file, line
// and column. What a kind of source, plugin or sink takes is described by package kind; from the same description come the JSON Schema
// (Schema), the reference page (Reference) and what the command line explains (Explain).
//
// Nothing here opens, starts or writes anything.
package config
