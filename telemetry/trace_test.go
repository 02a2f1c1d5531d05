package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

// up is a trace of a producer, sampled and not.
const (
	upTrace   = "0af7651916cd43dd8448eb211c80319c"
	upSpan    = "b7ad6b7169203331"
	sampled   = "00-" + upTrace + "-" + upSpan + "-01"
	unsampled = "00-" + upTrace + "-" + upSpan + "-00"
)

// recorder keeps spans also beyond Shutdown.
type recorder struct {
	mu    sync.Mutex
	spans tracetest.SpanStubs
	err   error
}

func (r *recorder) ExportSpans(_ context.Context, spans []sdk.ReadOnlySpan) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, tracetest.SpanStubsFromReadOnlySpans(spans)...)
	return r.err
}

func (r *recorder) Shutdown(context.Context) error { return nil }

// called is the span of that name.
func (r *recorder) called(t *testing.T, name string) *tracetest.SpanStub {
	t.Helper()
	i := slices.IndexFunc(r.spans, func(s tracetest.SpanStub) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no span %q", name)
	}
	return &r.spans[i]
}

func number(t *testing.T, s *tracetest.SpanStub, key string) int64 {
	t.Helper()
	for _, a := range s.Attributes {
		if a.Key == attribute.Key(key) {
			return a.Value.AsInt64()
		}
	}
	t.Errorf("span %q has no %s", s.Name, key)
	return -1
}

// list is a source of one batch.
type list struct {
	messages []string
	headers  []byte
}

func (l *list) Run(ctx context.Context, in source.Intake) error {
	if err := in.Ready(ctx); err != nil {
		return err
	}
	slab, err := in.Account().LeaseSized(1000)
	if err != nil {
		return err
	}
	b, at := in.NewBatch(), 0
	b.Slab = slab
	for i, m := range l.messages {
		f := arena.Frame{Off: uint32(at), Len: uint32(copy(slab.Bytes()[at:], m))}
		at += len(m)
		f.HdrOff, f.HdrLen = uint32(at), uint32(copy(slab.Bytes()[at:], l.headers))
		at += len(l.headers)
		b.Frames, b.Receipts = append(b.Frames, f), append(b.Receipts, uint64(i+1))
	}
	return in.Accept(b)
}

func (l *list) Settle(source.Settlement)    {}
func (l *list) Close(context.Context) error { return nil }

// keep is a sink that writes down the headers of what it gets.
type keep struct {
	mu      sync.Mutex
	parents []string
}

func (k *keep) Open(context.Context, sink.Env) error { return nil }

func (k *keep) Write(_ context.Context, b *sink.Batch) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range b.Len() {
		k.parents = append(k.parents, string(b.Header(i, arena.TraceHeader)))
	}
	b.Done(0, b.Len(), nil)
	return nil
}

func (k *keep) Flush(context.Context) error { return nil }
func (k *keep) Close(context.Context) error { return nil }

// handler makes instances of a function.
type handler func(ctx context.Context, m *penstock.Message) error

func (h handler) Handle(ctx context.Context, m *penstock.Message) error { return h(ctx, m) }

func (h handler) instance() (penstock.Handler, error) { return h, nil }

