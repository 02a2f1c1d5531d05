package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source/httpin"
)

const (
	httpMessages    = 2 << 20 // at full size
	httpLines       = 256     // of a body
	httpConnections = 4
	lineSize        = 1024 // bytes, the newline included
)

// httpRun is a number of requests over a few connections that stay open, the next one on each when the one before is answered. Each has
// a body of lines.
type httpRun struct {
	Bodies   int // different ones, sent over and over again
	Requests int
}

func newHTTPRun(r *runner) httpRun {
	return httpRun{Bodies: r.inputBytes() / (httpLines * lineSize), Requests: r.messages(httpMessages) / httpLines}
}

func (h *httpRun) messages() int { return h.Requests * httpLines }

// body appends a body to out: lines that are JSON, a string with a number at both ends.
func (h *httpRun) body(out []byte, i int) []byte {
	for line := range httpLines {
		number := tailOf(uint64(i*httpLines + line))
		out = fmt.Appendf(out, "\"%016x", number)
		for range lineSize - 2*16 - 3 {
			out = append(out, '.')
		}
		out = fmt.Appendf(out, "%016x\"\n", number)
	}
	return out
}

// sum is what a sampler adds up of all requests.
func (h *httpRun) sum() (sum uint64) {
	var body []byte
	for i := range min(h.Bodies, h.Requests) {
		body = h.body(body[:0], i)
		var of uint64
		for line := range bytes.Lines(body) {
			of += binary.LittleEndian.Uint64(line) + binary.LittleEndian.Uint64(line[len(line)-1-tail:])
		}
		sum += of * uint64((h.Requests-i+h.Bodies-1)/h.Bodies)
	}
	return sum
}

// httpSend sends them.
type httpSend struct {
	httpRun
	Address string
}

// do implements job. It says how long it took, from the first request to the last answer.
func (h *httpSend) do(ctx context.Context, _ io.Reader, out io.Writer) error {
	requests := make([][]byte, h.Bodies)
	for i := range requests {
		requests[i] = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n",
			h.Address, httpLines*lineSize)
		requests[i] = h.body(requests[i], i)
	}
	var m meter
	var next atomic.Int64
	var sending sync.WaitGroup
	errs := make([]error, httpConnections)
	m.start()
	for i := range errs {
		sending.Go(func() { errs[i] = h.send(ctx, requests, &next) })
	}
	sending.Wait()
	u := m.used()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return say(out, u)
}

// send sends one request after another on a connection, until there are none left.
func (h *httpSend) send(ctx context.Context, requests [][]byte, next *atomic.Int64) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", h.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	want := fmt.Sprintf("{\"accepted\":%d}", httpLines)
	in := bufio.NewReader(c)
	for {
		i := int(next.Add(1)) - 1
		if i >= h.Requests {
			return nil
		}
		if _, err := c.Write(requests[i%len(requests)]); err != nil {
			return err
		}
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || string(bytes.TrimSpace(text)) != want {
			return fmt.Errorf("request %d: %s: %s: %w", i, answer.Status, text, err)
		}
	}
}

// httpCount is the reference: a handler of net/http that splits lines and counts them.
type httpCount struct{ httpRun }

// do implements job.
func (h *httpCount) do(ctx context.Context, in io.Reader, out io.Writer) error {
	var m meter
	ln, err := told(new(net.ListenConfig).Listen, out, m.start)(ctx, "tcp", anyPort)
	if err != nil {
		return err
	}
	var lines atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { lines.Add(countLines(w, r)) })}
	go func() {
		<-ended(in)
		_ = server.Close() // all has been answered
	}()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	u := m.used()
	if n := int(lines.Load()); n != h.messages() {
		return fmt.Errorf("%d lines instead of %d", n, h.messages())
	}
	return say(out, u)
}

func countLines(w http.ResponseWriter, r *http.Request) (n int64) {
	in := bufio.NewReaderSize(r.Body, 64<<10)
	for {
		if _, err := in.ReadSlice('\n'); err != nil {
			break
		}
		n++
	}
	_, _ = fmt.Fprintf(w, "{\"accepted\":%d}\n", n) // the client looks
	return n
}

// httpPipeline is a pipeline of one plugin.
type httpPipeline struct{ httpRun }

// do implements job.
func (h *httpPipeline) do(ctx context.Context, in io.Reader, out io.Writer) error {
	s := serving{stay: true}
	settings := httpin.Defaults()
	settings.Address = anyPort
	src, err := httpin.New(settings, kind.Env{Name: "input", Listen: told(new(net.ListenConfig).Listen, out, s.meter.start)})
	if err != nil {
		return err
	}
	handler := &sampler{}
	s.from = newCounted(src, h.messages())
	s.plan = penstock.Pipeline{
		Sources: []penstock.Source{{Name: "input", From: s.from}},
		Plugins: []penstock.Plugin{{Name: "sampler", From: []string{"input"}, New: func() (penstock.Handler, error) { return handler, nil }}},
	}
	u, err := s.run(ctx, in)
	if err != nil {
		return err
	}
	if handler.count != uint64(h.messages()) || handler.sum != h.sum() {
		return fmt.Errorf("the plugin has seen %d messages instead of %d, or other bytes", handler.count, h.messages())
	}
	return say(out, u)
}

// overHTTP measures messages/s, as the client sees it, and CPU time of the receiver for each.
func overHTTP(receiver func(run httpRun) job) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		run := newHTTPRun(r)
		var heard, sent used
		err := converse(ctx, r, receiver(run), func(address string) job { return &httpSend{run, address} }, &heard, &sent)
		if err != nil {
			return nil, err
		}
		return []float64{rate(run.messages(), sent.Took), perMessage(heard.CPU, run.messages())}, nil
	}
}

func httpFigures() []figure {
	return []figure{{
		name: "http", what: "lines of 1 KiB to 1 plugin, 256 a request, over 4 connections of another process",
		against: "a net/http handler that counts lines",
		rows:    []row{{"http", "messages/s", atLeast(0.6)}, {"http-cpu", "ns of CPU/message", want{}}},
		ours:    overHTTP(func(run httpRun) job { return &httpPipeline{run} }), reference: overHTTP(func(run httpRun) job { return &httpCount{run} }),
	}}
}
