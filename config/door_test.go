package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/config"
)

// laughs is a file whose aliases stand for 10^levels values.
func laughs(levels int) string {
	var b strings.Builder
	b.WriteString("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 10), ", "))
	}
	return b.String()
}

// merges is a file of maps that each merge the one before twice.
func merges(levels int) string {
	var b strings.Builder
	b.WriteString("x0: &x0 { a: { b: c } }\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d { <<: [*x%d, *x%d], k%d: *x%d }\n", i, i, i-1, i-1, i, i-1)
	}
	return b.String()
}

// Promise: a file that would take much memory or time is refused at the door, with its place.
func TestDoor(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"nested lists":          {strings.Repeat("[", 100_000), "nested more than 32 deep"},
		"nested lists, closed":  {strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), "nested more than 32 deep"},
		"nested maps":           {strings.Repeat("{a: ", 100_000), "nested more than 32 deep"},
		"nested block lists":    {strings.Repeat("- ", 100_000), "nested more than 32 deep"},
		"nested keys":           {strings.Repeat("? ", 100_000), "nested more than 32 deep"},
		"nested by indentation": {indented(1000), "nested more than 32 deep"},
		"both ways":             {indented(20) + strings.Repeat(" ", 21) + boxes("&c", boxed("x")), "nested more than 32 deep"},
		"billion laughs":        {laughs(9), "more than 10000 values and keys"},
		"merged laughs":         {merges(40), "more than 10000 values and keys"},
		"nested by aliases":     {boxes("&a", "x") + boxes("&b", "*a") + boxes("&c", "*b"), "nested more than 32 deep"},
		"many values":           {"a: [" + strings.Repeat("1,", 400_000) + "]", "more than 10000 values and keys"},
		"many keys":             {strings.Repeat("a: 1\n", 100_000), "more problems are not shown"},
		"many problems":         {manyKeys(4000), "more problems are not shown"},
		"unknown streams":       {"sources: {in: {stdin: }}\nsinks: { out: { stdout: , from: [" + words(8000) + "] }}", "more problems are not shown"},
		"many circles":          {circles(1000), "more problems are not shown"},
		"wide plugins":          {wide(4000), "nobody reads"},
		"large":                 {strings.Repeat("#", 1<<20+1), "larger than 1048576 bytes"},
		"alias in itself":       {"a: &a [*a]", "inside of what it stands for"},
		"missing variables":     {around("\n      path: \"" + strings.Repeat("${1}", 200_000) + "\""), "a variable's name has"},
		"hidden variables":      {"a: [" + strings.Repeat(`"\x24{1}",`, 9000) + "]\n" + strings.Repeat("#\n", 300_000), "a variable's name has"},
		"many variables":        {around("\n      path: \"" + strings.Repeat("${TOKEN}${BIG}", 3000) + "\""), "stand for more than"},
	}
	o := options()
	o.Getenv = func(string) (string, bool) { return strings.Repeat("x", 1000), true }
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := config.Parse("penstock.yaml", []byte(tt.text), o)
			runtime.ReadMemStats(&after)
			var bad *config.Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error is %.500v", err)
			}
			if len(bad.Problems) > 201 {
				t.Errorf("%d problems", len(bad.Problems))
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 512<<20 {
				t.Errorf("it took %d MiB to refuse this", took>>20)
			}
		})
	}
}

// boxes is a key with twelve lists around something.
func boxes(anchor, inner string) string {
	return anchor[1:] + ": " + anchor + " " + boxed(inner) + "\n"
}

func boxed(inner string) string { return strings.Repeat("[", 12) + inner + strings.Repeat("]", 12) }

func indented(levels int) string {
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

// words is a list of long names that are much alike.
func words(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s%d,", strings.Repeat("x", 50), i)
	}
	return b.String()
}

// circles is n plugins that all read and make one stream.
func circles(n int) string {
	var b strings.Builder
	b.WriteString("sources: { in: { stdin: } }\nplugins:\n")
	for i := range n {
		fmt.Fprintf(&b, "  p%d: { native: delays, from: a, emits: a }\n", i)
	}
	return b.String()
}

// wide is two plugins between which there are n streams, and two that nobody reads.
func wide(n int) string {
	return "sources: { in: { stdin: } }\nplugins:\n" +
		"  p: { native: delays, from: in, emits: [" + words(n) + "] }\n" +
		"  q: { native: delays, from: [" + words(n) + "], emits: [zz] }\n"
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: x\n", i)
	}
	return b.String()
}

// Promise: a file of 100 MB is refused without being read.
func TestLargeFileIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.yaml")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(100 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = config.Load(path, options())
	runtime.ReadMemStats(&after)
	if err == nil || !strings.HasPrefix(err.Error(), path+":1:1: the file is larger than") {
		t.Errorf("error is %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d bytes to refuse it", took)
	}
}

// FuzzParse looks for files that panic, or whose problems have no place.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		files, err := filepath.Glob("testdata/" + dir + "/*.yaml")
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("---\n"))
	f.Add([]byte("# a\n\"b"))
	f.Add([]byte(laughs(3)))
	f.Add([]byte(merges(5)))
	f.Add([]byte("\xef\xbb\xbfsources: {in: {stdin: }}\r\nsinks: {out: {from: in, stdout: }}\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + strings.Count(string(text), "\u0085") +
			strings.Count(string(text), "\u2028") + strings.Count(string(text), "\u2029") + 1
		start := time.Now()
		c, err := config.Parse("p.yaml", text, options())
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("it took %v", took)
		}
		if err != nil {
			var bad *config.Error
			if !errors.As(err, &bad) || len(bad.Problems) == 0 {
				t.Fatalf("error without problems: %v", err)
			}
			for _, p := range bad.Problems {
				if p.File != "p.yaml" || p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" || strings.Contains(p.Message, "\n") {
					t.Fatalf("problem %+v in %d lines", p, lines)
				}
			}
			return
		}
		_ = c.Text()
		_ = c.DOT()
		if _, err := c.Pipeline(config.Build{}); err != nil {
			var bad *config.Error
			if !errors.As(err, &bad) {
				t.Fatalf("taken, but refused by the runtime: %v", err)
			}
		}
	})
}
