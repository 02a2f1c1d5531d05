package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock"
)

const (
	blockedBudget = 256 << 20 // bytes
	blockedAbove  = 64 << 20  // bytes that the process may have beyond its budget
	blockedTime   = 30 * time.Second
	aloneTime     = 5 * time.Second // of the reference: its rate is steady
	sampleEvery   = 100 * time.Millisecond
)

// blockedRun says what one run does, and what came of it. It goes to a process of its own and back as JSON, so that the memory measured
// is of the pipeline and not of what else the benchmarks keep.
type blockedRun struct {
	Input   string        // file to read
	Size    int           // bytes of a message
	For     time.Duration // how long
	Blocked bool          // the first source sends, to a plugin that never returns; otherwise it is silent

	Rate      float64 // of the second plugin, deliveries/s
	PSS       int64   // the most, in bytes; 0 where the system does not tell
	Delivered uint64  // to the blocked plugin
}

// stuck is a plugin that does not return from its first message before it is let go.
type stuck struct {
	checker
	calls atomic.Uint64
	goOn  chan struct{}
}

// Handle implements penstock.Handler. It does not listen to its context, as bad plugins do.
func (s *stuck) Handle(_ context.Context, m *penstock.Message) error {
	s.calls.Add(1)
	<-s.goOn
	s.see(m.Payload())
	return nil
}

// make makes the run in this process.
func (r *blockedRun) make(ctx context.Context) error {
	in, err := openFile(r.Input, r.Size)
	if err != nil {
		return err
	}
	defer in.Close()
	stop := make(chan struct{})
	first, second := &feed{idle: true, stop: stop}, &feed{from: in, size: r.Size, batch: 64, stop: stop}
	if r.Blocked {
		first = &feed{from: in, size: r.Size, batch: 64, stop: stop}
	}
	bad := &stuck{checker: checker{mask: uint64(in.n - 1)}, goOn: make(chan struct{})}
	good := &lent{checker{mask: uint64(in.n - 1)}}
	rt, err := penstock.New(quiet(penstock.Pipeline{
		Memory:  blockedBudget,
		Sources: []penstock.Source{{Name: "first", From: first}, {Name: "second", From: second}},
		Plugins: []penstock.Plugin{
			{Name: "stuck", From: []string{"first"}, New: func() (penstock.Handler, error) { return bad, nil }},
			{Name: "free", From: []string{"second"}, New: func() (penstock.Handler, error) { return good, nil }},
		},
	}))
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		s   penstock.Summary
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		s, err := rt.Run(running)
		ended <- outcome{s, err}
	}()
	if r.PSS, err = watchMemory(running, r.For); err != nil {
		return err
	}
	close(stop)
	if r.Blocked && bad.calls.Load() != 1 {
		err = fmt.Errorf("the blocked plugin was called %d times instead of once", bad.calls.Load())
	}
	close(bad.goOn) // only now, to see that what it was owed comes after all
	o := <-ended
	if err := errors.Join(err, o.err, first.verify(), second.verify(), good.sees(second.sent), bad.sees(first.sent)); err != nil {
		return err
	}
	r.Rate, r.Delivered = rate(second.sent, second.lasted()), bad.count
	if r.Blocked && r.Delivered == 0 {
		return errors.New("the blocked plugin was given nothing")
	}
	return nil
}

// sees is verify without the sum, which takes long for an input that is not in memory.
func (c *checker) sees(n int) error {
	if c.count != uint64(n) || c.wrong > 0 {
		return fmt.Errorf("a handler has seen %d messages instead of %d, %d of them out of order", c.count, n, c.wrong)
	}
	return nil
}

// watchMemory waits for that long and returns the most memory that the process, and its children, had meanwhile.
func watchMemory(ctx context.Context, d time.Duration) (most int64, err error) {
	end, tick := time.NewTimer(d), time.NewTicker(sampleEvery)
	defer end.Stop()
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-end.C:
			pss, err := familyPSS()
			return max(most, pss), err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		pss, err := familyPSS()
		if err != nil {
			return 0, err
		}
		most = max(most, pss)
	}
}

// do implements job.
func (r *blockedRun) do(ctx context.Context, _ io.Reader, out io.Writer) error {
	if err := r.make(ctx); err != nil {
		return err
	}
	return say(out, r)
}

// blockedAt measures the second source's rate and, with it, the memory.
func blockedAt(blocked bool) measure {
	return func(ctx context.Context, r *runner) (values []float64, err error) {
		name, err := r.in.save()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.Remove(name)) }()
		run := &blockedRun{Input: name, Size: r.in.size, For: aloneTime, Blocked: blocked}
		if blocked {
			run.For = blockedTime
		}
		run.For /= time.Duration(r.scale)
		if r.check {
			run.For = 100 * time.Millisecond
			err = run.make(ctx)
		} else {
			err = alone(ctx, r, run)
		}
		if err != nil {
			return nil, err
		}
		memory := float64(blockedBudget+blockedAbove) / (1 << 20)
		if blocked {
			memory = float64(run.PSS) / (1 << 20)
		}
		return []float64{run.Rate, memory}, nil
	}
}

// save writes the input to a new file and returns its name.
func (in *input) save() (string, error) {
	f, err := os.CreateTemp("", "penstock-bench-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(in.data)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func blockedFigures() []figure {
	return []figure{{
		name: "blocked-plugin", what: "one plugin never returns, its source sends all it can; a second source and its plugin beside it",
		against: "the first source silent; budget + 64 MiB", size: 1024,
		rows: []row{{"blocked-plugin", perSecond, atLeast(0.9)}, {"blocked-plugin-memory", "MiB, PSS", atMost(1)}},
		ours: blockedAt(true), reference: blockedAt(false),
	}}
}
