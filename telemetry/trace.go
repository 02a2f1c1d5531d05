package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// TraceConfig says what is followed, and where the spans go.
type TraceConfig struct {
	// Sample is the part of the batches that is followed, 0 (none, and nothing else happens either) to 1 (all). If it is above 0, a batch whose
	// first message has a traceparent with the flag "sampled" is followed too, as part of that trace.
	Sample  float64
	Version string       // of the program: the resource's service.version
	Logger  *slog.Logger // hears of spans that could not be exported; default slog.Default()

	Exporter sdk.SpanExporter // default what the environment variables OTEL_* say: OTLP, unless OTEL_TRACES_EXPORTER names another
	Rand     func() uint64    // uniform over all values, called concurrently; default that of math/rand/v2
}

// Tracer makes spans of the batches that it chooses. Its methods may be called concurrently.
type Tracer struct {
	spans  trace.Tracer // nil if nothing is followed
	most   uint64       // a batch is chosen if its random number is at most that
	random func() uint64
}

var _ penstock.Tracer = (*Tracer)(nil)

// NewTracer makes a Tracer. shutdown exports what is left, up to the end of its context, and must be called after the pipeline has ended.
// With a Sample of 0 no exporter is made. The errors are those of a Sample out of range, and of environment variables that say what cannot be.
func NewTracer(cfg TraceConfig) (t *Tracer, shutdown func(ctx context.Context) error, err error) {
	switch {
	case !(cfg.Sample >= 0 && cfg.Sample <= 1):
		return nil, nil, fmt.Errorf("tracing: sample is %v: use a number from 0 (no traces) to 1 (of every batch)", cfg.Sample)
	case cfg.Sample == 0:
		return &Tracer{}, func(context.Context) error { return nil }, nil
	}
	t = &Tracer{random: cfg.Rand, most: math.MaxUint64}
	if t.random == nil {
		t.random = rand.Uint64
	}
	if cfg.Sample < 1 {
		t.most = uint64(cfg.Sample * (1 << 64))
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ctx := context.Background() // nothing is sent yet
	if cfg.Exporter == nil {
		if cfg.Exporter, err = autoexport.NewSpanExporter(ctx); err != nil {
			return nil, nil, fmt.Errorf("tracing: by the environment variables OTEL_*: %w", err)
		}
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "penstock"), attribute.String("service.version", cfg.Version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("tracing: OTEL_RESOURCE_ATTRIBUTES: %w", err), cfg.Exporter.Shutdown(ctx))
	}
	// What gets here has been chosen, so the SDK is to choose no more.
	provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample()), sdk.WithResource(about),
		sdk.WithBatcher(&exporter{SpanExporter: cfg.Exporter, log: cfg.Logger}))
	t.spans = provider.Tracer("github.com/penstock-dev/penstock", trace.WithInstrumentationVersion(cfg.Version))
	return t, provider.Shutdown, nil
}

// exporter logs what cannot be exported: the SDK would tell a handler that the whole process shares.
type exporter struct {
	sdk.SpanExporter
	log *slog.Logger
}

// ExportSpans implements sdk.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("traces could not be exported and are dropped", "spans", len(spans), "error", err)
	}
	return nil
}

// Begin implements [penstock.Tracer].
func (t *Tracer) Begin(source string, messages int, traceparent []byte) arena.Trail {
	if t == nil || t.spans == nil || !saysSampled(traceparent) && t.random() > t.most {
		return nil
	}
	return t.begin(source, messages, traceparent)
}

// begin starts a trace, or goes on with the one of traceparent. If that one is not recorded, the trace is of its own and linked to it.
func (t *Tracer) begin(source string, messages int, traceparent []byte) arena.Trail {
	ctx := context.Background() // spans outlive whatever has read the batch
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.system", "penstock"), attribute.String("messaging.operation.name", "receive"),
		attribute.String("messaging.destination.name", source), attribute.Int("messaging.batch.message_count", messages))}
	if len(traceparent) > 0 {
		from := propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{arena.TraceHeader: string(traceparent)})
		switch up := trace.SpanContextFromContext(from); {
		case up.IsSampled():
			ctx = from
		case up.IsValid():
			options = append(options, trace.WithLinks(trace.Link{SpanContext: up}))
		case saysSampled(traceparent) && t.random() > t.most: // it is not what it seemed to be
			return nil
		}
	}
	ctx, span := t.spans.Start(ctx, "receive "+source, options...)
	return &trail{t: t, ctx: ctx, span: span, stream: source}
}

// saysSampled looks for the flag "sampled" in a traceparent, and at nothing else of it.
func saysSampled(traceparent []byte) bool {
	const flags = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0") // one digit more
	if len(traceparent) <= flags {
		return false
	}
	switch traceparent[flags] {
	case '1', '3', '5', '7', '9', 'b', 'd', 'f':
		return true
	}
	return false
}

// trail is a batch that is followed.
type trail struct {
	t      *Tracer
	ctx    context.Context // with the span that its steps are children of
	span   trace.Span      // its own; nil for a batch that was emitted in a step
	stream string
}

// Enter implements [arena.Trail].
func (y *trail) Enter(consumer string, role arena.Role, messages int) arena.Step {
	what, kind := "handle", trace.SpanKindInternal
	if role == arena.RoleSink {
		what, kind = "write", trace.SpanKindProducer
	}
	ctx, span := y.t.spans.Start(y.ctx, what+" "+consumer, trace.WithSpanKind(kind), trace.WithAttributes(
		attribute.String("messaging.system", "penstock"), attribute.String("messaging.operation.name", what),
		attribute.String("messaging.destination.name", y.stream), attribute.Int("messaging.batch.message_count", messages)))
	return &step{t: y.t, ctx: ctx, span: span}
}

// Leave implements [arena.Trail].
func (y *trail) Leave() {
	if y.span != nil {
		y.span.End()
	}
}

// step is a plugin or a sink at work on a batch that is followed.
type step struct {
	t      *Tracer
	ctx    context.Context
	span   trace.Span
	header []byte
}

// Traceparent implements [arena.Step].
func (s *step) Traceparent() []byte {
	if s.header == nil {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(s.ctx, carrier)
		s.header = []byte(carrier[arena.TraceHeader])
	}
	return s.header
}

// Follow implements [arena.Step].
func (s *step) Follow(stream string) arena.Trail { return &trail{t: s.t, ctx: s.ctx, stream: stream} }

// Leave implements [arena.Step].
func (s *step) Leave(exceptions int) {
	s.span.SetAttributes(attribute.Int("penstock.exceptions", exceptions))
	s.span.End()
}
