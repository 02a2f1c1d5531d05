// Package pipetest runs the tests of a pipeline: files of YAML beside it that say what comes in, and what is to come out.
//
//	penstock_test.yaml ──> steps ──> sources that give the test's input
//	                                    │   the real runtime, plugins as in production
//	                                    v
//	                 expectations <── sinks that record, dead letters in memory
//
// Time is virtual. The clock stands still while any goroutine of the pipeline can go on; when none can, it is moved to the next time that
// something waits for. So a retry after half a minute takes no time, and what a test sees does not depend on how fast the machine is.
// Nothing is read or written but the files of tests and pipelines.
package pipetest
