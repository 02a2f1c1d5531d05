// Package api is the one HTTP port of a pipeline that runs: health, readiness, metrics, figures, and loading its file again.
//
//	request ─> host is this machine's? ─> not from another site? ─> token? ─> mux ─> endpoint, or what was mounted by Handle
//
// It listens on loopback only, unless there are TLS and a token or client certificates. What it asks of the pipeline it asks through
// [Control], and never holds a lock meanwhile.
package api
