package httpin

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// pieces is a body that comes in pieces of n bytes.
type pieces struct {
	data []byte
	n    int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(to[:min(len(to), p.n)], p.data)
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Close() error { return nil }

// reference is the messages of a body, found in the simplest way; ok is false if the body ends within one, or one is too large.
func reference(frame string, body []byte, most int) (list []string, ok bool) {
	switch frame {
	case "lines":
		for len(body) > 0 {
			line, rest, _ := bytes.Cut(body, []byte("\n"))
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(line) > most {
				return list, false
			}
			list, body = append(list, string(line)), rest
		}
		return list, true
	case "whole":
		if len(body) == 0 || len(body) > most {
			return nil, len(body) == 0
		}
		return []string{string(body)}, true
	}
	for len(body) > 0 {
		n, size := uint64(0), 4
		if frame == "varint" {
			n, size = binary.Uvarint(body)
		} else if len(body) >= 4 {
			n = uint64(binary.BigEndian.Uint32(body))
		}
		if size <= 0 || len(body) < size || n > uint64(most) || uint64(len(body)-size) < n {
			return list, false
		}
		list, body = append(list, string(body[size:][:n])), body[size+int(n):]
	}
	return list, true
}

// Promise: whatever a body holds, the answer is one of those documented, its count is that of the messages that came, these are what the
// framing says, with their headers, and all memory is released.
func FuzzRequest(f *testing.F) {
	frames := []string{"whole", "lines", "u32", "varint"}
	f.Add([]byte("a\nb\r\n\nc"), "x", uint8(1), uint16(3), false, false)
	f.Add([]byte("\x00\x00\x00\x01a\x00\x00\x00\x02b"), "", uint8(2), uint16(1), false, true)
	f.Add([]byte("\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "x", uint8(3), uint16(100), false, false)
	f.Add(zipped([]byte("a\nb\nc\n")), "x", uint8(1), uint16(7), true, false)
	f.Add(zipped(make([]byte, 100_000)), "x", uint8(0), uint16(700), true, true)
	f.Add(bytes.Repeat([]byte("0123456789\n"), 3000), "x", uint8(1), uint16(65535), false, false)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 200, 201: 0}, 90), string(make([]byte, 600)), uint8(2), uint16(4096), false, true)
	f.Fuzz(func(t *testing.T, body []byte, kept string, frame uint8, piece uint16, zip, chunked bool) {
		const most = 6000 // more than a slab
		s := Defaults()
		s.Address, s.MaxBody, s.Headers = "127.0.0.1:0", 64<<10, []string{"kept"}
		name := frames[int(frame)%len(frames)]
		src, err := New(s, kind.Env{Frame: name})
		if err != nil {
			t.Fatal(err)
		}
		in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{Budget: 1 << 20, SlabSize: 4 << 10, MaxBytes: most, MaxBatch: 16, DataDir: "none"})
		r := &rig{in: in, src: src}
		h := newHandler(context.Background(), src, &tap{in, r.note, func(error) { r.settle(source.Settled) }}, func() {})
		kept = kept[:min(len(kept), 5000)]
		req := httptest.NewRequest(http.MethodPost, "/", &pieces{bytes.Clone(body), int(piece) + 1})
		req.ContentLength = int64(len(body))
		if chunked {
			req.ContentLength = -1
		}
		if kept != "" {
			req.Header["Kept"] = []string{kept}
		}
		if zip {
			req.Header.Set("Content-Encoding", "gzip")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		var a says
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || !slices.Contains([]int{200, 400, 413}, w.Code) || a.Unsettled != 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if a.Accepted != len(r.came) {
			t.Errorf("the answer says %d, %d came", a.Accepted, len(r.came))
		}
		for _, g := range r.came {
			if g.headers["kept"] != kept || len(g.headers) > 1 {
				t.Fatalf("a message has the headers %q", g.headers)
			}
		}
		if want, ok := reference(name, body, most); !zip && len(body) <= int(s.MaxBody) {
			if ok != (w.Code == 200) || !slices.Equal(r.payloads(), want) {
				t.Errorf("%d %s, messages %.100q, want %v %.100q", w.Code, w.Body, r.payloads(), ok, want)
			}
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
}
