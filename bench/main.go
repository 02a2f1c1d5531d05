// Command bench measures what Penstock promises about speed and memory. Each figure runs its reference beside it, in turns, and is
// printed with the median of its runs, their spread, the ratio of the two, and the noise: how far two runs of the reference, made just
// before and just after, differ. docs/benchmarks.md says what each figure does and why it is fair.
//
//	go run . [-figure name[,name]] [-runs 5] [-quick] [-check]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	figures string
	runs    int
	quick   bool
	check   bool
	procs   int
	list    bool
	side    string
	profile string
	out     string
	child   string
}

func main() {
	var o options
	flag.StringVar(&o.figures, "figure", "", "figures to run, by name or pattern (fanout-*), separated by commas; empty for all")
	flag.IntVar(&o.runs, "runs", 5, "runs of each figure; the reference runs twice as often")
	flag.BoolVar(&o.quick, "quick", false, "shorter runs: for a first look, not for quoting")
	flag.BoolVar(&o.check, "check", false, "run each figure at a tiny size, for its correctness and not for its speed")
	flag.IntVar(&o.procs, "procs", 2, "GOMAXPROCS, but for figures that say otherwise")
	flag.BoolVar(&o.list, "list", false, "list the figures")
	flag.StringVar(&o.side, "side", "", "run only `ours` or reference, and compare nothing: for profiles")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile to this file; that of a receiver in a process of its own to FILE.receiver")
	flag.StringVar(&o.out, "out", "results.jsonl", "file for the results, a line each; it is begun anew")
	flag.StringVar(&o.child, "child", "", "internal: a job for a process of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run does what the options say.
func run(ctx context.Context, o options, w io.Writer) error {
	runtime.GOMAXPROCS(o.procs)
	if o.child != "" {
		stop, err := startProfile(o.profile)
		if err != nil {
			return err
		}
		defer stop()
		return childJob(ctx, o.child, os.Stdin, w)
	}
	chosen, err := choose(figures(), o.figures)
	if err != nil {
		return err
	}
	switch {
	case o.list:
		for _, f := range chosen {
			fmt.Fprintf(w, "%-22s %s\n", f.name, f.what)
		}
		return nil
	case o.check:
		return checkAll(ctx, chosen, w)
	case o.runs < 1:
		return fmt.Errorf("-runs %d: give 1 or more; quote nothing that has run less than 5 times", o.runs)
	}
	stopProfile, err := startProfile(o.profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	b := &bench{scale: 1, runs: o.runs, procs: o.procs, inputs: map[int]*input{}}
	if o.profile != "" {
		b.profile = o.profile + ".receiver"
	}
	if o.quick {
		b.scale = 8
	}
	if o.side != "" {
		return oneSide(ctx, b, chosen, o.side, w)
	}
	return measureAll(ctx, b, chosen, o.out, w)
}

// measureAll measures figures one after another, and writes the results to a file.
func measureAll(ctx context.Context, b *bench, chosen []figure, out string, w io.Writer) error {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintf(w, "%s, %s, %d processors, GOMAXPROCS %d, %d runs\n\n", machine(), runtime.Version(), runtime.NumCPU(), b.procs, b.runs)
	header(w)
	var errs []error
	failed := 0
	for _, f := range chosen {
		results, err := b.measure(ctx, f)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
			fmt.Fprintf(w, "%-22s failed: %v\n", f.name, err)
			continue
		}
		for _, r := range results {
			r.print(w)
			if err := r.write(file); err != nil {
				return errors.Join(err, file.Close())
			}
			if !r.Holds {
				failed++
			}
		}
	}
	fmt.Fprintf(w, "\n%d figures in %v; %d do not hold\n", len(chosen), time.Since(began).Round(time.Second), failed)
	return errors.Join(append(errs, file.Close())...)
}

// oneSide runs one side of each figure and prints what it measured.
func oneSide(ctx context.Context, b *bench, chosen []figure, side string, w io.Writer) error {
	for _, f := range chosen {
		measure := f.ours
		if side != "ours" {
			measure = f.reference
		}
		var runs []string
		for range b.runs {
			values, err := b.once(ctx, f, measure)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			for i, v := range values {
				runs = append(runs, amount(v, f.rows[i].unit))
			}
		}
		fmt.Fprintf(w, "%-22s %s: %s\n", f.name, side, strings.Join(runs, ", "))
	}
	return nil
}

// startProfile starts a CPU profile, if there is a file for it. The returned function ends it.
func startProfile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		if err := file.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}, nil
}

// machine names the processor, as far as the system says.
func machine() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOOS + "/" + runtime.GOARCH
}
