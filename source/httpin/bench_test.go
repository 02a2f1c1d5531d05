package httpin

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// instant is an intake that settles what it is given at once.
type instant struct {
	source.Intake
	arena   *arena.Arena
	account *arena.Account
	src     *Source
}

func (i *instant) Account() *arena.Account     { return i.account }
func (i *instant) NewBatch() *arena.Batch      { return i.arena.NewBatch() }
func (i *instant) Ready(context.Context) error { return nil }
func (i *instant) Report(error)                {}

func (i *instant) Accept(b *arena.Batch) error {
	i.src.Settle(source.Settlement{Receipts: b.Receipts})
	b.Free()
	return nil
}

func (i *instant) Env() source.Env {
	return source.Env{Name: "bench", Clock: clock.System{}, MaxBytes: 1 << 20, MaxBatch: 256}
}

// countLines is the handler that the source is measured against: it splits lines and counts them.
func countLines(w http.ResponseWriter, r *http.Request) {
	n := 0
	in := bufio.NewReaderSize(r.Body, 64<<10)
	for {
		_, err := in.ReadSlice('\n')
		if err != nil {
			break
		}
		n++
	}
	_, _ = fmt.Fprintf(w, "{\"accepted\":%d}\n", n) // the client looks
}

// BenchmarkBatch sends batches of lines of 1 KiB over one loopback connection: to the source, and to a bare handler of net/http.
func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1, 256, 1024} {
		line := append(bytes.Repeat([]byte("x"), 1023), '\n')
		body := bytes.Repeat(line, size)
		head := fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", len(body))
		request := bytes.Join([][]byte{head, body}, nil)
		b.Run(fmt.Sprintf("%d KiB/bare", size), func(b *testing.B) {
			send(b, http.HandlerFunc(countLines), request, len(body))
		})
		b.Run(fmt.Sprintf("%d KiB/source", size), func(b *testing.B) {
			a, err := arena.New(arena.Config{Budget: 64 << 20, SlabSize: 256 << 10})
			if err != nil {
				b.Fatal(err)
			}
			account, err := a.Account(arena.Sources, "bench", 0, 64<<20)
			if err != nil {
				b.Fatal(err)
			}
			s := Defaults()
			s.Address = "127.0.0.1:0"
			src, err := New(s, kind.Env{})
			if err != nil {
				b.Fatal(err)
			}
			in := &instant{arena: a, account: account, src: src}
			send(b, newHandler(context.Background(), src, in, func() {}), request, len(body))
		})
	}
}

func send(b *testing.B, h http.Handler, request []byte, size int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(ln) }()
	defer server.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
	}
}
