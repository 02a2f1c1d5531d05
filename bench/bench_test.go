package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the tests start themselves as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-child" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestFiguresAreCorrect runs both sides of every figure at a tiny size: each counts its deliveries and checks their order and bytes.
func TestFiguresAreCorrect(t *testing.T) {
	b := &bench{scale: 1, runs: 1, procs: 2, check: true, inputs: map[int]*input{}}
	for _, f := range figures() {
		t.Run(f.name, func(t *testing.T) {
			if err := b.checkOne(t.Context(), f); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFigureNames: the names that are promised exist, and each row has one of its own.
func TestFigureNames(t *testing.T) {
	rows := map[string]bool{}
	for _, f := range figures() {
		if f.what == "" || f.against == "" || f.rows[0].name != f.name {
			t.Errorf("%s: what %q, against %q, first row %q", f.name, f.what, f.against, f.rows[0].name)
		}
		for _, r := range f.rows {
			if rows[r.name] {
				t.Errorf("two rows are called %s", r.name)
			}
			rows[r.name] = true
		}
	}
	for name := range strings.FieldsSeq("fanout-8x1k fanout-8x1k-limit fanout-channels fanout-allocs fanout-1x128-1 fanout-1x128-16 " +
		"fanout-1x128-64 fanout-1x128-256 exceptions latency-8 blocked-plugin held-message " +
		"tcp-1 tcp-1-cpu tcp-8 tcp-8-cpu idle-connections http filter filter-allocs reload") {
		if !rows[name] {
			t.Errorf("there is no figure %s", name)
		}
	}
}

// TestCheckersNotice: what the handlers check is noticed when it is wrong.
func TestCheckersNotice(t *testing.T) {
	in := newInput(1<<14, 128)
	see := func(numbers ...int) error {
		c := newChecker(in)
		for _, i := range numbers {
			c.see(in.data[i*in.size : (i+1)*in.size])
		}
		return c.verify(in, 4)
	}
	tests := []struct {
		name    string
		numbers []int
		wrong   bool
	}{
		{"all in order", []int{0, 1, 2, 3}, false},
		{"lost", []int{0, 1, 3}, true},
		{"lost at the end", []int{0, 1, 2}, true},
		{"repeated", []int{0, 1, 1, 2, 3}, true},
		{"out of order", []int{0, 2, 1, 3}, true},
		{"another in its place", []int{0, 1, 2, 4}, true},
	}
	for _, test := range tests {
		if err := see(test.numbers...); (err != nil) != test.wrong {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	c := newChecker(in)
	cut := bytes.Clone(in.data[:in.size])
	cut[len(cut)-1]++
	c.see(cut)
	if c.verify(in, 1) == nil {
		t.Error("a payload with a wrong end passes")
	}
}

// TestInput: places of a key count up, every tail is its message's, and a read goes on at the beginning after the end.
func TestInput(t *testing.T) {
	in := newInput(1<<20, 128)
	h := &ordered{next: make([]uint32, keys)}
	for pass := range 2 {
		for i := range in.n {
			p := in.data[i*in.size : (i+1)*in.size]
			key, place, of := u32(p, atKey), u32(p, atPlace), u32(p, atOfKey)
			if place != h.next[key] || place >= of {
				t.Fatalf("pass %d, message %d: place %d of %d of key %d, want %d", pass, i, place, of, key, h.next[key])
			}
			h.next[key] = (place + 1) % of
		}
	}
	dst := make([]byte, 4*in.size)
	if n, err := in.read(dst, in.n+1); n != 4 || err != nil || !bytes.Equal(dst, in.data[in.size:5*in.size]) {
		t.Errorf("read after the end: %d messages, %v", n, err)
	}
	if n, err := in.read(dst, in.n-1); n != 1 || err != nil || !bytes.Equal(dst[:in.size], in.data[(in.n-1)*in.size:]) {
		t.Errorf("read of the last: %d messages, %v", n, err)
	}
}

func u32(p []byte, at int) uint32 {
	return uint32(p[at]) | uint32(p[at+1])<<8 | uint32(p[at+2])<<16 | uint32(p[at+3])<<24
}

// TestResults: medians, ratio, noise and verdict of made-up runs, and the line that is written of them.
func TestResults(t *testing.T) {
	values := map[string][]float64{"ours": {60, 50, 70}, "before": {100, 90, 100}, "after": {100, 110, 100}}
	side := func(name string) measure {
		i := 0
		return func(context.Context, *runner) ([]float64, error) {
			if name == "reference" {
				i++
				return []float64{values[[]string{"before", "after"}[(i-1)%2]][(i-1)/2]}, nil
			}
			i++
			return []float64{values[name][i-1]}, nil
		}
	}
	f := figure{
		name: "made-up", against: "nothing", rows: []row{{"made-up", "things", atLeast(0.6)}}, size: 128,
		ours: side("ours"), reference: side("reference"),
	}
	b := &bench{scale: 1, runs: 3, procs: 2, check: true, inputs: map[int]*input{}}
	out := filepath.Join(t.TempDir(), "results.jsonl")
	var printed bytes.Buffer
	if err := measureAll(t.Context(), b, []figure{f}, out, &printed); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if r.Value != 60 || r.ReferenceValue != 100 || math.Abs(r.Ratio-0.6) > 1e-9 || r.Noise != 0 || r.Runs != 3 || r.Want != ">= 0.6" || !r.Holds {
		t.Errorf("results.jsonl has %s", line)
	}
	for name := range strings.FieldsSeq("figure value unit reference reference_value ratio noise runs want holds") {
		if !bytes.Contains(line, []byte(`"`+name+`":`)) {
			t.Errorf("results.jsonl lacks %q: %s", name, line)
		}
	}
	if !strings.Contains(printed.String(), ">= 0.6, holds") {
		t.Errorf("printed:\n%s", &printed)
	}
}

// TestWant: bounds hold at their edge, and a figure without one always does.
func TestWant(t *testing.T) {
	tests := []struct {
		want  want
		x     float64
		holds bool
	}{
		{atLeast(0.5), 0.5, true},
		{atLeast(0.5), 0.49, false},
		{atMost(2), 2, true},
		{atMost(2), 2.01, false},
		{want{"=", 0}, 0.001, true},
		{want{"=", 0}, 0.01, false},
		{want{}, 0, true},
	}
	for _, test := range tests {
		if got := test.want.holds(test.x); got != test.holds {
			t.Errorf("%v of %g: %v", test.want, test.x, got)
		}
	}
}

// TestChoose: names and patterns; an unknown name is an error.
func TestChoose(t *testing.T) {
	for list, n := range map[string]int{"": len(figures()), "exceptions": 1, "latency-8, held-message": 2, "fanout-1x128-*": 4} {
		chosen, err := choose(figures(), list)
		if err != nil || len(chosen) != n {
			t.Errorf("%q chooses %d figures, %v; want %d", list, len(chosen), err, n)
		}
	}
	if _, err := choose(figures(), "fanout"); err == nil {
		t.Error("an unknown name chooses something")
	}
}
