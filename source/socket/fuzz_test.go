package socket

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

const fuzzMax = 200 // the largest message, in bytes

// split is the messages of data, as plainly as it can be written; ok is false if the stream is to be refused at its end.
func split(framing string, data []byte) (messages []string, ok bool) {
	for len(data) > 0 {
		n, size := uint64(0), 0
		switch framing {
		case "lines":
			line, rest, found := bytes.Cut(data, []byte{'\n'})
			if found {
				line = bytes.TrimSuffix(line, []byte{'\r'})
			} else {
				line, rest = bytes.TrimSuffix(data, []byte{'\r'}), nil
			}
			if len(line) <= fuzzMax {
				messages = append(messages, string(line))
			}
			data = rest
			continue
		case "u32":
			if len(data) < 4 {
				return messages, false
			}
			n, size = uint64(binary.BigEndian.Uint32(data)), 4
		case "varint":
			n, size = binary.Uvarint(data)
		}
		if size <= 0 || n > fuzzMax || uint64(len(data)-size) < n {
			return messages, false
		}
		messages = append(messages, string(data[size:size+int(n)]))
		data = data[size+int(n):]
	}
	return messages, true
}

// noted says when it is closed.
type noted struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (n *noted) Close() error {
	err := n.Conn.Close()
	n.once.Do(func() { close(n.closed) })
	return err
}

// FuzzConnection feeds a connection bytes, in pieces. Whatever they are, the messages are those of the framing if the token came first, and
// none if not; and nothing is left behind.
func FuzzConnection(f *testing.F) {
	for i, framing := range []string{"lines", "u32", "varint"} {
		f.Add(byte(i), byte(3), true, []byte(framed(framing, "a", "bc", "")))
		f.Add(byte(i), byte(1), false, []byte(framed(framing, "secret", "a")))
		f.Add(byte(i), byte(7), true, []byte(strings.Repeat("\xff", 300)))
	}
	f.Fuzz(func(t *testing.T, which, piece byte, token bool, data []byte) {
		framing := [...]string{"lines", "u32", "varint"}[which%3]
		if len(data) > 4096 {
			return
		}
		if token {
			data = append([]byte(framed(framing, "secret")), data...)
		}
		d, err := newDialect(framing, "")
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		message, used, ok := d.first(data)
		trusted := ok && used > 0 && string(message) == "secret"
		if token && !trusted {
			t.Fatalf("%q does not begin with the token", data)
		}
		sound := trusted
		if trusted {
			want, sound = split(framing, data[used:])
		}
		conns := make(chan net.Conn)
		cfg := Config{Framing: framing, Token: "secret"}
		_, in, stop := open(t, cfg, sourcetest.IntakeConfig{Budget: 1 << 20, SlabSize: 4 << 10, MaxBytes: fuzzMax}, conns)
		near, far := net.Pipe()
		end := &noted{Conn: far, closed: make(chan struct{})}
		conns <- end
		go func() { _, _ = io.Copy(io.Discard, near) }()
		for rest := data; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			if _, err := near.Write(rest[:n]); err != nil {
				break // it was refused
			}
			rest = rest[n:]
		}
		_ = near.Close()
		<-end.closed
		var got []string
		for _, m := range in.Messages() {
			got = append(got, string(m.Payload))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: got %q, want %q", framing, got, want)
		}
		refused := false
		for _, err := range in.Reports() {
			var r *RefusedError
			refused = refused || errors.As(err, &r) && !(framing == "lines" && errors.Is(err, decode.ErrTooLarge))
		}
		if want := !sound && len(data) > 0; refused != want {
			t.Errorf("%s: refused: %v, want %v; reported %v", framing, refused, want, in.Reports())
		}
		stop()
	})
}

// FuzzFirst looks for a first message that is found otherwise when it comes in pieces, or that is too long for a token.
func FuzzFirst(f *testing.F) {
	f.Add(byte(0), []byte("secret\r\nrest"))
	f.Add(byte(1), []byte("\x00\x00\x00\x02ab"))
	f.Add(byte(2), []byte("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"))
	f.Add(byte(3), []byte("a;;b"))
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		framing, delim := [...]string{"lines", "u32", "varint", "lines"}[which%4], [...]string{"", "", "", ";;"}[which%4]
		d, err := newDialect(framing, delim)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > d.most() {
			data = data[:d.most()]
		}
		message, used, ok := d.first(data)
		if used > 0 && ok && (len(message) > maxToken || used > len(data)) {
			t.Fatalf("a message of %d bytes, %d used of %d", len(message), used, len(data))
		}
		if len(data) == d.most() && used == 0 && ok {
			t.Fatal("all that may be read has been read, and it is not decided")
		}
		for n := range data {
			m, u, o := d.first(data[:n])
			if u > 0 && o && (u != used || string(m) != string(message)) {
				t.Fatalf("of %d bytes the message is %q, of all %q", n, m, message)
			}
			if !o && ok {
				t.Fatalf("%d bytes are refused, all are not", n)
			}
		}
	})
}

// A context that has ended before Run begins ends it all the same.
func TestRunAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := New(Config{Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
	if err := s.Run(ctx, in); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}
