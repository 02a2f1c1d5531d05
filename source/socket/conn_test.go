package socket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestByteByByte(t *testing.T) {
	messages := []string{"alpha", "", "b", strings.Repeat("x", 300)}
	for _, framing := range []string{"lines", "u32", "varint"} {
		for _, token := range []string{"", "secret"} {
			t.Run(framing+" token="+token, func(t *testing.T) {
				r := start(t, Config{Framing: framing, Token: kind.Secret(token)}, sourcetest.IntakeConfig{})
				data := framed(framing, messages...)
				if token != "" {
					data = framed(framing, token) + data
				}
				c := r.dial()
				for i := range len(data) {
					c.send(data[i : i+1])
				}
				r.expect(messages...)
			})
		}
	}
}

// Promise: wherever a stream is cut in two, the messages are the same.
func TestSplitEverywhere(t *testing.T) {
	messages := []string{"one", "two", "", "four"}
	for _, framing := range []string{"lines", "u32", "varint"} {
		t.Run(framing, func(t *testing.T) {
			data := framed(framing, "secret") + framed(framing, messages...)
			r := start(t, Config{Framing: framing, Token: "secret"}, sourcetest.IntakeConfig{})
			var want []string
			for i := range len(data) {
				c := r.dial()
				c.send(data[:i])
				c.send(data[i:])
				c.halfClose()
				want = append(want, messages...)
				r.expect(want...)
				c.atEnd()
			}
		})
	}
}

func TestWhole(t *testing.T) {
	r := start(t, Config{Framing: "whole"}, sourcetest.IntakeConfig{})
	c := r.dial()
	c.send("a\nb")
	c.halfClose()
	c.atEnd()
	r.expect("a\nb")
}

// Promise: what ends with the connection is a message, as in a file.
func TestLastLine(t *testing.T) {
	r := start(t, Config{}, sourcetest.IntakeConfig{})
	c := r.dial()
	c.send("a\r\nb")
	c.halfClose()
	r.expect("a", "b")
	c.atEnd()
}

// Promise: counts rise with the contiguous settled prefix only, whatever the order of settlement.
func TestAcksOutOfOrder(t *testing.T) {
	for _, framing := range []string{"lines", "u32", "varint"} {
		t.Run(framing, func(t *testing.T) {
			r := start(t, Config{Framing: framing, Acks: true}, sourcetest.IntakeConfig{})
			c := r.dial()
			for i := range 10 {
				c.send(framed(framing, fmt.Sprint(i)))
				r.until("a message", func() bool { return r.in.Len() == i+1 }) // batches of one
			}
			next := func() string {
				text, err := readFrame(c.r, framing)
				if err != nil {
					t.Error(err)
				}
				return text
			}
			r.settle(5, 8)
			r.settle(2, 4)
			r.settle(0, 1)
			if got := next(); got != "1" {
				t.Errorf("the first acknowledgement is %q", got)
			}
			r.settle(1, 2) // closes the hole up to 4
			if got := next(); got != "4" {
				t.Errorf("the second acknowledgement is %q", got)
			}
			r.settle(4, 5)
			if got := next(); got != "8" {
				t.Errorf("the third acknowledgement is %q", got)
			}
			c.halfClose()
			r.settle(0, 10)
			if got := next(); got != "10" {
				t.Errorf("the last acknowledgement is %q", got)
			}
			c.atEnd()
		})
	}
}

// Promise: receipts of many connections lead back to the right one.
func TestAcksOfManyConnections(t *testing.T) {
	r := start(t, Config{Acks: true, MaxConnections: 20}, sourcetest.IntakeConfig{})
	sent := 0
	for round := range 3 { // the slots come again
		var all []*client
		for i := range 20 {
			c := r.dial()
			for j := range i + 1 {
				c.send(fmt.Sprintf("%d %d %d\n", round, i, j))
			}
			sent += i + 1
			all = append(all, c)
		}
		r.until("all messages", func() bool { return r.in.Len() == sent })
		r.in.Settle(r.src, source.Settled, func(m sourcetest.Message) bool { return m.Index%3 == 0 })
		r.settle(0, sent)
		for i, c := range all {
			c.halfClose()
			c.count(i + 1)
			c.atEnd()
		}
		r.until("the slots to be free", func() bool { return r.src.Connections() == 0 })
	}
}