// run runs a pipeline in which the plugin p rejects one of two messages and forwards the other; a sink has the name of a plugin.
func run(t *testing.T, cfg TraceConfig, parent string) (p penstock.Pipeline, out *keep) {
	t.Helper()
	out = &keep{}
	in := &list{messages: []string{"no", "yes"}}
	if parent != "" {
		in.headers = arena.AppendHeader(nil, arena.TraceHeader, []byte(parent))
	}
	p = penstock.Pipeline{
		Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Sources: []penstock.Source{{Name: "in", From: in}},
		Plugins: []penstock.Plugin{
			{Name: "p", From: []string{"in"}, Emits: []string{"out"}, New: handler(func(_ context.Context, m *penstock.Message) error {
				if string(m.Payload()) == "no" {
					return penstock.Reject(errors.New("no"))
				}
				return m.Forward("out")
			}).instance},
			{Name: "q", From: []string{"out"}, New: handler(func(context.Context, *penstock.Message) error { return nil }).instance},
		},
		Sinks: []penstock.Sink{{Name: "p", From: []string{"out"}, To: out}},
	}
	tracer, shutdown, err := NewTracer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Tracer = tracer
	rt, err := penstock.New(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	return p, out
}

// Promise: a batch that is followed is one trace from its source over plugins and what they emit to the sinks, carried in a header.
func TestOneTrace(t *testing.T) {
	for _, parent := range []string{"", sampled, unsampled, "rubbish"} {
		t.Run(parent, func(t *testing.T) {
			r := &recorder{}
			_, out := run(t, TraceConfig{Sample: 1, Version: "1.2.3", Exporter: r}, parent)
			receive, handle := r.called(t, "receive in"), r.called(t, "handle p")
			for name, under := range map[string]*tracetest.SpanStub{"handle p": receive, "handle q": handle, "write p": handle} {
				if s := r.called(t, name); s.Parent.SpanID() != under.SpanContext.SpanID() || s.SpanContext.TraceID() != receive.SpanContext.TraceID() {
					t.Errorf("%q is not under %q", name, under.Name)
				}
			}
			if len(r.spans) != 4 {
				t.Errorf("%d spans, want 4", len(r.spans))
			}
			if receive.SpanKind != trace.SpanKindConsumer || number(t, receive, "messaging.batch.message_count") != 2 ||
				number(t, handle, "messaging.batch.message_count") != 2 || number(t, handle, "penstock.exceptions") != 1 ||
				number(t, r.called(t, "write p"), "messaging.batch.message_count") != 1 {
				t.Errorf("attributes %+v, %+v", receive, handle)
			}
			want := fmt.Sprintf("00-%s-%s-01", handle.SpanContext.TraceID(), handle.SpanContext.SpanID())
			if !slices.Equal(out.parents, []string{want}) {
				t.Errorf("the sink got %q, want %s", out.parents, want)
			}
			links := parent == unsampled
			if got := receive.Parent.SpanID().String() == upSpan && receive.SpanContext.TraceID().String() == upTrace; got != (parent == sampled) {
				t.Errorf("child of %v in trace %v", receive.Parent.SpanID(), receive.SpanContext.TraceID())
			}
			if len(receive.Links) > 0 != links || links && receive.Links[0].SpanContext.TraceID().String() != upTrace {
				t.Errorf("links %+v", receive.Links)
			}
			for _, a := range receive.Resource.Attributes() {
				if a.Key == "service.version" && a.Value.AsString() != "1.2.3" {
					t.Errorf("resource %v", receive.Resource)
				}
			}
		})
	}
}

// Promise: with a sample of 0 there is no exporter, and headers are left alone.
func TestNoTraces(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "no such thing")
	_, out := run(t, TraceConfig{}, sampled)
	if !slices.Equal(out.parents, []string{sampled}) {
		t.Errorf("headers %q", out.parents)
	}
	var none *Tracer
	if none.Begin("in", 1, []byte(sampled)) != nil || (&Tracer{}).Begin("in", 1, nil) != nil {
		t.Error("a tracer that is off follows a batch")
	}
}

