package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"runtime"
	"slices"
	"strings"
)

// figure is something to be measured, and what it is measured against.
type figure struct {
	name      string
	what      string // in one line
	against   string // the reference, in one line
	rows      []row  // one for each value that a run yields
	size      int    // bytes of a payload; 0 if the figure makes its own input
	procs     int    // GOMAXPROCS; 0 for what the command line says
	ours      measure
	reference measure
}

// row is one line of the results.
type row struct {
	name string
	unit string
	want want
}

// measure is one run. It yields a value for each row, and fails if anything was lost, repeated or out of order.
type measure func(ctx context.Context, r *runner) ([]float64, error)

// runner is what a run goes by.
type runner struct {
	in      *input // nil if the figure makes its own
	scale   int    // divides the number of messages
	check   bool   // for correctness only: tiny
	procs   int    // GOMAXPROCS of processes that it starts
	profile string // file for the CPU profile of a receiver in a process of its own; empty for none
}

// inputBytes is the size of an input.
func (r *runner) inputBytes() int {
	if r.check {
		return 1 << 20
	}
	return inputBytes
}

// messages is how many messages a run has that would have n at full size. The number is a multiple of 256.
func (r *runner) messages(n int) int {
	if r.check {
		return 2048
	}
	return max(n/r.scale, 4096) &^ 255
}

// want is the bound that a ratio is held to. The zero value asks for nothing.
type want struct {
	op    string // ">=", "<=" or "="
	bound float64
}

// equal is how close two numbers are that count as equal: to two decimals.
const equal = 0.005

func atLeast(x float64) want { return want{">=", x} }
func atMost(x float64) want  { return want{"<=", x} }

func (w want) String() string {
	if w.op == "" {
		return ""
	}
	return fmt.Sprintf("%s %g", w.op, w.bound)
}

func (w want) holds(x float64) bool {
	switch w.op {
	case ">=":
		return x >= w.bound
	case "<=":
		return x <= w.bound
	case "=":
		return math.Abs(x-w.bound) < equal
	default:
		return true
	}
}

// result is one row as measured. Value and ReferenceValue are medians.
type result struct {
	Figure         string  `json:"figure"`
	Value          float64 `json:"value"`
	Unit           string  `json:"unit"`
	Reference      string  `json:"reference"`
	ReferenceValue float64 `json:"reference_value"`
	Ratio          float64 `json:"ratio"` // of each round's value to the mean of the references around it: the median over rounds
	Noise          float64 `json:"noise"` // by what part two runs of the reference differ: the median over rounds
	Runs           int     `json:"runs"`
	Want           string  `json:"want"` // of the ratio; empty for a figure that is only reported
	Holds          bool    `json:"holds"`

	low, high                   float64
	referenceLow, referenceHigh float64
}

// bench is one call of the program.
type bench struct {
	scale   int
	runs    int
	procs   int
	check   bool
	profile string         // of receivers in processes of their own
	inputs  map[int]*input // by size of a payload
}

