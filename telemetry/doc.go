// Package telemetry shows what a pipeline does to Prometheus and OpenTelemetry.
//
// Metrics are read from the figures that the runtime keeps anyway, when they are asked for: between two scrapes they cost nothing. Traces
// follow some batches on their way; a batch that is not chosen costs the choice, a few nanoseconds. Nothing here is process-wide: no
// default registry, no global tracer provider.
package telemetry
