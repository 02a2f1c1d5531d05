package arena

import "encoding/binary"

// A header block is a run of entries, each
//
//	name length  u16 big-endian
//	value length u32 big-endian
//	name, value  that many bytes
//
// in the order in which they were appended. Names are compared byte for byte.

const headerPrefix = 2 + 4

// AppendHeader appends one header to the block dst and returns the longer block. A name of more than 65,535 bytes is cut;
// a value has less than 4 GiB.
func AppendHeader(dst []byte, name string, value []byte) []byte {
	name = name[:min(len(name), 1<<16-1)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(name)))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(value)))
	dst = append(dst, name...)
	return append(dst, value...)
}

// Header is the value of the first header called name in block, as a part of block, or nil. A block that is cut short or forged ends
// the search and never reads outside of block.
func Header(block []byte, name string) []byte {
	for n, v, rest, ok := NextHeader(block); ok; n, v, rest, ok = NextHeader(rest) {
		if string(n) == name {
			return v
		}
	}
	return nil
}

// NextHeader splits the first header off block. All that it returns are parts of block; ok is false at the end.
func NextHeader(block []byte) (name, value, rest []byte, ok bool) {
	if len(block) < headerPrefix {
		return nil, nil, nil, false
	}
	n, v := uint64(binary.BigEndian.Uint16(block)), uint64(binary.BigEndian.Uint32(block[2:]))
	body := block[headerPrefix:]
	if n+v > uint64(len(body)) {
		return nil, nil, nil, false
	}
	return body[:n:n], body[n : n+v : n+v], body[n+v:], true
}
