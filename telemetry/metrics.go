package telemetry

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// maxScrapes is how many scrapes are answered at one time; what is above that gets 503.
const maxScrapes = 4

// collector reads the figures as it is asked for them.
type collector struct {
	stats   func() penstock.Summary
	memory  func() arena.Stats
	rows    []rowFamily
	classes []classFamily
	whole   []arenaFamily
	build   family
	version string
}

var _ prometheus.Collector = (*collector)(nil)

// Metrics is the metrics of a pipeline: those of its sources, plugins and sinks, of its memory, and which build it is. stats and memory are
// called once for each scrape, possibly concurrently; [penstock.Runtime] has both. Text that is not UTF-8 is mended.
func Metrics(stats func() penstock.Summary, memory func() arena.Stats, version string) prometheus.Collector {
	return &collector{
		stats: stats, memory: memory, version: version, rows: rowFamilies(), classes: classFamilies(), whole: arenaFamilies(), build: buildFamily(),
	}
}

// Handler answers scrapes with what the collectors have to say, and with the metrics of the Go runtime and of the process (go_*,
// process_*). It has a registry of its own. What goes wrong in a scrape is logged at level debug; the rest is still answered. The error
// says that two collectors have a metric of one name.
func Handler(logger *slog.Logger, list ...prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	own := []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
	for _, c := range append(own, list...) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, EnableOpenMetrics: true,
	}), nil
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range c.families() {
		to <- f.desc
	}
}

// families is all that there is, in the order of the documentation.
func (c *collector) families() (out []family) {
	for _, f := range c.rows {
		out = append(out, f.family)
	}
	for _, f := range c.classes {
		out = append(out, f.family)
	}
	for _, f := range c.whole {
		out = append(out, f.family)
	}
	return append(out, c.build)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	for _, r := range merge(c.stats().Rows) {
		for _, f := range c.rows {
			if v, more, ok := f.read(&r); ok && f.of&kindOf(&r) != 0 {
				to <- f.sample(v, append([]string{r.Kind, r.Name}, more...)...)
			}
		}
	}
	m := c.memory()
	for i := range m.Used {
		for _, f := range c.classes {
			to <- f.sample(float64(f.read(&m)[i]), arena.Class(i).String())
		}
	}
	for _, f := range c.whole {
		to <- f.sample(f.read(&m))
	}
	to <- c.build.sample(1, c.version, runtime.Version())
}

// merge makes one row of those that have one name and kind: while a source takes another's place there are two for a time. Counts are
// added; the state is that of the one that stays, which is the last.
func merge(rows []penstock.Row) []penstock.Row {
	type id struct{ kind, name string }
	at := make(map[id]int, len(rows))
	out := make([]penstock.Row, 0, len(rows))
	for _, r := range rows {
		r.Name = strings.ToValidUTF8(r.Name, "\uFFFD")
		i, there := at[id{r.Kind, r.Name}]
		if !there {
			at[id{r.Kind, r.Name}] = len(out)
			out = append(out, r)
			continue
		}
		was := &out[i]
		for _, sum := range [][2]*uint64{
			{&r.Accepted, &was.Accepted},
			{&r.Settled, &was.Settled},
			{&r.Returned, &was.Returned},
			{&r.Bad, &was.Bad},
			{&r.Delivered, &was.Delivered},
			{&r.Retried, &was.Retried},
			{&r.Held, &was.Held},
			{&r.Deferred, &was.Deferred},
			{&r.Dead, &was.Dead},
			{&r.Dropped, &was.Dropped},
			{&r.Emitted, &was.Emitted},
			{&r.Lapsed, &was.Lapsed},
			{&r.Failures, &was.Failures},
			{&r.Panics, &was.Panics},
			{&r.Restarts, &was.Restarts},
			{&r.Overdue, &was.Overdue},
		} {
			*sum[0] += *sum[1]
		}
		r.Waiting += was.Waiting
		r.Mailbox += was.Mailbox
		r.Oldest = max(r.Oldest, was.Oldest)
		out[i] = r
	}
	return out
}

// family is the metrics of one name.
type family struct {
	desc   *prometheus.Desc
	name   string
	help   string
	typ    prometheus.ValueType
	labels []string
}

func newFamily(typ prometheus.ValueType, name, help string, labels ...string) family {
	name = "penstock_" + name
	return family{desc: prometheus.NewDesc(name, help, labels, nil), name: name, help: help, typ: typ, labels: labels}
}

func (f *family) sample(v float64, labels ...string) prometheus.Metric {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	m, err := prometheus.NewConstMetric(f.desc, f.typ, v, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(f.desc, err)
	}
	return m
}

// rowFamily is read from the rows of some kinds. read gives the value and the labels behind kind and name; ok is false if the row has none.
type rowFamily struct {
	family
	of   kinds
	read func(r *penstock.Row) (v float64, more []string, ok bool)
}

// kinds says which rows have a metric.
type kinds uint8

const (
	sources kinds = 1 << iota
	plugins
	sinks
	consumers = plugins | sinks
	all       = sources | consumers
)

func kindOf(r *penstock.Row) kinds {
	switch r.Kind {
	case "source":
		return sources
	case "plugin":
		return plugins
	case "sink":
		return sinks
	}
	return 0
}

func counter(of kinds, name, help string, read func(r *penstock.Row) uint64) rowFamily {
	return rowFamily{newFamily(prometheus.CounterValue, name, help, "kind", "name"), of, func(r *penstock.Row) (float64, []string, bool) {
		return float64(read(r)), nil, true
	}}
}

