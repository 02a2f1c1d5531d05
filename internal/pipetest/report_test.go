package pipetest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"testing"
	"time"
)

func someResults() []Result {
	return []Result{
		{File: "a_test.yaml", Name: "one <&>", Line: 3, Took: 1500 * time.Millisecond},
		{File: "a_test.yaml", Name: "two", Line: 9, Took: 20 * time.Millisecond, Failures: []Failure{
			{Line: 12, Text: "out: want 1 message, got none\n- \x01 ]]> a"}, {Line: 13, Text: "counts: dead is 1, want 0"},
		}},
		{File: "b_test.yaml", Name: "three", Line: 2, Took: 0},
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		name    string
		results []Result
		verbose bool
		want    string
	}{
		{"plain", someResults(), false, `--- FAIL: two (0.02s)
    a_test.yaml:12: out: want 1 message, got none
        - ` + "\x01" + ` ]]> a
    a_test.yaml:13: counts: dead is 1, want 0
FAIL	a_test.yaml	1.520s
ok  	b_test.yaml	0.000s
1 of 3 tests failed
`},
		{"verbose", someResults()[2:], true, "--- PASS: three (0.00s)\nok  \tb_test.yaml\t0.000s\n1 test passed\n"},
		{"none", nil, false, "no tests were run\n"},
	} {
		var b bytes.Buffer
		if err := WriteText(&b, c.results, c.verbose); err != nil || b.String() != c.want {
			t.Errorf("%s: error %v, got:\n%s\nwant:\n%s", c.name, err, b.String(), c.want)
		}
	}
}

// Promise: the XML is well-formed, whatever messages hold, and has what continuous integration reads.
func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJUnit(&b, someResults()); err != nil {
		t.Fatal(err)
	}
	const want = xml.Header + `<testsuites tests="3" failures="1" errors="0" time="1.520000">
  <testsuite name="a_test.yaml" tests="2" failures="1" errors="0" skipped="0" time="1.520000">
    <testcase name="one &lt;&amp;&gt;" classname="a_test.yaml" file="a_test.yaml" line="3" time="1.500000"></testcase>
    <testcase name="two" classname="a_test.yaml" file="a_test.yaml" line="9" time="0.020000">
      <failure message="out: want 1 message, got none" type="failure">a_test.yaml:12: out: want 1 message, got none&#xA;- ` + "\uFFFD" +
		` ]]&gt; a&#xA;a_test.yaml:13: counts: dead is 1, want 0</failure>
    </testcase>
  </testsuite>
  <testsuite name="b_test.yaml" tests="1" failures="0" errors="0" skipped="0" time="0.000000">
    <testcase name="three" classname="b_test.yaml" file="b_test.yaml" line="2" time="0.000000"></testcase>
  </testsuite>
</testsuites>
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
	d := xml.NewDecoder(&b)
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestReportsThatCannotBeWritten(t *testing.T) {
	if err := WriteText(full{}, nil, false); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("error is %v", err)
	}
	if err := WriteJUnit(full{}, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("error is %v", err)
	}
}
