package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.yaml.in/yaml/v4"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// busy is a summary in which every figure is another.
func busy() penstock.Summary {
	return penstock.Summary{Rows: []penstock.Row{
		{Name: "flights", Kind: "source", State: "running", Accepted: 1, Settled: 2, Returned: 3, Bad: 4, Oldest: 1500 * time.Millisecond},
		{
			Name: "delays", Kind: "plugin", State: "quarantined", Version: "7", Delivered: 5, Retried: 6, Held: 7, Deferred: 8, Dead: 9, Dropped: 10,
			Emitted: 11, Lapsed: 12, Waiting: 13, Mailbox: 14, Panics: 15, Restarts: 16, Overdue: 17, Oldest: time.Minute,
		},
		{Name: "late", Kind: "sink", State: "open", Delivered: 18, Retried: 19, Failures: 20, Waiting: 21, Mailbox: 22},
		{Name: "plain", Kind: "sink"},
	}}
}

func memory() arena.Stats {
	return arena.Stats{
		Budget: 100, Capacity: [3]int64{70, 20, 10}, Used: [3]int64{1, 2, 3}, Guaranteed: [3]int64{4, 5, 6}, Resident: 50, Refused: 8, Leases: 9,
	}
}

func TestMetrics(t *testing.T) {
	c := Metrics(busy, memory, "1.2.3")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("against the naming rules: %v, %v", problems, err)
	}
	got := scrape(t, c)
	for _, want := range []string{
		`penstock_accepted_messages_total{kind="source",name="flights"} 1`,
		`penstock_settled_messages_total{kind="source",name="flights"} 2`,
		`penstock_returned_messages_total{kind="source",name="flights"} 3`,
		`penstock_bad_input_total{kind="source",name="flights"} 4`,
		`penstock_delivered_messages_total{kind="plugin",name="delays"} 5`,
		`penstock_delivered_messages_total{kind="sink",name="late"} 18`,
		`penstock_delivered_messages_total{kind="sink",name="plain"} 0`,
		`penstock_retried_messages_total{kind="plugin",name="delays"} 6`,
		`penstock_retried_messages_total{kind="sink",name="late"} 19`,
		`penstock_held_messages_total{kind="plugin",name="delays"} 7`,
		`penstock_deferred_messages_total{kind="plugin",name="delays"} 8`,
		`penstock_dead_messages_total{kind="plugin",name="delays"} 9`,
		`penstock_dropped_messages_total{kind="plugin",name="delays"} 10`,
		`penstock_emitted_messages_total{kind="plugin",name="delays"} 11`,
		`penstock_lapsed_holds_total{kind="plugin",name="delays"} 12`,
		`penstock_waiting{kind="plugin",name="delays"} 13`,
		`penstock_waiting{kind="sink",name="late"} 21`,
		`penstock_mailbox_deliveries{kind="plugin",name="delays"} 14`,
		`penstock_mailbox_deliveries{kind="sink",name="late"} 22`,
		`penstock_panics_total{kind="plugin",name="delays"} 15`,
		`penstock_restarts_total{kind="plugin",name="delays"} 16`,
		`penstock_overdue_lends_total{kind="plugin",name="delays"} 17`,
		`penstock_sink_failures_total{kind="sink",name="late"} 20`,
		`penstock_oldest_unsettled_seconds{kind="source",name="flights"} 1.5`,
		`penstock_oldest_unsettled_seconds{kind="plugin",name="delays"} 60`,
		`penstock_state{kind="source",name="flights",state="running"} 1`,
		`penstock_state{kind="plugin",name="delays",state="quarantined"} 1`,
		`penstock_state{kind="sink",name="late",state="open"} 1`,
		`penstock_plugin_info{kind="plugin",name="delays",version="7"} 1`,
		`penstock_sink_breaker_open{kind="sink",name="late"} 1`,
		`penstock_arena_used_bytes{class="sources"} 1`,
		`penstock_arena_used_bytes{class="emits"} 2`,
		`penstock_arena_used_bytes{class="evacuation"} 3`,
		`penstock_arena_limit_bytes{class="sources"} 70`,
		`penstock_arena_guaranteed_bytes{class="evacuation"} 6`,
		`penstock_arena_resident_bytes 50`,
		`penstock_arena_leases 9`,
		`penstock_arena_refused_leases_total 8`,
		`,version="1.2.3"} 1`,
		"\ngo_goroutines ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, none := range []string{
		`penstock_sink_breaker_open{kind="sink",name="plain"}`, `penstock_state{kind="sink",name="plain"`, `penstock_panics_total{kind="sink"`,
		`penstock_delivered_messages_total{kind="source"`,
	} {
		if strings.Contains(got, none) {
			t.Errorf("there is %s", none)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// scrape is the text of a scrape by HTTP.
func scrape(t *testing.T, list ...prometheus.Collector) string {
	t.Helper()
	h, err := Handler(slog.New(slog.DiscardHandler), list...)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %v\n%s", resp.Status, err, text)
	}
	return string(text)
}

// Promise: while a source takes another's place, and whatever things are called, a scrape goes well.
func TestMetricsOfStrangeRows(t *testing.T) {
	stats := func() penstock.Summary {
		return penstock.Summary{Rows: []penstock.Row{
			{Name: "in", Kind: "source", State: "draining", Accepted: 10, Oldest: time.Second},
			{Name: "in", Kind: "source", State: "running", Accepted: 2},
			{Name: "in", Kind: "sink", State: "half\xffopen"},
			{Name: "p\xff", Kind: "plugin", State: "running", Panics: 1, Version: "\xfe"},
			{Name: "p\xfe", Kind: "plugin", State: "running", Panics: 2},
			{Name: "stranger", Kind: "another kind", Accepted: 1},
		}}
	}
	got := scrape(t, Metrics(stats, memory, "\xff"))
	for _, want := range []string{
		`penstock_accepted_messages_total{kind="source",name="in"} 12`,
		`penstock_oldest_unsettled_seconds{kind="source",name="in"} 1`,
		`penstock_state{kind="source",name="in",state="running"} 1`,
		"penstock_panics_total{kind=\"plugin\",name=\"p\uFFFD\"} 3",
		"state=\"half\uFFFDopen\"} 1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(got, "stranger") {
		t.Error("a row of an unknown kind is shown")
	}
}

func TestHandlerOfTwoAlike(t *testing.T) {
	_, err := Handler(slog.New(slog.DiscardHandler), Metrics(busy, memory, ""), Metrics(busy, memory, ""))
	if err == nil || !strings.HasPrefix(err.Error(), "metrics: ") {
		t.Errorf("error %v", err)
	}
}

// table is the rows of the documentation that are about metrics.
func table(families []family) []string {
	var out []string
	for _, f := range families {
		typ := "gauge"
		if f.typ == prometheus.CounterValue {
			typ = "counter"
		}
		var labels []string
		for _, l := range f.labels {
			labels = append(labels, "`"+l+"`")
		}
		out = append(out, "| `"+f.name+"` | "+typ+" | "+strings.Join(labels, " ")+" | "+f.help+" |")
	}
	return out
}

// Promise: docs/monitoring.md has every metric, and no other.
func TestDocumentedMetrics(t *testing.T) {
	text, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	c := Metrics(busy, memory, "").(*collector)
	want := table(c.families())
	var got []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `penstock_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table of metrics is not what there is; it should be\n%s", strings.Join(want, "\n"))
	}
	var names []string
	for _, f := range c.families() {
		names = append(names, f.name)
	}
	for _, name := range regexp.MustCompile(`penstock_[a-z_]+`).FindAllString(string(text), -1) {
		if !slices.Contains(names, name) {
			t.Errorf("docs/monitoring.md: there is no metric %s", name)
		}
	}
}

// Promise: the YAML in docs/monitoring.md can be read.
func TestDocumentedYAML(t *testing.T) {
	text, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks int
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		var v map[string]any
		if err := yaml.Unmarshal(block[1], &v); err != nil || len(v) == 0 {
			t.Errorf("%v in\n%s", err, block[1])
		}
		blocks++
	}
	if blocks < 3 {
		t.Errorf("%d blocks of YAML, want the scrape, the rules and the setting of traces", blocks)
	}
}

func BenchmarkScrape(b *testing.B) {
	c := Metrics(busy, memory, "1")
	b.ReportAllocs()
	for b.Loop() {
		ch := make(chan prometheus.Metric, 256)
		c.Collect(ch)
	}
}