// Promise: a settlement of a connection that is gone is no other's, though it has the same slot.
func TestLateSettlement(t *testing.T) {
	r := start(t, Config{Acks: true, MaxConnections: 1}, sourcetest.IntakeConfig{})
	first := r.dial()
	first.send("a\nb\n")
	r.until("two messages", func() bool { return r.in.Len() == 2 })
	reset(t, first.Conn)
	// The broken connection is noticed when it is told something.
	r.settle(1, 2)
	r.settle(0, 1)
	r.until("the slot to be free", func() bool { return r.src.Connections() == 0 })
	second := r.dial()
	second.send("c\n")
	r.until("the third message", func() bool { return r.in.Len() == 3 })
	old := r.in.Messages()[0].Receipt
	r.src.Settle(source.Settlement{Receipts: []uint64{old, old + 1}})
	r.settle(2, 3)
	second.count(1)
}

// reset closes a connection so that its peer gets a reset.
func reset(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestResetWithinAMessage(t *testing.T) {
	r := start(t, Config{Framing: "u32"}, sourcetest.IntakeConfig{})
	other, c := r.dial(), r.dial()
	other.send(framed("u32", "first"))
	r.until("the first message", func() bool { return r.in.Len() == 1 })
	c.send(framed("u32", "second") + framed("u32", "third")[:6])
	r.until("the second message", func() bool { return r.in.Len() == 2 })
	reset(t, c.Conn)
	if text := r.refused(ErrReset); !strings.Contains(text, "source 127.0.0.1:0") || !strings.Contains(text, "of 127.0.0.1:") {
		t.Errorf("reported %q", text)
	}
	other.send(framed("u32", "fourth"))
	r.expect("first", "second", "fourth")
}

// Promise: when the source stops, connections with acks stay open until all is settled; then they are closed.
func TestDrainKeepsAcks(t *testing.T) {
	r := start(t, Config{Acks: true}, sourcetest.IntakeConfig{})
	c, silent := r.dial(), r.dial()
	c.send("a\nb\nc\nbegun")
	silent.send("d\n")
	r.until("four messages", func() bool { return r.in.Len() == 4 })
	r.drain()
	if nc, err := net.Dial("tcp", r.addr); err == nil {
		_ = nc.Close()
		t.Error("a connection is accepted after Run")
	}
	for _, m := range r.in.Messages() {
		if p := string(m.Payload); p == "a" || p == "b" {
			r.settle(m.Index, m.Index+1)
		}
	}
	c.count(2)
	for _, m := range r.in.Messages() {
		if string(m.Payload) == "c" {
			r.settle(m.Index, m.Index+1)
		}
	}
	c.count(3)
	c.atEnd()
	r.close()
	silent.atEnd() // never settled, never acknowledged
	if r.in.Len() != 4 {
		t.Errorf("got %q", r.payloads())
	}
}

// Promise: who does not read acknowledgements delays nobody, and gets the newest when it does.
func TestSlowReaderOfAcks(t *testing.T) {
	const n = 20_000
	r := start(t, Config{Acks: true}, sourcetest.IntakeConfig{})
	c := r.dial()
	_ = c.Conn.(*net.TCPConn).SetReadBuffer(1 << 10)
	go func() { _, _ = io.WriteString(c.Conn, strings.Repeat("m\n", n)) }()
	r.until("all messages", func() bool { return r.in.Len() == n })
	for _, m := range r.in.Messages() {
		r.src.Settle(source.Settlement{Receipts: []uint64{m.Receipt}})
	}
	c.halfClose()
	c.count(n)
	c.atEnd()
}

// Promise: a stream that makes no sense is refused with a reason, and costs no other connection anything.
func TestGarbage(t *testing.T) {
	tests := []struct {
		name, framing, data string
		reason              error
	}{
		{"a length too large", "u32", "GET / HTTP/1.1\r\n\r\n", decode.ErrTooLarge},
		{"a prefix without end", "varint", strings.Repeat("\xff", 100), decode.ErrBadLength},
		{"a flood", "u32", strings.Repeat("\xff", 4<<20), decode.ErrTooLarge},
		{"an end within a message", "u32", "\x00\x00\x00\x09abc", decode.ErrTruncated},
	}
	for _, tt := range tests {
		for _, acks := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s acks=%v", tt.name, acks), func(t *testing.T) {
				r := start(t, Config{Framing: tt.framing, Acks: acks}, sourcetest.IntakeConfig{})
				other, c := r.dial(), r.dial()
				other.send(framed(tt.framing, "before"))
				r.until("a message", func() bool { return r.in.Len() == 1 })
				c.send(framed(tt.framing, "good"))
				go func() {
					_, _ = io.WriteString(c.Conn, tt.data)
					if strings.HasPrefix(tt.name, "an end") {
						_ = c.Conn.(*net.TCPConn).CloseWrite()
					}
				}()
				r.refused(tt.reason)
				r.until("the good message", func() bool { return r.in.Len() == 2 })
				r.settle(0, 2)
				text, err := readFrame(c.r, tt.framing)
				if acks && text == "1" {
					text, err = readFrame(c.r, tt.framing)
				}
				if err != nil && tt.name != "a flood" || err == nil && !strings.HasPrefix(text, "error: ") {
					t.Errorf("the peer was told %q, %v", text, err)
				}
				other.send(framed(tt.framing, "after"))
				r.expect("before", "good", "after")
			})
		}
	}
}