func gauge(of kinds, name, help string, read func(r *penstock.Row) float64) rowFamily {
	return rowFamily{newFamily(prometheus.GaugeValue, name, help, "kind", "name"), of, func(r *penstock.Row) (float64, []string, bool) {
		return read(r), nil, true
	}}
}

// word is a gauge that is 1, with what it says as a label.
func word(of kinds, name, help, label string, read func(r *penstock.Row) string) rowFamily {
	return rowFamily{newFamily(prometheus.GaugeValue, name, help, "kind", "name", label), of, func(r *penstock.Row) (float64, []string, bool) {
		s := read(r)
		return 1, []string{s}, s != ""
	}}
}

func rowFamilies() []rowFamily {
	type row = penstock.Row
	breaker := gauge(sinks, "sink_breaker_open", "1 while the sink's breaker lets nothing through, else 0. Only sinks that report a state.", nil)
	breaker.read = func(r *row) (float64, []string, bool) { return flag(r.State == "open"), nil, r.State != "" }
	return []rowFamily{
		counter(sources, "accepted_messages_total", "Messages taken from the producer.", func(r *row) uint64 { return r.Accepted }),
		counter(sources, "settled_messages_total", "Messages that everybody is done with.", func(r *row) uint64 { return r.Settled }),
		counter(sources, "returned_messages_total", "Messages given back unsettled at the end.", func(r *row) uint64 { return r.Returned }),
		counter(sources, "bad_input_total", "Input that was refused; not among the accepted.", func(r *row) uint64 { return r.Bad }),
		counter(consumers, "delivered_messages_total", "Attempts: messages given to it, repeats included.",
			func(r *row) uint64 { return r.Delivered }),
		counter(consumers, "retried_messages_total", "Attempts that were followed by another.", func(r *row) uint64 { return r.Retried }),
		counter(consumers, "held_messages_total", "Messages that it kept, to give the verdict later.", func(r *row) uint64 { return r.Held }),
		counter(consumers, "deferred_messages_total", "Messages that waited behind an earlier one of their key.",
			func(r *row) uint64 { return r.Deferred }),
		counter(consumers, "dead_messages_total", "Messages that went to the dead letters.", func(r *row) uint64 { return r.Dead }),
		counter(consumers, "dropped_messages_total", "Messages dropped from a full mailbox, unhandled.", func(r *row) uint64 { return r.Dropped }),
		counter(plugins, "emitted_messages_total", "Messages that it emitted.", func(r *row) uint64 { return r.Emitted }),
		counter(plugins, "lapsed_holds_total", "Holds that ran out before their verdict.", func(r *row) uint64 { return r.Lapsed }),
		counter(plugins, "panics_total", "Panics of its handlers.", func(r *row) uint64 { return r.Panics }),
		counter(plugins, "restarts_total", "Instances started after a panic.", func(r *row) uint64 { return r.Restarts }),
		counter(plugins, "overdue_lends_total", "Calls that kept their message longer than the timeout.", func(r *row) uint64 { return r.Overdue }),
		counter(sinks, "sink_failures_total", "Calls of the sink that failed.", func(r *row) uint64 { return r.Failures }),
		gauge(consumers, "mailbox_deliveries", "Deliveries in its mailbox or in its hands.", func(r *row) float64 { return float64(r.Mailbox) }),
		gauge(consumers, "waiting", "Batches and single messages owed to it that are not in its mailbox.",
			func(r *row) float64 { return float64(r.Waiting) }),
		gauge(all, "oldest_unsettled_seconds", "For how long its oldest message has been unsettled (source) or owed (plugin, sink); 0 for none.",
			func(r *row) float64 { return float64(r.Oldest) / float64(time.Second) }),
		word(all, "state", "1, with the state that it is in. Only sinks that report one.", "state", func(r *row) string { return r.State }),
		word(plugins, "plugin_info", "1, with the version that serves.", "version", func(r *row) string { return r.Version }),
		breaker,
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// classFamily is read for each class of memory.
type classFamily struct {
	family
	read func(m *arena.Stats) []int64
}

func classFamilies() []classFamily {
	class := func(name, help string, read func(m *arena.Stats) []int64) classFamily {
		return classFamily{newFamily(prometheus.GaugeValue, "arena_"+name+"_bytes", help, "class"), read}
	}
	return []classFamily{
		class("used", "Memory for messages that is in use.", func(m *arena.Stats) []int64 { return m.Used[:] }),
		class("limit", "Memory for messages that there is.", func(m *arena.Stats) []int64 { return m.Capacity[:] }),
		class("guaranteed", "Memory promised to single sources and plugins, used or not.", func(m *arena.Stats) []int64 { return m.Guaranteed[:] }),
	}
}

// arenaFamily is read once.
type arenaFamily struct {
	family
	read func(m *arena.Stats) float64
}

func arenaFamilies() []arenaFamily {
	return []arenaFamily{
		{
			newFamily(prometheus.GaugeValue, "arena_resident_bytes", "Memory for messages that was taken from the operating system."),
			func(m *arena.Stats) float64 { return float64(m.Resident) },
		},
		{
			newFamily(prometheus.GaugeValue, "arena_leases", "Pieces of memory for messages that are in use."),
			func(m *arena.Stats) float64 { return float64(m.Leases) },
		},
		{
			newFamily(prometheus.CounterValue, "arena_refused_leases_total", "Times that there was no memory for messages, and somebody waited."),
			func(m *arena.Stats) float64 { return float64(m.Refused) },
		},
	}
}

func buildFamily() family {
	return newFamily(prometheus.GaugeValue, "build_info", "1, with the version of the program and of Go.", "version", "go_version")
}