// Promise: the sample is the part of the batches that is followed; those of a sampled trace are followed beyond it.
func TestSample(t *testing.T) {
	for _, sample := range []float64{1e-18, 0.01, 0.5, math.Nextafter(1, 0), 1} {
		var n atomic.Uint64
		const steps = 1000 // of equal width
		tracer, shutdown, err := NewTracer(TraceConfig{Sample: sample, Exporter: &recorder{}, Rand: func() uint64 {
			return n.Add(1) * (math.MaxUint64 / steps)
		}})
		if err != nil {
			t.Fatal(err)
		}
		followed := 0
		for range steps {
			if y := tracer.Begin("in", 1, nil); y != nil {
				y.Leave()
				followed++
			}
		}
		if want := int(sample * steps); followed < want-1 || followed > want+1 {
			t.Errorf("sample %v: %d of %d followed", sample, followed, steps)
		}
		if y := tracer.Begin("in", 1, []byte(sampled)); y == nil {
			t.Errorf("sample %v: a batch of a sampled trace is not followed", sample)
		} else {
			y.Leave()
		}
		if err := shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestBadTraceConfig(t *testing.T) {
	for _, sample := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		if _, _, err := NewTracer(TraceConfig{Sample: sample}); err == nil || !strings.Contains(err.Error(), "sample") {
			t.Errorf("sample %v: %v", sample, err)
		}
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "pigeon")
	if _, _, err := NewTracer(TraceConfig{Sample: 1}); err == nil || !strings.Contains(err.Error(), "OTEL_") {
		t.Errorf("error %v", err)
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "no equals sign")
	if _, _, err := NewTracer(TraceConfig{Sample: 1}); err == nil || !strings.Contains(err.Error(), "OTEL_RESOURCE_ATTRIBUTES") {
		t.Errorf("error %v", err)
	}
}

// Promise: the variables of OpenTelemetry say where spans go, and who sends them.
func TestExportByOTLP(t *testing.T) {
	bodies := make(chan []byte, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && r.URL.Path == "/v1/traces" {
			bodies <- body
		}
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_SERVICE_NAME", "flights-in-production")
	run(t, TraceConfig{Sample: 1}, "")
	body := <-bodies
	for _, want := range []string{"receive in", "write p", "flights-in-production", "penstock.exceptions"} {
		if !bytes.Contains(body, []byte(want)) {
			t.Errorf("no %q in what was sent", want)
		}
	}
}

// Promise: spans that nobody takes are logged, and cost the pipeline nothing.
func TestExportFails(t *testing.T) {
	var log bytes.Buffer
	run(t, TraceConfig{Sample: 1, Exporter: &recorder{err: errors.New("collector is down")}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, "")
	if !strings.Contains(log.String(), "collector is down") {
		t.Errorf("log: %s", log.String())
	}
}

// Steps of one batch are at work at one time.
func TestConcurrentSteps(t *testing.T) {
	r := &recorder{}
	tracer, shutdown, err := NewTracer(TraceConfig{Sample: 1, Exporter: r})
	if err != nil {
		t.Fatal(err)
	}
	y := tracer.Begin("in", 8, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := y.Enter(fmt.Sprint(i), arena.RoleSink, 1)
			if !bytes.Equal(s.Traceparent(), s.Traceparent()) {
				t.Error("the header changes")
			}
			s.Follow("out").Leave()
			s.Leave(0)
		})
	}
	wg.Wait()
	y.Leave()
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if len(r.spans) != 9 {
		t.Errorf("%d spans, want 9", len(r.spans))
	}
	r.called(t, "write 7")
}

// FuzzTraceparent: whatever a producer sends for a traceparent, a batch that the sample has not chosen is followed only by one that is valid
// and sampled, and then as part of that trace.
func FuzzTraceparent(f *testing.F) {
	for _, s := range []string{
		sampled, unsampled, "", "rubbish", sampled + "-more", "01" + sampled[2:] + "-more", "ff" + sampled[2:],
		"00-00000000000000000000000000000000-0000000000000000-01", strings.ToUpper(sampled), sampled[:54] + "\xff",
	} {
		f.Add([]byte(s))
	}
	tracer, shutdown, err := NewTracer(TraceConfig{Sample: 1e-18, Exporter: &recorder{}, Rand: func() uint64 { return math.MaxUint64 }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = shutdown(context.Background()) })
	f.Fuzz(func(t *testing.T, parent []byte) {
		up := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": string(parent)}))
		y := tracer.Begin("in", 1, parent)
		if (y != nil) != up.IsSampled() {
			t.Fatalf("%q: followed %v, but its parent is %+v", parent, y != nil, up)
		}
		if y != nil && y.(*trail).span.SpanContext().TraceID() != up.TraceID() {
			t.Fatalf("%q: not part of its trace", parent)
		}
		if y != nil {
			y.Leave()
		}
	})
}

// BenchmarkBegin is what the choice costs a batch that is not followed.
func BenchmarkBegin(b *testing.B) {
	tracer, shutdown, err := NewTracer(TraceConfig{Sample: 1e-15, Exporter: &recorder{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = shutdown(context.Background()) }()
	for name, parent := range map[string]string{"without": "", "unsampled": unsampled} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if tracer.Begin("in", 1, []byte(parent)) != nil {
					b.Fatal("followed")
				}
			}
		})
	}
}
