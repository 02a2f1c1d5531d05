package arena

// Trail follows a batch on its way, for tracing. Few batches have one. Its methods may be called concurrently, and must not block.
type Trail interface {
	// Enter says that a plugin, or a sink, begins with some messages of the batch.
	Enter(consumer string, role Role, messages int) Step
	// Leave says that the batch is done with: all its messages, and whatever was emitted from them, have settled.
	Leave()
}

// Role says what a consumer is.
type Role uint8

// The roles.
const (
	RolePlugin Role = iota
	RoleSink
)

// Step is the time that one plugin or sink takes for its messages of a batch. It belongs to the goroutine that has entered it.
type Step interface {
	// Traceparent is the value of the header of that name, by W3C Trace Context, for messages that are emitted in the step. It is not
	// changed, and valid until Leave returns.
	Traceparent() []byte
	// Follow is the trail of a batch that is emitted to stream in the step.
	Follow(stream string) Trail
	// Leave ends the step. That many of its messages were not simply acknowledged.
	Leave(exceptions int)
}

// TraceHeader is the header by which a message carries the trace that it belongs to.
const TraceHeader = "traceparent"
