package deadletter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// Read goes through the letters of a file, oldest first. Each letter belongs to the caller. A line that holds no letter is an error, a
// [LineError], and reading goes on behind it; if the file ends within a line the last error is [ErrTorn]. An error of the file system
// ends the reading. The file may be in use: letters put meanwhile may or may not be seen.
func Read(path string) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Letter{}, fmt.Errorf("dead letters: %w", err))
			return
		}
		defer f.Close()
		for l, err := range read(f, MaxLine) {
			if !yield(l, err) {
				return
			}
		}
	}
}

// read takes no more memory than limit and what one letter is in memory, whatever r holds.
func read(r io.Reader, limit int) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		lines := lineReader{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
		for {
			p, at, err := lines.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var l Letter
			if err == nil {
				l, err = parseLine(p)
			}
			if err != nil && !lines.broken {
				err = &LineError{Line: lines.n, Offset: at, Err: err}
			}
			if !yield(l, err) || lines.broken {
				return
			}
		}
	}
}

// lineReader cuts a stream at newlines.
type lineReader struct {
	r      *bufio.Reader
	limit  int
	long   []byte // gathers a line that is longer than the reader's buffer
	n      int    // number of the last line
	off    int64  // where the next begins
	broken bool   // the reader failed
}

// next is the next line without its newline, valid until the next call, and its offset. A line beyond the limit is skipped and is
// [ErrTooLarge]; the end of the stream within a line is [ErrTorn], then io.EOF.
func (lr *lineReader) next() (p []byte, at int64, err error) {
	at = lr.off
	lr.long = lr.long[:0]
	size := 0
	for {
		part, err := lr.r.ReadSlice('\n')
		size += len(part)
		lr.off += int64(len(part))
		whole := err == nil
		if !whole && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, at, lr.end(size, err)
		}
		switch {
		case size > lr.limit:
			lr.long = lr.long[:0]
		case whole && len(lr.long) == 0:
			lr.n++
			return part[:len(part)-1], at, nil
		default:
			lr.long = append(lr.long, part...)
		}
		if whole {
			lr.n++
			if size > lr.limit {
				return nil, at, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, lr.limit)
			}
			return lr.long[:size-1], at, nil
		}
	}
}

// end judges the end of the stream, size bytes into a line.
func (lr *lineReader) end(size int, err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		lr.broken = true
		return fmt.Errorf("dead letters: %w", err)
	case size == 0:
		return io.EOF
	default:
		lr.n++
		return ErrTorn
	}
}
