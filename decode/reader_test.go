package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/penstock-dev/penstock/arena"
)

var errIdle = errors.New("nothing to read for now")

func TestFraming(t *testing.T) {
	long := strings.Repeat("x", 3*testSlab)
	u32 := func(s ...string) string {
		var b []byte
		for _, s := range s {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
		}
		return string(b)
	}
	varint := func(s ...string) string {
		var b []byte
		for _, s := range s {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
		return string(b)
	}
	tests := []struct {
		name    string
		framing Framing
		max     int
		in      string
		want    []string
		err     error
		offset  uint64
	}{
		{"lines", Lines(nil), 10, "a\nbb\n", []string{"a", "bb"}, nil, 0},
		{"lines: the last one need not end", Lines(nil), 10, "a\nbb", []string{"a", "bb"}, nil, 0},
		{"lines: empty ones are messages", Lines(nil), 10, "\n\na\n", []string{"", "", "a"}, nil, 0},
		{"lines: one \\r is cut", Lines(nil), 10, "a\r\n\r\nb\r\r\nc\r", []string{"a", "", "b\r", "c"}, nil, 0},
		{"lines: \\r stays with other delimiters", Lines([]byte(";")), 10, "a\r;b", []string{"a\r", "b"}, nil, 0},
		{"lines: long delimiter", Lines([]byte("--")), 10, "a---b--", []string{"a", "-b"}, nil, 0},
		{"lines: exactly the limit", Lines(nil), 4, "abcd\nabcd\r\nabcd", []string{"abcd", "abcd", "abcd"}, nil, 0},
		{"lines: one above the limit", Lines(nil), 4, "ab\nabcde\n", []string{"ab"}, ErrTooLarge, 3},
		{"lines: limit, then not a newline", Lines(nil), 4, "abcd\rx\n", nil, ErrTooLarge, 0},
		{"lines: much larger than a slab", Lines(nil), len(long), long + "\n" + long + "\nb\n", []string{long, long, "b"}, nil, 0},
		{"lines: nothing", Lines(nil), 4, "", nil, nil, 0},
		{"u32", U32(), 10, u32("a", "", "ccc"), []string{"a", "", "ccc"}, nil, 0},
		{"u32: exactly the limit", U32(), 3, u32("ccc"), []string{"ccc"}, nil, 0},
		{"u32: one above the limit", U32(), 3, u32("ccc", "dddd"), []string{"ccc"}, ErrTooLarge, 7},
		{"u32: absurd", U32(), 1 << 20, "GET / HTTP/1.1", nil, ErrTooLarge, 0},
		{"u32: ends within the prefix", U32(), 10, u32("a") + "\x00\x00", []string{"a"}, ErrTruncated, 5},
		{"u32: ends within the payload", U32(), 10, u32("a", "bcd")[:10], []string{"a"}, ErrTruncated, 5},
		{"u32: much larger than a slab", U32(), len(long), u32(long, "b", long), []string{long, "b", long}, nil, 0},
		{"varint", Varint(), 1000, varint("a", "", strings.Repeat("b", 300)), []string{"a", "", strings.Repeat("b", 300)}, nil, 0},
		{"varint: above the limit", Varint(), 10, varint("a", "bbbbbbbbbbb"), []string{"a"}, ErrTooLarge, 2},
		{"varint: no 64 bits", Varint(), 10, varint("a") + strings.Repeat("\xff", 10), []string{"a"}, ErrBadLength, 2},
		{"varint: the greatest number", Varint(), 10, strings.Repeat("\xff", 9) + "\x01", nil, ErrTooLarge, 0},
		{"varint: ends within the prefix", Varint(), 10, "\x80", nil, ErrTruncated, 0},
		{"whole", Whole(), 10, "a\nb", []string{"a\nb"}, nil, 0},
		{"whole: nothing", Whole(), 10, "", nil, nil, 0},
		{"whole: exactly the limit", Whole(), 3, "abc", []string{"abc"}, nil, 0},
		{"whole: above the limit", Whole(), 3, "abcd", nil, ErrTooLarge, 0},
		{"whole: exactly a slab", Whole(), testSlab, long[:testSlab], []string{long[:testSlab]}, nil, 0},
		{"whole: much larger than a slab", Whole(), len(long), long, []string{long}, nil, 0},
	}
	ways := map[string]func(io.Reader) io.Reader{
		"all at once":            func(r io.Reader) io.Reader { return r },
		"byte by byte":           iotest.OneByteReader,
		"by halves":              iotest.HalfReader,
		"end together with data": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for way, wrap := range ways {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				r := NewReader(wrap(strings.NewReader(tt.in)), newMemory(t, testSlab, 1<<20), tt.framing, Options{MaxMessage: tt.max})
				defer r.Close()
				frames, err := collect(t, r, DefaultMaxBatch)
				var got []string
				for _, f := range frames {
					got = append(got, f.payload)
				}
				if strings.Join(got, "|") != strings.Join(tt.want, "|") || len(got) != len(tt.want) {
					t.Errorf("frames %.100q, want %.100q", got, tt.want)
				}
				var e *Error
				if tt.err == nil && err != io.EOF || tt.err != nil && (!errors.Is(err, tt.err) || !errors.As(err, &e) || e.Offset != tt.offset) {
					t.Errorf("ended by %v, want %v at %d", err, tt.err, tt.offset)
				}
				if _, again := r.Next(t.Context()); again != err {
					t.Errorf("the second error is %v, not the first again", again)
				}
			})
		}
	}
}

