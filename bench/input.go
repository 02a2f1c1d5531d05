package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// inputBytes is how much there is to read before it comes again: more than any cache holds.
const inputBytes = 64 << 20

// keys is the number of different keys.
const keys = 10_000

// A payload is
//
//	0   number of the message within the input, u64
//	8   key, u32
//	12  place of the message among those of its key, u32
//	16  how many of its key there are in the input, u32
//	    filling
//	-8  a number made from the first one, u64
//
// all little-endian.
const (
	atKey   = 8
	atPlace = 12
	atOfKey = 16
	tail    = 8
)

// tailOf is what the last bytes of message i say.
func tailOf(i uint64) uint64 { return i*0x9E3779B97F4A7C15 ^ 0x5DEECE66D }

// input is what sources read: messages of one size, one behind the other, over and over again.
type input struct {
	size int // bytes of a message
	n    int // messages; a power of two
	data []byte
	sum  uint64 // of all tails
}

// newInput makes an input of that many bytes.
func newInput(bytes, size int) *input {
	in := &input{size: size, n: bytes / size, data: make([]byte, bytes)}
	random := rand.New(rand.NewPCG(1, 2))
	ofKey := make([]uint32, keys)
	for i := range in.n {
		m := in.data[i*size : (i+1)*size]
		for j := 20; j < size-tail; j += 8 {
			m[j] = byte(j)
		}
		key := random.Uint32N(keys)
		binary.LittleEndian.PutUint64(m, uint64(i))
		binary.LittleEndian.PutUint32(m[atKey:], key)
		binary.LittleEndian.PutUint32(m[atPlace:], ofKey[key])
		binary.LittleEndian.PutUint64(m[size-tail:], tailOf(uint64(i)))
		ofKey[key]++
		in.sum += tailOf(uint64(i))
	}
	for i := range in.n {
		m := in.data[i*size:]
		binary.LittleEndian.PutUint32(m[atOfKey:], ofKey[binary.LittleEndian.Uint32(m[atKey:])])
	}
	return in
}

// piece is how much is copied at a time. Go copies more than 2 KiB by another instruction, which is slower on some machines; so batches
// would cost more to read than single messages.
const piece = 1024

// read copies messages to dst, from message i on, as a read of a socket would. len(dst) is a multiple of the size. It returns how many.
func (in *input) read(dst []byte, i int) (int, error) {
	src := in.data[i&(in.n-1)*in.size:]
	n := min(len(dst), len(src))
	for at := 0; at < n; at += piece {
		copy(dst[at:min(at+piece, n)], src[at:])
	}
	return n / in.size, nil
}

// sumOf is the sum of the tails of the first n messages.
func (in *input) sumOf(n int) uint64 {
	sum := uint64(n/in.n) * in.sum
	for i := range n % in.n {
		sum += tailOf(uint64(i))
	}
	return sum
}

// messages is what a source reads from: an input, or a file with the bytes of one.
type messages interface {
	// read copies messages to dst, from message i on, and returns how many.
	read(dst []byte, i int) (int, error)
}

// file is an input that has been written to disk, so that it is no part of the memory of who reads it.
type file struct {
	*os.File
	size int
	n    int
}

func openFile(name string, size int) (*file, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &file{File: f, size: size, n: int(info.Size()) / size}, nil
}

// read implements messages.
func (f *file) read(dst []byte, i int) (int, error) {
	n, err := f.ReadAt(dst, int64(i&(f.n-1)*f.size))
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	if err != nil {
		return 0, fmt.Errorf("input: %w", err)
	}
	return n / f.size, nil
}