// once makes one run.
func (b *bench) once(ctx context.Context, f figure, m measure) ([]float64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	procs := f.procs
	if procs == 0 {
		procs = b.procs
	}
	r := &runner{scale: b.scale, check: b.check, procs: procs, profile: b.profile}
	if r.in = b.inputs[f.size]; r.in == nil {
		clear(b.inputs) // one at a time: they are large
		if f.size > 0 {
			r.in = newInput(r.inputBytes(), f.size)
			b.inputs[f.size] = r.in
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	runtime.GC() // what the run before has left is not this one's to clear away
	values, err := m(ctx, r)
	if err == nil && len(values) != len(f.rows) {
		err = fmt.Errorf("%d values for %d rows", len(values), len(f.rows))
	}
	return values, err
}

// measure makes the rounds of a figure: reference, ours, reference. So whatever slows the machine down for a while is seen by both, and the
// two runs of the reference tell how much it was.
func (b *bench) measure(ctx context.Context, f figure) ([]result, error) {
	var ours, before, after [][]float64
	for range b.runs {
		for _, part := range []struct {
			m   measure
			out *[][]float64
		}{{f.reference, &before}, {f.ours, &ours}, {f.reference, &after}} {
			values, err := b.once(ctx, f, part.m)
			if err != nil {
				return nil, err
			}
			*part.out = append(*part.out, values)
		}
	}
	var results []result
	for i, row := range f.rows {
		results = append(results, row.result(f.against, column(ours, i), column(before, i), column(after, i)))
	}
	return results, nil
}

func column(runs [][]float64, i int) []float64 {
	out := make([]float64, len(runs))
	for j, r := range runs {
		out[j] = r[i]
	}
	return out
}

// result sums up the runs of one row.
func (w row) result(against string, ours, before, after []float64) result {
	both := slices.Concat(before, after)
	r := result{
		Figure: w.name, Value: median(ours), Unit: w.unit, Reference: against, ReferenceValue: median(both), Runs: len(ours), Want: w.want.String(),
		low: slices.Min(ours), high: slices.Max(ours), referenceLow: slices.Min(both), referenceHigh: slices.Max(both),
	}
	ratios, noise := make([]float64, len(before)), make([]float64, len(before))
	for i := range before {
		ratios[i] = quotient(ours[i], (before[i]+after[i])/2)
		noise[i] = 1 - quotient(min(before[i], after[i]), max(before[i], after[i]))
	}
	r.Ratio, r.Noise = median(ratios), median(noise)
	if w.want.op == "=" { // of a number that must be 0 there is no ratio to another such number
		r.Ratio = r.Value
	}
	r.Holds = w.want.holds(r.Ratio)
	return r
}

// quotient is a/b; of two equal numbers it is 1, also of zeros.
func quotient(a, b float64) float64 {
	switch {
	case a == b:
		return 1
	case b == 0:
		return a
	default:
		return a / b
	}
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	n := len(x)
	return (x[(n-1)/2] + x[n/2]) / 2
}

func header(w io.Writer) {
	fmt.Fprintf(w, "%-24s %-36s %-36s %6s %6s  %s\n", "figure", "median (lowest - highest)", "reference", "ratio", "noise", "want")
}

// print writes r as a line for humans.
func (r *result) print(w io.Writer) {
	verdict := "reported"
	if r.Want != "" {
		verdict = r.Want + ", holds"
		if !r.Holds {
			verdict = r.Want + ", DOES NOT HOLD"
		}
	}
	fmt.Fprintf(w, "%-24s %-36s %-36s %6.3f %5.1f%%  %s\n", r.Figure,
		fmt.Sprintf("%s (%s - %s)", amount(r.Value, r.Unit), amount(r.low, ""), amount(r.high, "")),
		fmt.Sprintf("%s (%s - %s)", amount(r.ReferenceValue, ""), amount(r.referenceLow, ""), amount(r.referenceHigh, "")),
		r.Ratio, 100*r.Noise, verdict)
}

// write appends r to a file of lines of JSON.
func (r *result) write(w io.Writer) error {
	line, err := json.Marshal(r)
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	return err
}

// amount is x with three digits or so.
func amount(x float64, unit string) string {
	var s string
	switch {
	case x >= 1e6:
		s = fmt.Sprintf("%.1fM", x/1e6)
	case x >= 1e4:
		s = fmt.Sprintf("%.1fk", x/1e3)
	case x >= 100:
		s = fmt.Sprintf("%.0f", x)
	default:
		s = fmt.Sprintf("%.4g", x)
	}
	return strings.TrimSpace(s + " " + unit)
}

// choose finds the figures that a list of names and patterns means.
func choose(all []figure, list string) ([]figure, error) {
	if list == "" {
		return all, nil
	}
	var chosen []figure
	for _, pattern := range strings.Split(list, ",") {
		found := false
		for _, f := range all {
			ok, err := path.Match(strings.TrimSpace(pattern), f.name)
			if err != nil {
				return nil, fmt.Errorf("-figure %q: %w", pattern, err)
			}
			if ok {
				found = true
				chosen = append(chosen, f)
			}
		}
		if !found {
			return nil, fmt.Errorf("-figure %q: there is no figure of that name; -list shows them", pattern)
		}
	}
	return chosen, nil
}

// checkAll runs both sides of each figure once, at a tiny size.
func checkAll(ctx context.Context, chosen []figure, w io.Writer) error {
	b := &bench{scale: 1, runs: 1, procs: 2, check: true, inputs: map[int]*input{}}
	var errs []error
	for _, f := range chosen {
		err := b.checkOne(ctx, f)
		if err != nil {
			err = fmt.Errorf("%s: %w", f.name, err)
			errs = append(errs, err)
			fmt.Fprintln(w, "FAIL", err)
			continue
		}
		fmt.Fprintln(w, "ok  ", f.name)
	}
	return errors.Join(errs...)
}

func (b *bench) checkOne(ctx context.Context, f figure) error {
	if _, err := b.once(ctx, f, f.reference); err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	_, err := b.once(ctx, f, f.ours)
	return err
}
