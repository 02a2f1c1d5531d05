package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/source/socket"
)

// tcpMessages is how many messages a run has over TCP, at full size: about two seconds.
const tcpMessages = 4 << 20

const (
	prefix    = 4         // bytes of a length
	writeSize = 256 << 10 // of who sends
	readSize  = 256 << 10 // of the bare loop; ours reads as much at once
)

// tcpRun is a number of messages over one connection, each with its length in front.
type tcpRun struct {
	Bytes    int // of the input, which is sent over and over again
	Size     int // of a message
	Messages int
}

func newTCPRun(r *runner, size, messages int) tcpRun {
	return tcpRun{Bytes: r.inputBytes(), Size: size, Messages: r.messages(messages)}
}

// tcpSend sends them.
type tcpSend struct {
	tcpRun
	Address string
}

// framed is the input as it is sent.
func (t *tcpRun) framed() []byte {
	in := newInput(t.Bytes, t.Size)
	out := make([]byte, 0, in.n*(prefix+t.Size))
	for i := range in.n {
		out = binary.BigEndian.AppendUint32(out, uint32(t.Size))
		out = append(out, in.data[i*t.Size:(i+1)*t.Size]...)
	}
	return out
}

// do implements job.
func (t *tcpSend) do(ctx context.Context, _ io.Reader, _ io.Writer) error {
	data := t.framed()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return err
	}
	at := 0
	for left := t.Messages * (prefix + t.Size); left > 0; {
		n, err := c.Write(data[at:min(at+writeSize, at+left, len(data))])
		if err != nil {
			return errors.Join(err, c.Close())
		}
		left -= n
		if at += n; at == len(data) {
			at = 0
		}
	}
	return c.Close()
}

// tcpCount is the reference: a loop that reads and counts frames, and does nothing else.
type tcpCount struct{ tcpRun }

// do implements job.
func (t *tcpCount) do(ctx context.Context, _ io.Reader, out io.Writer) error {
	var m meter
	ln, err := told(new(net.ListenConfig).Listen, out, m.start)(ctx, "tcp", anyPort)
	if err != nil {
		return err
	}
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	n, err := countFrames(c)
	u := m.used()
	if err := errors.Join(err, c.Close(), ln.Close()); err != nil {
		return err
	}
	if n != t.Messages {
		return fmt.Errorf("%d frames instead of %d", n, t.Messages)
	}
	return say(out, u)
}

// countFrames counts frames to the end of c.
func countFrames(c net.Conn) (n int, err error) {
	buf, have := make([]byte, readSize), 0
	for {
		m, err := c.Read(buf[have:])
		have += m
		at := 0
		for have-at >= prefix {
			size := prefix + int(binary.BigEndian.Uint32(buf[at:]))
			if have-at < size {
				break
			}
			at += size
			n++
		}
		have = copy(buf, buf[at:have])
		if errors.Is(err, io.EOF) && have == 0 {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("after %d frames and %d bytes: %w", n, have, err)
		}
	}
}

// tcpPipeline is a pipeline of that many plugins, each of which gets all.
type tcpPipeline struct {
	tcpRun
	Plugins int
}

// do implements job.
func (t *tcpPipeline) do(ctx context.Context, in io.Reader, out io.Writer) error {
	var s serving
	src, err := socket.New(socket.Config{
		Network: "tcp", Address: anyPort, Framing: "u32", Listen: told(new(net.ListenConfig).Listen, out, s.meter.start),
	})
	if err != nil {
		return err
	}
	numbers := numbered(t.Bytes, t.Size)
	handlers, plugins := lents(numbers, t.Plugins)
	s.from = newCounted(src, t.Messages)
	s.plan = penstock.Pipeline{Sources: []penstock.Source{{Name: "input", From: s.from}}, Plugins: plugins}
	u, err := s.run(ctx, in)
	if err != nil {
		return err
	}
	for _, h := range handlers {
		if err := h.verify(numbers, t.Messages); err != nil {
			return err
		}
	}
	return say(out, u)
}

// tcpAt measures messages/s and CPU time for each message of the receiver: of ours with that many plugins, of the reference with none.
func tcpAt(plugins int) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		run := newTCPRun(r, 1024, tcpMessages)
		var receiver job = &tcpPipeline{run, plugins}
		if plugins == 0 {
			receiver = &tcpCount{run}
		}
		var u used
		err := converse(ctx, r, receiver, func(address string) job { return &tcpSend{run, address} }, &u, nil)
		if err != nil {
			return nil, err
		}
		return []float64{rate(run.Messages, u.Took), perMessage(u.CPU, run.Messages)}, nil
	}
}

// perMessage is a time for each of n messages, in nanoseconds.
func perMessage(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / float64(n) }

func tcpFigures() []figure {
	var out []figure
	for _, f := range []struct {
		plugins   int
		rate, cpu float64
	}{{1, 0.9, 1.25}, {8, 0.8, 1.5}} {
		name := fmt.Sprintf("tcp-%d", f.plugins)
		out = append(out, figure{
			name: name, what: fmt.Sprintf("1 KiB frames over one TCP connection of another process to %s; CPU time is the receiver's", plural(f.plugins)),
			against: "a loop that reads and counts frames",
			rows:    []row{{name, "messages/s", atLeast(f.rate)}, {name + "-cpu", "ns of CPU/message", atMost(f.cpu)}},
			ours:    tcpAt(f.plugins), reference: tcpAt(0),
		})
	}
	return out
}

func plural(plugins int) string {
	if plugins == 1 {
		return "1 plugin"
	}
	return fmt.Sprintf("%d plugins", plugins)
}
