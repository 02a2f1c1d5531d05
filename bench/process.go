package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Whoever sends has a process of its own, and so has whoever receives: what one of them costs is then not counted for the other, and the
// memory measured is not that of what else the benchmarks keep. The program starts itself again for it, with a job.
//
//	bench ──starts──> receiver ── its address ──> bench ──starts──> sender
//	      <───────────────── what they have measured, as JSON ─────────────

// job is what a process of its own does. It goes there as JSON.
type job interface {
	// do does it. in ends when the process is not needed any more. What it writes to out is for whoever has started it: a receiver's
	// address, as a line, and what has been measured, as JSON.
	do(ctx context.Context, in io.Reader, out io.Writer) error
}

func jobs() []job {
	return []job{
		&blockedRun{}, &tcpSend{}, &tcpCount{}, &tcpPipeline{}, &idleSend{}, &idlePipeline{}, &httpSend{}, &httpCount{}, &httpPipeline{},
		&reloadPipeline{},
	}
}

// name is how a job is called on a command line.
func name(j job) string { return strings.TrimPrefix(fmt.Sprintf("%T", j), "*main.") }

// childJob does the job that another process has asked for: its name, a space, and JSON.
func childJob(ctx context.Context, text string, in io.Reader, out io.Writer) error {
	called, spec, _ := strings.Cut(text, " ")
	for _, j := range jobs() {
		if name(j) != called {
			continue
		}
		if err := json.Unmarshal([]byte(spec), j); err != nil {
			return fmt.Errorf("-child %s: %w", called, err)
		}
		return j.do(ctx, in, out)
	}
	return fmt.Errorf("-child: there is no job %q", called)
}

// process is one that does a job.
type process struct {
	job string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// launch starts a process for j. profile is a file for its CPU profile; empty for none.
func launch(ctx context.Context, j job, procs int, profile string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	args := []string{"-child", name(j) + " " + string(spec), "-procs", strconv.Itoa(procs)}
	if profile != "" {
		args = append(args, "-cpuprofile", profile)
	}
	p := &process{job: name(j), cmd: exec.CommandContext(ctx, self, args...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s in a process of its own: %w", p.job, err)
	}
	return p, nil
}

// result waits for the end of the process and reads what it has measured, if to is not nil.
func (p *process) result(to any) error {
	text, err := io.ReadAll(p.out)
	if err = errors.Join(err, p.cmd.Wait()); err != nil {
		return fmt.Errorf("%s in a process of its own: %w", p.job, err)
	}
	if to == nil {
		return nil
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s says %q: %w", p.job, text, err)
	}
	return nil
}

// alone runs a job in a process of its own, and reads what has become of it into j.
func alone(ctx context.Context, r *runner, j job) error {
	p, err := launch(ctx, j, r.procs, r.profile)
	if err != nil {
		return err
	}
	return p.result(j)
}

// converse runs a receiver, and a sender once the receiver's address is known, and reads what they have measured. The receiver is told
// when the sender is through, the sender when the receiver is.
func converse(ctx context.Context, r *runner, receiver job, sender func(address string) job, heard, sent any) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	to, err := launch(ctx, receiver, r.procs, r.profile)
	if err != nil {
		return err
	}
	address, err := to.out.ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("%s has no address: %w", to.job, err), to.result(nil))
	}
	from, err := launch(ctx, sender(strings.TrimSpace(address)), r.procs, "")
	if err != nil {
		cancel()
		return errors.Join(err, to.result(nil))
	}
	through := make(chan error, 1)
	go func() {
		err := from.result(sent)
		if err != nil {
			cancel()
		}
		_ = to.in.Close() // it may be gone
		through <- err
	}()
	err = to.result(heard)
	_ = from.in.Close() // it may be gone
	return errors.Join(err, <-through)
}

// ended is closed when in has ended.
func ended(in io.Reader) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // nothing is sent
		close(c)
	}()
	return c
}

// straggle is how long a receiver may take for what is under way when the sender is through.
const straggle = 30 * time.Second

// await waits for done. It gives up some time after senders are through.
func await(ctx context.Context, done, through <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-through:
	}
	late := time.NewTimer(straggle)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return fmt.Errorf("not all that was sent is settled %v after the last of it", straggle)
	}
}

// used is what a process has used.
type used struct {
	Took time.Duration
	CPU  time.Duration // of all threads, in the kernel too; 0 where the system does not tell
}

// meter measures what is used from start on.
type meter struct {
	began time.Time
	cpu   time.Duration
}

func (m *meter) start() { m.cpu, m.began = cpuTime(), time.Now() }

func (m *meter) used() used { return used{Took: time.Since(m.began), CPU: cpuTime() - m.cpu} }
