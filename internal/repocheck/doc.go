// Package repocheck has tests only, and they are about the repository itself: which package imports which, whether links and file maps
// point at what is there, how long functions are, what the tests do while they wait. They read the files of the tree and nothing else,
// for every build tag and operating system at once.
//
// Each check returns findings, one line each, that say what is wrong, where, and what to do. Each is also tried on a small tree that
// breaks its rule, since a check that cannot fail says nothing.
package repocheck