func TestParse(t *testing.T) {
	for _, name := range []string{"lines", "u32", "varint", "whole"} {
		if f, err := Parse(name); err != nil || f.Name() != name {
			t.Errorf("Parse(%q) = %v, %v", name, f, err)
		}
	}
	if _, err := Parse("csv"); err == nil || !strings.Contains(err.Error(), "varint") {
		t.Errorf("an unknown framing gives %v", err)
	}
}

// Promise: payloads stay where they were read. Small reads share a slab, and each is a batch of its own: nobody waits to fill one.
func TestSmallReadsShareASlab(t *testing.T) {
	mem := newMemory(t, testSlab, 1<<20)
	r := NewReader(&chopped{data: []byte("aa\nbb\ncc\n"), cuts: []int{3}}, mem, Lines(nil), Options{Offset: 100})
	var batches []*arena.Batch
	for {
		b, err := r.Next(t.Context())
		if err == io.EOF {
			break
		}
		batches = append(batches, b)
	}
	r.Close()
	if len(batches) != 3 {
		t.Fatalf("%d batches of 3 reads", len(batches))
	}
	shared := batches[0].Slab
	for i, b := range batches {
		if b.Slab != shared || b.Frames[0].Off != uint32(3*i) || b.Receipts[0] != uint64(103+3*i) {
			t.Errorf("batch %d: frame %+v, receipt %d", i, b.Frames[0], b.Receipts[0])
		}
		b.Free()
	}
}

// Promise: the rest of a read comes as the next batch of the same slab, without another read.
func TestMaxBatch(t *testing.T) {
	mem := newMemory(t, testSlab, 1<<20)
	in := iotest.TimeoutReader(bytes.NewReader(bytes.Repeat([]byte("x\n"), 10))) // fails at the second read
	r := NewReader(in, mem, Lines(nil), Options{MaxBatch: 4})
	defer r.Close()
	for _, want := range []int{4, 4, 2} {
		b, err := r.Next(t.Context())
		if err != nil || b.Len() != want {
			t.Fatalf("%v, want a batch of %d", err, want)
		}
		b.Free()
	}
	if _, err := r.Next(t.Context()); !errors.Is(err, iotest.ErrTimeout) {
		t.Fatalf("the input's error came as %v", err)
	}
	if _, err := r.Next(t.Context()); err != io.EOF {
		t.Fatalf("after an error that passed: %v", err)
	}
}