func TestTooLargeLines(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	t.Run("skipped", func(t *testing.T) {
		r := start(t, Config{}, sourcetest.IntakeConfig{MaxBytes: 100})
		c := r.dial()
		c.send("a\n" + long + "\nb\n")
		r.expect("a", "b")
		r.refused(decode.ErrTooLarge)
	})
	t.Run("refused where they would be counted", func(t *testing.T) {
		r := start(t, Config{Acks: true}, sourcetest.IntakeConfig{MaxBytes: 100})
		c := r.dial()
		c.send("a\n" + long + "\nb\n")
		r.expect("a")
		r.refused(decode.ErrTooLarge)
		r.settle(0, 1)
		c.count(1)
		if got := c.line(); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, "too large") {
			t.Errorf("the peer was told %q", got)
		}
		c.atEnd()
	})
}

func TestMaxConnections(t *testing.T) {
	r := start(t, Config{MaxConnections: 2}, sourcetest.IntakeConfig{})
	one, two := r.dial(), r.dial()
	one.send("one\n")
	two.send("two\n")
	r.until("two messages", func() bool { return r.in.Len() == 2 })
	three := r.dial()
	if got := three.line(); !strings.HasPrefix(got, "error: too many connections") {
		t.Errorf("the third was told %q", got)
	}
	three.atEnd()
	r.refused(ErrConnections)
	one.halfClose()
	one.atEnd()
	r.until("a free slot", func() bool { return r.src.Connections() == 1 })
	r.dial().send("four\n")
	r.until("the fourth message", func() bool { return r.in.Len() == 3 })
}

