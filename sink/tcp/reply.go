package tcp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
)

const (
	maxReply    = 4 << 10 // bytes of one message of the peer
	errorPrefix = "error: "
)

// replies reads what the peer sends, in the connection's framing.
type replies struct {
	r     *bufio.Reader
	frame Framing
	delim []byte
	buf   []byte
}

func newReplies(r io.Reader, frame Framing, delim []byte) *replies {
	return &replies{r: bufio.NewReaderSize(r, 1<<10), frame: frame, delim: delim}
}

// next is the next message, valid until the one after it. One of more than maxReply bytes is an [ErrProtocol].
func (r *replies) next() ([]byte, error) {
	if r.frame == Lines {
		return r.line()
	}
	length, err := r.length()
	if err != nil {
		return nil, err
	}
	if length > maxReply {
		return nil, fmt.Errorf("%w: a message of %d bytes", ErrProtocol, length)
	}
	if cap(r.buf) < int(length) {
		r.buf = make([]byte, length)
	}
	r.buf = r.buf[:length]
	if _, err = io.ReadFull(r.r, r.buf); err != nil {
		return nil, unexpected(err)
	}
	return r.buf, nil
}

func (r *replies) length() (uint64, error) {
	if r.frame == Varint {
		n, err := binary.ReadUvarint(r.r)
		return n, err
	}
	var head [4]byte
	_, err := io.ReadFull(r.r, head[:])
	return uint64(binary.BigEndian.Uint32(head[:])), err
}

// unexpected is err, but no end of input: that is one only between messages.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // io.ReadFull returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *replies) line() ([]byte, error) {
	r.buf = r.buf[:0]
	for {
		part, err := r.r.ReadSlice(r.delim[len(r.delim)-1])
		r.buf = append(r.buf, part...)
		if len(r.buf) > maxReply+len(r.delim) {
			return nil, fmt.Errorf("%w: a message of more than %d bytes", ErrProtocol, maxReply)
		}
		if line, ok := bytes.CutSuffix(r.buf, r.delim); ok {
			if string(r.delim) == "\n" {
				line = bytes.TrimSuffix(line, []byte{'\r'})
			}
			return line, nil
		}
		if err != nil && err != bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it bare
			return nil, err
		}
	}
}

// parseReply reads an acknowledgement: how many messages of the connection are settled. It fails with [ErrRefused] and the peer's words,
// or with [ErrProtocol].
func parseReply(p []byte) (uint64, error) {
	if text, ok := bytes.CutPrefix(p, []byte(errorPrefix)); ok {
		return 0, fmt.Errorf("%w: %q", ErrRefused, text)
	}
	n, err := strconv.ParseUint(string(p), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q is no number", ErrProtocol, p)
	}
	return n, nil
}

func errTooMany(n, sent uint64) error {
	return fmt.Errorf("%w: %d messages settled, of %d that were sent", ErrProtocol, n, sent)
}
