package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/source/socket"
)

const (
	idleConnections = 10_000
	idleMost        = 16 << 10 // bytes that each may cost
	dialers         = 64
	steady          = 20 * time.Second // for memory to come to rest
)

// idleRun is a number of connections, each of which sends one message and is silent from then on.
type idleRun struct {
	Connections int
	Size        int // of a message
}

// idleSend opens them, and closes them when nobody needs them any more.
type idleSend struct {
	idleRun
	Address string
}

// do implements job.
func (s *idleSend) do(ctx context.Context, in io.Reader, _ io.Writer) error {
	messages := tcpRun{Bytes: powerOfTwo(s.Connections) * s.Size, Size: s.Size}
	data, size := messages.framed(), prefix+s.Size
	open, errs := make([]net.Conn, s.Connections), make([]error, dialers)
	var dialing sync.WaitGroup
	for j := range dialers {
		dialing.Go(func() {
			for i := j; i < len(open) && errs[j] == nil; i += dialers {
				var d net.Dialer
				if open[i], errs[j] = d.DialContext(ctx, "tcp", s.Address); errs[j] == nil {
					_, errs[j] = open[i].Write(data[i*size : (i+1)*size])
				}
			}
		})
	}
	dialing.Wait()
	err := errors.Join(errs...)
	if err == nil {
		<-ended(in)
	} else {
		err = fmt.Errorf("%w: %d connections take as many open files in each of two processes, see ulimit -n", err, s.Connections)
	}
	for _, c := range open {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// powerOfTwo is the least power of two that is not less than n.
func powerOfTwo(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// sampler is a plugin that counts and adds up, in whatever order messages come. Only one goroutine at a time uses it.
type sampler struct {
	count, sum uint64
}

// Handle implements penstock.Handler.
func (h *sampler) Handle(_ context.Context, m *penstock.Message) error {
	p := m.Payload()
	h.count++
	h.sum += binary.LittleEndian.Uint64(p) + binary.LittleEndian.Uint64(p[len(p)-tail:])
	return nil
}

// idleMemory is the memory of the process, or of each connection.
type idleMemory struct {
	PSS   int64 // in bytes; 0 where the system does not tell
	InUse int64 // heap and stacks, in bytes
}

// memoryInUse is the memory that the process has after all that can be given back has been.
func memoryInUse() (idleMemory, error) {
	debug.FreeOSMemory()
	n, err := pss(os.Getpid())
	if errors.Is(err, os.ErrNotExist) {
		n, err = 0, nil
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return idleMemory{PSS: n, InUse: int64(s.HeapInuse + s.StackInuse)}, err
}

// idlePipeline is a pipeline of one plugin that gets these messages.
type idlePipeline struct{ idleRun }

// do implements job.
func (p *idlePipeline) do(ctx context.Context, in io.Reader, out io.Writer) error {
	var before, after idleMemory
	open := func(ctx context.Context, network, address string) (ln net.Listener, err error) {
		if before, err = memoryInUse(); err != nil {
			return nil, err
		}
		return new(net.ListenConfig).Listen(ctx, network, address)
	}
	src, err := socket.New(socket.Config{Network: "tcp", Address: anyPort, Framing: "u32", Listen: told(open, out, func() {})})
	if err != nil {
		return err
	}
	h := &sampler{}
	s := &serving{
		from: newCounted(src, p.Connections),
		after: func() (err error) {
			if n := src.Connections(); n != p.Connections {
				return fmt.Errorf("there are %d connections instead of %d", n, p.Connections)
			}
			after, err = atRest(ctx)
			return err
		},
	}
	s.plan = penstock.Pipeline{
		Sources: []penstock.Source{{Name: "input", From: s.from}},
		Plugins: []penstock.Plugin{{Name: "sampler", From: []string{"input"}, New: func() (penstock.Handler, error) { return h, nil }}},
	}
	if _, err := s.run(ctx, in); err != nil {
		return err
	}
	want := uint64(p.Connections*(p.Connections-1)/2) + (&input{n: powerOfTwo(p.Connections)}).sumOf(p.Connections)
	if h.count != uint64(p.Connections) || h.sum != want {
		return fmt.Errorf("the plugin has seen %d messages instead of %d, or other bytes", h.count, p.Connections)
	}
	n := int64(p.Connections)
	return say(out, idleMemory{PSS: (after.PSS - before.PSS) / n, InUse: (after.InUse - before.InUse) / n})
}

// atRest is the memory in use once it does not become less any more.
func atRest(ctx context.Context) (idleMemory, error) {
	ctx, cancel := context.WithTimeout(ctx, steady)
	defer cancel()
	for was := (idleMemory{}); ; {
		is, err := memoryInUse()
		if err != nil {
			return is, err
		}
		if was.InUse > 0 && is.InUse >= was.InUse && is.PSS >= was.PSS-was.PSS/200 {
			return is, nil
		}
		was = is
		select {
		case <-time.After(sampleEvery):
		case <-ctx.Done():
			return is, fmt.Errorf("the memory does not come to rest: %w", ctx.Err())
		}
	}
}

// idle measures what a connection costs.
func idle(ctx context.Context, r *runner) ([]float64, error) {
	run := idleRun{Connections: idleConnections / r.scale, Size: 1024}
	if r.check {
		run.Connections = 50
	}
	var m idleMemory
	err := converse(ctx, r, &idlePipeline{run}, func(address string) job { return &idleSend{run, address} }, &m, nil)
	if err != nil {
		return nil, err
	}
	return []float64{float64(m.PSS), float64(m.InUse)}, nil
}

// idleBound is what it may cost.
func idleBound(context.Context, *runner) ([]float64, error) {
	return []float64{idleMost, idleMost}, nil
}

func idleFigures() []figure {
	return []figure{{
		name: "idle-connections", against: "16 KiB",
		what: "10,000 TCP connections that have each sent a message and are silent: memory for each; lower is better",
		rows: []row{
			{"idle-connections", "bytes, PSS", atMost(1)}, {"idle-connections-heap", "bytes of heap and stacks", atMost(1)},
		},
		ours: idle, reference: idleBound,
	}}
}