func TestIdleTimeout(t *testing.T) {
	c := clock.NewManual(time.Unix(1000, 0))
	r := start(t, Config{IdleTimeout: time.Minute, Acks: true}, sourcetest.IntakeConfig{Clock: c})
	silent, owed := r.dial(), r.dial()
	owed.send("m\n")
	r.until("a message", func() bool { return r.in.Len() == 1 && r.count(waiting) == 2 })
	c.Advance(2 * time.Minute)
	if got := silent.line(); !strings.HasPrefix(got, "error: nothing was sent for too long") {
		t.Errorf("the peer was told %q", got)
	}
	silent.atEnd()
	r.refused(ErrIdle)
	r.settle(0, 1)
	owed.count(1) // it was not idle as long as it waited for this
	c.Advance(2 * time.Minute)
	if got := owed.line(); !strings.HasPrefix(got, "error: ") {
		t.Errorf("the peer was told %q", got)
	}
}

// count is how many connections are in a phase.
func (r *rig) count(p phase) (n int) {
	r.src.each(func(c *conn) {
		if c.phase.Load() == p {
			n++
		}
	})
	return n
}

// Promise: unfinished messages that use up the memory are given up before they stop the others for good.
func TestMemoryIsGivenBack(t *testing.T) {
	c := clock.NewManual(time.Unix(1000, 0))
	r := start(t, Config{Framing: "u32"}, sourcetest.IntakeConfig{Clock: c, Budget: 16 * 4 << 10, SlabSize: 4 << 10, MaxBytes: 40_000})
	message := strings.Repeat("x", 40_000)
	hog, other := r.dial(), r.dial()
	hog.send(framed("u32", message)[:25_000])
	r.until("the hog to wait", func() bool {
		held := false
		r.src.each(func(c *conn) { held = held || c.phase.Load() == waiting && c.held.Load() == 25_000 })
		return held
	})
	go func() { _, _ = io.WriteString(other.Conn, framed("u32", message)) }()
	r.until("the other to wait for memory", func() bool { return r.count(filling) == 1 && r.count(waiting) == 1 })
	first := r.src.slots[0].conn.Load()
	r.until("the hog to be given up", func() bool {
		if first.ctx.Err() == nil { // no further: the other one needs a moment to take what the hog gives back
			c.Advance(time.Second)
		}
		return len(r.in.Reports()) > 0
	})
	r.refused(ErrMemory)
	if text, err := readFrame(hog.r, "u32"); err != nil || !strings.HasPrefix(text, "error: no memory") {
		t.Errorf("the hog was told %q, %v", text, err)
	}
	r.expect(message)
}

// Promise: many more busy connections than there are slabs all get through, and none is given up for it.
func TestMoreConnectionsThanSlabs(t *testing.T) {
	const clients, each = 100, 60
	clk := clock.NewManual(time.Unix(1000, 0)) // no sweep helps
	r := start(t, Config{Framing: "u32"}, sourcetest.IntakeConfig{Clock: clk, Budget: 40 * 4 << 10, SlabSize: 4 << 10})
	data := strings.Repeat(framed("u32", strings.Repeat("x", 1000)), each)
	for range clients {
		c := r.dial()
		go func() { _, _ = io.WriteString(c.Conn, data) }()
	}
	for done := 0; done < clients*each; {
		r.until("more messages", func() bool { return r.in.Len() > done })
		done = r.in.Len()
		r.settle(0, done)
	}
	if list := r.in.Reports(); len(list) > 0 {
		t.Errorf("reported %v", list)
	}
}

// Promise: what is wrong with the pipeline ends Run with its error; what is wrong with a connection does not.
func TestPipelineFails(t *testing.T) {
	addr := make(chan string, 1)
	s, err := New(Config{Network: "tcp", Address: "127.0.0.1:0", Listen: listening(addr)})
	if err != nil {
		t.Fatal(err)
	}
	in := failing{sourcetest.NewIntake(t, sourcetest.IntakeConfig{})}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context(), in) }()
	c, err := net.Dial("tcp", <-addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "a"); err != nil { // it is accepted, or not, once the end has been read
		t.Error(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, errKey) {
		t.Errorf("Run: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}
