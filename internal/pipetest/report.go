package pipetest

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// byFile calls each for the results of each file, in their order.
func byFile(results []Result, each func(file string, of []Result)) {
	for len(results) > 0 {
		n := 1
		for n < len(results) && results[n].File == results[0].File {
			n++
		}
		each(results[0].File, results[:n])
		results = results[n:]
	}
}

// sums are what becomes of some results together.
func sums(results []Result) (failed int, took time.Duration) {
	for _, r := range results {
		if len(r.Failures) > 0 {
			failed++
		}
		took += r.Took
	}
	return failed, took
}

// WriteText writes results as go test does: what failed, with file and line, then a line for each file, and at the end a line in all. With
// verbose, tests that passed are named too.
func WriteText(w io.Writer, results []Result, verbose bool) error {
	var b strings.Builder
	byFile(results, func(file string, of []Result) {
		for _, r := range of {
			switch {
			case len(r.Failures) > 0:
				fmt.Fprintf(&b, "--- FAIL: %s (%.2fs)\n", r.Name, r.Took.Seconds())
			case verbose:
				fmt.Fprintf(&b, "--- PASS: %s (%.2fs)\n", r.Name, r.Took.Seconds())
			}
			for _, f := range r.Failures {
				fmt.Fprintf(&b, "    %s:%d: %s\n", file, f.Line, strings.ReplaceAll(f.Text, "\n", "\n        "))
			}
		}
		failed, took := sums(of)
		word := "ok  "
		if failed > 0 {
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s\t%s\t%.3fs\n", word, file, took.Seconds())
	})
	failed, _ := sums(results)
	switch {
	case len(results) == 0:
		b.WriteString("no tests were run\n")
	case failed > 0:
		fmt.Fprintf(&b, "%d of %s failed\n", failed, tests(len(results)))
	default:
		fmt.Fprintf(&b, "%s passed\n", tests(len(results)))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("results of tests: %w", err)
	}
	return nil
}

func tests(n int) string {
	if n == 1 {
		return "1 test"
	}
	return fmt.Sprintf("%d tests", n)
}

// The elements of JUnit's XML, as far as continuous integration reads them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name      string        `xml:"name,attr"`
		ClassName string        `xml:"classname,attr"`
		File      string        `xml:"file,attr"`
		Line      int           `xml:"line,attr"`
		Time      string        `xml:"time,attr"`
		Failure   *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes results as the XML of JUnit that continuous integration reads: a testsuite for each file, times in seconds.
func WriteJUnit(w io.Writer, results []Result) error {
	failed, took := sums(results)
	all := junitSuites{Tests: len(results), Failures: failed, Time: seconds(took)}
	byFile(results, func(file string, of []Result) {
		failed, took := sums(of)
		s := junitSuite{Name: file, Tests: len(of), Failures: failed, Time: seconds(took)}
		for _, r := range of {
			c := junitCase{Name: r.Name, ClassName: file, File: file, Line: r.Line, Time: seconds(r.Took)}
			if len(r.Failures) > 0 {
				var texts []string
				for _, f := range r.Failures {
					texts = append(texts, fmt.Sprintf("%s:%d: %s", file, f.Line, f.Text))
				}
				c.Failure = &junitFailure{Message: firstLine(r.Failures[0].Text), Type: "failure", Text: strings.Join(texts, "\n")}
			}
			s.Cases = append(s.Cases, c)
		}
		all.Suites = append(all.Suites, s)
	})
	out, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("results of tests: %w", err)
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", xml.Header, out); err != nil {
		return fmt.Errorf("results of tests: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