func TestSkipTooLarge(t *testing.T) {
	long := strings.Repeat("y", 5*testSlab)
	in := "a\n" + long + "\nb\n" + long[:11] + "\r\n" + long
	for _, size := range []int{1, 7, 100, 1 << 20} {
		var skipped []uint64
		r := NewReader(&chopped{data: []byte(in), cuts: []int{size}}, newMemory(t, testSlab, 1<<20), Lines(nil), Options{
			MaxMessage: 10, SkipTooLarge: true,
			OnError: func(err error) { skipped = append(skipped, err.(*Error).Offset) },
		})
		got, err := collect(t, r, 256)
		r.Close()
		if err != io.EOF || len(got) != 2 || got[0].payload != "a" || got[1] != (frame{"b", uint64(len(long) + 5)}) {
			t.Errorf("reads of %d: %v, %v", size, got, err)
		}
		if len(skipped) != 3 || skipped[0] != 2 || skipped[1] != uint64(len(long)+5) {
			t.Errorf("reads of %d: skipped at %v", size, skipped)
		}
	}
}

// Promise: with KeepPartial a line is a message only when it has ended, and what has been read of it is not read again.
func TestKeepPartial(t *testing.T) {
	var in bytes.Buffer
	r := NewReader(&in, newMemory(t, testSlab, 1<<20), Lines(nil), Options{KeepPartial: true})
	defer r.Close()
	for i, step := range []struct{ write, want string }{{"a\nb", "a"}, {"", ""}, {"c", ""}, {"d\ne", "bcd"}, {"f", ""}} {
		in.WriteString(step.write)
		got, err := collect(t, r, 256)
		if err != io.EOF || len(got) > 1 || len(got) == 1 && got[0].payload != step.want || len(got) == 0 && step.want != "" {
			t.Errorf("step %d: %v, %v", i, got, err)
		}
		r.Park()
	}
	if r.Offset() != 6 || r.Buffered() != 2 {
		t.Errorf("offset %d, %d buffered", r.Offset(), r.Buffered())
	}
	r.Finish()
	if got, err := collect(t, r, 256); err != io.EOF || len(got) != 1 || got[0] != (frame{"ef", 8}) {
		t.Errorf("after Finish: %v, %v", got, err)
	}
}

// Promise: an idle connection holds no slab, only what it needs for the beginning of a frame.
func TestPark(t *testing.T) {
	const idle = 64 // readers, each with half a line
	mem := newMemory(t, 64<<10, 4<<20)
	var readers []*Reader
	for range idle {
		r := NewReader(io.MultiReader(strings.NewReader("first\nbegin"), iotest.ErrReader(errIdle)), mem, Lines(nil), Options{})
		b, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.Free()
		if _, err := r.Next(t.Context()); !errors.Is(err, errIdle) {
			t.Fatal(err)
		}
		r.Park()
		readers = append(readers, r)
	}
	if used := mem.account.Used(); used > 2*64<<10 {
		t.Errorf("%d idle readers use %d bytes", idle, used)
	}
	for _, r := range readers {
		r.src = strings.NewReader(" and end\n")
		if got, err := collect(t, r, 256); err != io.EOF || len(got) != 1 || got[0].payload != "begin and end" {
			t.Fatalf("%v, %v", got, err)
		}
		r.Close()
	}
}

// Promise: a length that is only announced takes no memory.
func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	mem := newMemory(t, 64<<10, 16<<20)
	in := append(binary.BigEndian.AppendUint32(nil, 8<<20), "only this"...)
	r := NewReader(bytes.NewReader(in), mem, U32(), Options{MaxMessage: 8 << 20, KeepPartial: true})
	defer r.Close()
	if _, err := r.Next(t.Context()); err != io.EOF {
		t.Fatal(err)
	}
	if used := mem.account.Used(); used > 64<<10 {
		t.Errorf("%d bytes for %d that have arrived", used, len(in))
	}
}

