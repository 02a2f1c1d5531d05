// Command flights reads 20,000 real US flights of early 2001 and finds the late ones, the long ones, and the airports that cost their
// passengers most time.
//
//	flights.ndjson ──> flights ──┬─> delays ────> late ──> late.ndjson
//	                  (by origin)├─> longhaul ──> long ──> long.ndjson     fails now and then, and retries
//	                             └─> airports                              counts, in memory
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/penstock-dev/penstock"
	sinkfile "github.com/penstock-dev/penstock/sink/file"
	sourcefile "github.com/penstock-dev/penstock/source/file"
)

func main() {
	in := flag.String("in", "examples/flights/flights.ndjson", "file with one flight a line")
	out := flag.String("out", "examples/flights/out", "directory for what is found")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends it at once
	err := run(ctx, *in, *out, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "flights:", err)
		os.Exit(1)
	}
}

// run does the job and prints what came of it.
func run(ctx context.Context, in, out string, stdout, stderr io.Writer) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	counts := &airports{byCode: map[string]*airport{}}
	p, err := pipeline(in, out, counts)
	if err != nil {
		return err
	}
	rt, err := penstock.New(p)
	if err != nil {
		return err
	}
	began := time.Now()
	stop := progress(stderr, rt)
	summary, err := rt.Run(ctx)
	stop()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stdout, "interrupted: not all of the input was read")
	}
	return report(stdout, summary, counts, time.Since(began))
}

// pipeline is the job: a source, three plugins, two sinks.
func pipeline(in, out string, counts *airports) (penstock.Pipeline, error) {
	flights, err := sourcefile.New(sourcefile.Config{Path: in})
	if err != nil {
		return penstock.Pipeline{}, err
	}
	late, err := sinkfile.New(sinkfile.Config{Path: filepath.Join(out, "late.ndjson"), Mode: sinkfile.Truncate})
	if err != nil {
		return penstock.Pipeline{}, err
	}
	long, err := sinkfile.New(sinkfile.Config{Path: filepath.Join(out, "long.ndjson"), Mode: sinkfile.Truncate})
	if err != nil {
		return penstock.Pipeline{}, err
	}
	return penstock.Pipeline{
		Data:    filepath.Join(out, "data"),
		Sources: []penstock.Source{{Name: "flights", From: flights, Key: penstock.JSONKey("origin")}},
		Plugins: []penstock.Plugin{
			{Name: "delays", From: []string{"flights"}, Emits: []string{"late"}, New: func() (penstock.Handler, error) {
				return &delays{Threshold: 60}, nil
			}},
			{
				Name: "longhaul", From: []string{"flights"}, Emits: []string{"long"}, ByKey: true,
				Retry: penstock.RetryPolicy{Backoff: 5 * time.Millisecond},
				New:   func() (penstock.Handler, error) { return &longhaul{}, nil },
			},
			{Name: "airports", From: []string{"flights"}, New: func() (penstock.Handler, error) { return counts, nil }},
		},
		Sinks: []penstock.Sink{
			{Name: "late", From: []string{"late"}, To: late},
			{Name: "long", From: []string{"long"}, To: long},
		},
	}, nil
}

// progress prints, every so often, how far it is. The returned function ends it.
func progress(w io.Writer, rt *penstock.Runtime) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	line := func() {
		s := rt.Stats()
		fmt.Fprintf(w, "\r%d accepted, %d settled, %d retried", s.Accepted, s.Settled, s.Retried)
	}
	go func() {
		defer close(ended)
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				line()
			case <-done:
				line()
				fmt.Fprintln(w)
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// report prints the summary and the ten airports with the most minutes of delay.
func report(w io.Writer, s penstock.Summary, counts *airports, took time.Duration) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "accepted %d, settled %d, retried %d, held %d, dead %d, dropped %d, in %v\n\n", s.Accepted, s.Settled, s.Retried, s.Held,
		s.Dead, s.Dropped, took.Round(time.Millisecond))
	fmt.Fprintln(t, "name\tkind\tdelivered\tretried\tdeferred\temitted\t")
	for _, r := range s.Rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t\n", r.Name, r.Kind, max(r.Delivered, r.Accepted), r.Retried, r.Deferred, r.Emitted)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	all := make([]*airport, 0, len(counts.byCode))
	for _, a := range counts.byCode {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *airport) int {
		return cmp.Or(cmp.Compare(b.delay, a.delay), cmp.Compare(a.code, b.code))
	})
	fmt.Fprintf(w, "\n%d airports; the ten that cost most time:\n\n", len(all))
	fmt.Fprintln(t, "airport\tdepartures\tminutes of delay\tmean\tover an hour\t")
	for _, a := range all[:min(10, len(all))] {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%d\t\n", a.code, a.departures, a.delay, a.mean(), a.late)
	}
	return t.Flush()
}
