package socket

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/penstock-dev/penstock/decode"
)

// maxToken is the longest token, in bytes.
const maxToken = 1024

// dialect is how a connection frames messages, both ways.
type dialect struct {
	framing decode.Framing
	name    string
	delim   []byte // of lines
}

func newDialect(framing, delimiter string) (dialect, error) {
	if framing == "" {
		framing = "lines"
	}
	f, err := decode.Parse(framing)
	if err != nil {
		return dialect{}, err
	}
	d := dialect{framing: f, name: framing}
	switch {
	case framing != "lines" && delimiter != "":
		return dialect{}, fmt.Errorf("framing %s has no delimiter: leave it out, or give lines", framing)
	case framing == "lines":
		d.delim = []byte("\n")
		if delimiter != "" {
			d.delim = []byte(delimiter)
		}
		d.framing = decode.Lines(d.delim)
	}
	return d, nil
}

// appendFrame appends a message to out as the peer expects it.
func (d *dialect) appendFrame(out, message []byte) []byte {
	switch d.name {
	case "u32":
		out = binary.BigEndian.AppendUint32(out, uint32(len(message)))
		return append(out, message...)
	case "varint":
		out = binary.AppendUvarint(out, uint64(len(message)))
		return append(out, message...)
	case "lines":
		out = append(out, message...)
		return append(out, d.delim...)
	}
	return append(out, message...)
}

// most is how many bytes a first message takes that is no longer than maxToken.
func (d *dialect) most() int { return maxToken + max(binary.MaxVarintLen64, len(d.delim)+1) }

// first finds the first message of data: used is how many bytes it takes, 0 if it is not all there. ok is false if it cannot be a token.
func (d *dialect) first(data []byte) (message []byte, used int, ok bool) {
	switch d.name {
	case "u32":
		if len(data) < 4 {
			return nil, 0, true
		}
		return sized(data, uint64(binary.BigEndian.Uint32(data)), 4)
	case "varint":
		n, size := binary.Uvarint(data)
		if size <= 0 {
			return nil, 0, size == 0 && len(data) < binary.MaxVarintLen64
		}
		return sized(data, n, size)
	}
	i := bytes.Index(data, d.delim)
	if i < 0 {
		return nil, 0, len(data) < d.most()
	}
	message = data[:i]
	if string(d.delim) == "\n" {
		message = bytes.TrimSuffix(message, []byte{'\r'})
	}
	return message, i + len(d.delim), len(message) <= maxToken
}

func sized(data []byte, n uint64, prefix int) (message []byte, used int, ok bool) {
	switch {
	case n > maxToken:
		return nil, 0, false
	case uint64(len(data)-prefix) < n:
		return nil, 0, true
	}
	used = prefix + int(n)
	return data[prefix:used], used, true
}

// same compares in a time that does not depend on where two texts differ.
func same(got []byte, want string) bool {
	a, b := sha256.Sum256(got), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