// Promise: without budget a reader waits, and goes on when there is some; its context ends the wait and loses nothing.
func TestWaitsForBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t, testSlab, 64*testSlab)
		in := []byte(strings.Repeat("x", 3*testSlab) + "\n" + strings.Repeat("yy\n", testSlab))
		want, _ := reference(Lines(nil), in, 1<<20, false)
		r := NewReader(bytes.NewReader(in), mem, Lines(nil), Options{MaxMessage: 4 * testSlab})
		defer r.Close()
		var hog []*arena.Slab
		for s, err := mem.account.Lease(); err == nil; s, err = mem.account.Lease() {
			hog = append(hog, s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := r.Next(ctx); done <- err }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("ended by %v", err)
		}
		go func() {
			got, err := collect(t, r, 256)
			done <- same(got, err, want, nil)
		}()
		for len(hog) > 0 {
			synctest.Wait()
			hog[len(hog)-1].Release()
			hog = hog[:len(hog)-1]
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type brokenReader int

func (b brokenReader) Read(p []byte) (int, error) { return int(b), nil }

func TestBrokenInput(t *testing.T) {
	mem := newMemory(t, testSlab, 1<<20)
	r := NewReader(brokenReader(0), mem, Lines(nil), Options{})
	if _, err := r.Next(t.Context()); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("reads without bytes: %v", err)
	}
	r.Close()
	if _, err := r.Next(t.Context()); err == nil {
		t.Error("a closed reader reads")
	}
	for _, n := range []int{-1, 1 << 30} {
		r := NewReader(brokenReader(n), mem, Lines(nil), Options{})
		if _, err := r.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "broken input") {
			t.Errorf("Read returns %d: %v", n, err)
		}
		r.Close()
	}
}

// endless repeats data for ever.
type endless struct {
	data []byte
	at   int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], e.data[e.at:])
		n += c
		e.at = (e.at + c) % len(e.data)
	}
	return n, nil
}

// Promise: no allocation per message, nor per batch, also across slabs.
func TestNoAllocations(t *testing.T) {
	payload := bytes.Repeat([]byte("z"), 127)
	inputs := map[string]struct {
		framing Framing
		data    []byte
	}{
		"lines":  {Lines(nil), append(payload, '\n')},
		"u32":    {U32(), append([]byte{0, 0, 0, 127}, payload...)},
		"varint": {Varint(), append([]byte{127}, payload...)},
	}
	for name, in := range inputs {
		t.Run(name, func(t *testing.T) {
			r := NewReader(&endless{data: in.data}, newMemory(t, 64<<10, 4<<20), in.framing, Options{})
			defer r.Close()
			next := func() {
				b, err := r.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				b.Free()
			}
			for range 100 {
				next()
			}
			ctx := t.Context()
			if n := testing.AllocsPerRun(1000, func() {
				b, _ := r.Next(ctx)
				b.Free()
			}); n != 0 {
				t.Errorf("%v allocations a batch", n)
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{128, 1024} {
		payload := bytes.Repeat([]byte("z"), size)
		b.Run("lines/"+sizeName(size), func(b *testing.B) { benchmark(b, Lines(nil), append(payload[:size-1:size-1], '\n')) })
		b.Run("u32/"+sizeName(size), func(b *testing.B) {
			benchmark(b, U32(), append(binary.BigEndian.AppendUint32(nil, uint32(size)), payload...))
		})
	}
}

func sizeName(n int) string {
	if n >= 1024 {
		return "1KiB"
	}
	return "128B"
}

// benchmark reads from memory: the copy from there, 64 KiB at a time, stands for the operating system's.
func benchmark(b *testing.B, f Framing, frame []byte) {
	r := NewReader(&endless{data: bytes.Repeat(frame, (1<<20)/len(frame))}, newMemory(b, 256<<10, 64<<20), f, Options{})
	defer r.Close()
	ctx := b.Context()
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for n := 0; n < b.N; {
		batch, err := r.Next(ctx)
		if err != nil {
			b.Fatal(err)
		}
		n += batch.Len()
		batch.Free()
	}
}
