package deadletter

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzRead gives the reader any bytes: it does not panic, answers at most once a line, and what it takes for a letter comes back the
// same when it is written and read again.
func FuzzRead(f *testing.F) {
	var buf bytes.Buffer
	l := full()
	if err := appendLine(&buf, &l, l.ID); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(buf.Bytes()[:buf.Len()/2])
	f.Add([]byte("{}\nnull\n\n\x00\n[1]"))
	f.Add([]byte(`{"payload_encoding":"base64","payload":"/w==","key":"!","key_encoding":"base64"}` + "\n"))
	f.Add([]byte(`{"payload_encoding":"text","payload":"\ud800","died":"9999-12-31T23:59:59-23:59"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		answers := 0
		for l, err := range read(bytes.NewReader(data), 1000) {
			answers++
			if err != nil {
				if _, ok := errors.AsType[*LineError](err); !ok {
					t.Fatalf("error without a line: %v", err)
				}
				continue
			}
			first := again(t, l)
			if second := again(t, first); !reflect.DeepEqual(first, second) {
				t.Fatalf("a letter changes when it is written and read:\n%+v\n%+v", first, second)
			}
			if !bytes.Equal(first.Payload, l.Payload) || !bytes.Equal(first.Key, l.Key) || !reflect.DeepEqual(first.Headers, l.Headers) {
				t.Fatalf("bytes of a letter change when it is written and read:\n%+v\n%+v", l, first)
			}
		}
		if most := bytes.Count(data, []byte("\n")) + 1; answers > most {
			t.Fatalf("%d answers for %d lines", answers, most)
		}
	})
}

// again writes l and reads it.
func again(t *testing.T, l Letter) Letter {
	var buf bytes.Buffer
	if err := appendLine(&buf, &l, l.ID); err != nil {
		t.Fatalf("a letter that was read cannot be written: %v", err)
	}
	for back, err := range read(&buf, MaxLine) {
		if err != nil {
			t.Fatal(err)
		}
		return back
	}
	t.Fatal("nothing was written")
	return Letter{}
}

// A line beyond the bound is skipped without being kept; the next is read. That holds however the bytes come.
func TestLongLines(t *testing.T) {
	good := `{"id":"a","payload_encoding":"text","payload":""}` + "\n"
	long := strings.Repeat("x", 200_000) + "\n"
	fits := `{"id":"b","payload_encoding":"text","payload":"` + strings.Repeat("y", 99_000) + `"}` + "\n"
	for _, r := range []io.Reader{strings.NewReader(good + long + fits), iotest.HalfReader(strings.NewReader(good + long + fits))} {
		var got []string
		for l, err := range read(r, 100_000) {
			switch {
			case errors.Is(err, ErrTooLarge):
				got = append(got, "too large")
			case err != nil:
				t.Fatal(err)
			default:
				got = append(got, l.ID)
			}
		}
		if want := []string{"a", "too large", "b"}; !reflect.DeepEqual(got, want) {
			t.Errorf("read %q, want %q", got, want)
		}
	}
}

// An error of the reader ends the reading.
func TestReaderFails(t *testing.T) {
	n := 0
	for _, err := range read(iotest.ErrReader(io.ErrNoProgress), 1000) {
		n++
		if !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("error %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d answers, want 1", n)
	}
}
