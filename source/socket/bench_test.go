//go:build linux && !race

package socket

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/source"
)

// sink is an Intake that settles all at once.
type sink struct {
	arena   *arena.Arena
	account *arena.Account
	src     *Source
	left    int
	done    chan struct{}
	batches int
}

func newSink(tb testing.TB, frames int) *sink {
	a, err := arena.New(arena.Config{Budget: 64 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	account, err := a.Account(arena.Sources, "bench", 0, 64<<20)
	if err != nil {
		tb.Fatal(err)
	}
	return &sink{arena: a, account: account, left: frames, done: make(chan struct{})}
}

func (s *sink) Account() *arena.Account { return s.account }
func (s *sink) NewBatch() *arena.Batch  { return s.arena.NewBatch() }

func (s *sink) Ready(ctx context.Context) error { return ctx.Err() }
func (s *sink) Assign(uint32) uint32            { return 0 }
func (s *sink) Revoke(uint32)                   {}
func (s *sink) Report(error)                    {}

func (s *sink) Env() source.Env {
	return source.Env{Name: "bench", Logger: quiet(), Clock: clock.System{}, MaxBytes: 1 << 20, MaxBatch: 256}
}

func (s *sink) Accept(b *arena.Batch) error {
	s.batches++
	s.left -= b.Len()
	s.src.Settle(source.Settlement{Receipts: b.Receipts})
	b.Free()
	if s.left == 0 {
		close(s.done)
	}
	return nil
}

func produce(b *testing.B, addr string, frames int) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "SOCKET_BENCH_ADDR="+addr, "SOCKET_BENCH_FRAMES="+strconv.Itoa(frames))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return cmd
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTCP compares our CPU time per frame with that of a loop that only reads and counts frames.
func BenchmarkTCP(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		cmd := produce(b, ln.Addr().String(), b.N)
		c, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		before := cpu()
		if n := countFrames(c); n != b.N {
			b.Errorf("%d frames of %d", n, b.N)
		}
		b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/frame")
		_ = cmd.Wait()
	})
	b.Run("source", func(b *testing.B) {
		addr := make(chan string, 1)
		s, err := New(Config{Network: "tcp", Address: "127.0.0.1:0", Framing: "u32", Listen: listening(addr)})
		if err != nil {
			b.Fatal(err)
		}
		in := newSink(b, b.N)
		in.src = s
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx, in) }()
		cmd := produce(b, <-addr, b.N)
		before := cpu()
		b.ReportAllocs()
		<-in.done
		b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/frame")
		b.ReportMetric(float64(b.N)/float64(in.batches), "frames/batch")
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		_ = s.Close(ctx)
		_ = cmd.Wait()
	})
}

func countFrames(c net.Conn) (n int) {
	buf, have := make([]byte, 256<<10), 0
	for {
		m, err := c.Read(buf[have:])
		have += m
		at := 0
		for have-at >= 4 {
			size := int(binary.BigEndian.Uint32(buf[at:])) + 4
			if have-at < size {
				break
			}
			at += size
			n++
		}
		have = copy(buf, buf[at:have])
		if err != nil {
			if err != io.EOF {
				panic(err)
			}
			return n
		}
	}
}
