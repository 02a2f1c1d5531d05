package actor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/sink"
)

// FlushPolicy says when a sink is asked to write out what it has: at the first of these, and always when nothing more is waiting for it,
// so that no sink waits for a count that cannot come.
type FlushPolicy struct {
	Messages int
	Bytes    int64
	Every    time.Duration
}

// SinkConfig is what a Sink is made from.
type SinkConfig struct {
	Name   string
	Sink   sink.Sink
	Flush  FlushPolicy
	Places int // credit of all loops together
	Spare  int // for loops that come later
	Clock  clock.Clock
	Env    sink.Env
	Logger *slog.Logger
}

// Sink drives one sink: an actor whose messages are done with range by range, possibly later. Its methods may be called concurrently.
type Sink struct {
	cfg     SinkConfig
	mailbox chan loop.Delivery
	control chan func()   // what is to be done between two deliveries
	due     chan struct{} // the oldest unflushed message has waited for Every
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu          sync.Mutex
	open        map[*lent]struct{}
	lanes       []*loop.Lane
	swap        *sinkSwap
	pauses      uint64
	serves      sink.Sink       // changed under mu
	calls       context.Context // of calls of serves; ends with ctx, and when serves is replaced
	cancelCalls context.CancelCauseFunc

	messages int // since the last flush
	bytes    int64
	timer    clock.Timer
	told     time.Time // when a failure was logged last
	failures atomic.Uint64
	every    atomic.Int64 // cfg.Flush.Every, which may be changed
}

// lent is a delivery that a sink is at. Its fields are guarded by its batch's lock.
type lent struct {
	s      *Sink
	d      loop.Delivery
	batch  *sink.Batch
	left   int
	report []loop.Exception
	step   arena.Step // of a batch that is followed; else nil
}

// NewSink makes a Sink; it does nothing before Start.
func NewSink(cfg SinkConfig) *Sink {
	s := &Sink{
		cfg: cfg, mailbox: make(chan loop.Delivery, cfg.Places+cfg.Spare), due: make(chan struct{}, 1), open: map[*lent]struct{}{},
		control: make(chan func()), serves: cfg.Sink,
	}
	s.FlushEvery(cfg.Flush.Every)
	return s
}

// FlushEvery changes the longest that a message waits to be written out.
func (s *Sink) FlushEvery(d time.Duration) { s.every.Store(int64(d)) }

// Mailbox is where loops put deliveries, as far as they have credit.
func (s *Sink) Mailbox() chan<- loop.Delivery { return s.mailbox }

// Start opens the sink and serves it until Stop.
func (s *Sink) Start(ctx context.Context) error {
	if err := s.opened(ctx, s.serves, s.cfg.Env); err != nil {
		return err
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.renewCalls()
	s.done.Go(s.serve)
	return nil
}

func (s *Sink) opened(ctx context.Context, to sink.Sink, env sink.Env) error {
	if err := guard(func() error { return to.Open(ctx, env) }); err != nil {
		return fmt.Errorf("sink %q: %w", s.cfg.Name, err)
	}
	return nil
}

// Stop flushes and closes the sink. What is in the mailbox is returned to the loops.
func (s *Sink) Stop(ctx context.Context) error {
	if s.cancel == nil {
		return nil
	}
	s.cancel()
	finished := make(chan struct{})
	go func() {
		s.done.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		return fmt.Errorf("sink %q: Write or Flush has not returned: %w", s.cfg.Name, context.Cause(ctx))
	}
	s.flush(ctx)
	err := guard(func() error { return s.serves.Close(ctx) })
	s.failOpen(ErrStopped)
	for {
		select {
		case d := <-s.mailbox:
			s.take(d).fail(ErrStopped)
			continue
		default:
		}
		break
	}
	if err != nil {
		return fmt.Errorf("sink %q: close: %w", s.cfg.Name, err)
	}
	return nil
}

// Failures counts calls of Write and Flush that have failed.
func (s *Sink) Failures() uint64 { return s.failures.Load() }

func (s *Sink) serve() {
	for {
		select {
		case d := <-s.mailbox:
			s.write(d)
			if len(s.mailbox) == 0 || s.full() || s.waited() {
				s.flush(s.callContext())
			}
		case <-s.due:
			s.flush(s.callContext())
		case f := <-s.control:
			f()
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Sink) full() bool {
	p := &s.cfg.Flush
	return p.Messages > 0 && s.messages >= p.Messages || p.Bytes > 0 && s.bytes >= p.Bytes
}

// waited says whether a message has waited for as long as it may: the mailbox that never runs dry must not hide it.
func (s *Sink) waited() bool {
	select {
	case <-s.due:
		return true
	default:
		return false
	}
}

// write lends a delivery to the sink.
func (s *Sink) write(d loop.Delivery) {
	if d.Batch == nil { // word to let keys go: a sink keeps none back
		if d.Special != nil {
			d.Lane.Post(loop.Resumed, &loop.Detail{Keys: d.Special.Resume})
		}
		d.Lane.Done(&d)
		return
	}
	l := s.take(d)
	s.messages += l.batch.Len()
	s.bytes += d.Bytes
	if every := time.Duration(s.every.Load()); every > 0 && s.timer == nil {
		s.timer = s.cfg.Clock.AfterFunc(every, func() {
			select {
			case s.due <- struct{}{}:
			default:
			}
		})
	}
	if err := guard(func() error { return s.serves.Write(s.callContext(), l.batch) }); err != nil {
		s.failed("write", err)
		l.fail(err)
	}
}

func (s *Sink) take(d loop.Delivery) *lent {
	l := &lent{s: s, d: d, left: d.Len()}
	var pick []uint32
	if d.Special != nil {
		pick = d.Special.Pick
	}
	s.mu.Lock()
	s.open[l] = struct{}{}
	s.mu.Unlock()
	if t := d.Batch.Trail; t != nil {
		l.step = t.Enter(s.cfg.Name, arena.RoleSink, l.left)
	}
	l.batch = sink.NewBatch(d.Batch, pick, d.Lane.Stream(d.Stream), l.settled)
	return l
}

// flush asks the sink to write out what it has.
func (s *Sink) flush(ctx context.Context) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.messages, s.bytes = 0, 0
	if err := guard(func() error { return s.serves.Flush(ctx) }); err != nil {
		s.failed("flush", err)
		s.failOpen(err)
	}
}

func (s *Sink) failed(what string, err error) {
	n, now := s.failures.Add(1), s.cfg.Clock.Now()
	if s.told.IsZero() || now.Sub(s.told) >= tellEvery {
		s.told = now
		s.cfg.Logger.Warn("sink failed; its messages are tried again", "sink", s.cfg.Name, "in", what, "error", err, "failures", n)
	}
}

// tellEvery is how often a sink that keeps failing is logged: one that is down would fill the log with its retries.
const tellEvery = 10 * time.Second

// failOpen fails every message that is not done.
func (s *Sink) failOpen(err error) {
	s.mu.Lock()
	open := make([]*lent, 0, len(s.open))
	for l := range s.open {
		open = append(open, l)
	}
	s.mu.Unlock()
	for _, l := range open {
		l.fail(err)
	}
}

// fail fails what is not done of one delivery.
func (l *lent) fail(err error) { l.batch.Fail(err) }

// settled hears that message i of the batch is done. It is called under the batch's lock.
func (l *lent) settled(_ *sink.Batch, i int, err error) {
	if err != nil {
		index := uint32(i)
		if p := l.d.Special; p != nil && p.Pick != nil {
			index = p.Pick[i]
		}
		l.report = append(l.report, exceptionOf(index, err))
	}
	if l.left--; l.left > 0 {
		return
	}
	l.s.mu.Lock()
	delete(l.s.open, l)
	l.s.mu.Unlock()
	if l.step != nil {
		l.step.Leave(len(l.report))
	}
	var detail *loop.Detail
	if len(l.report) > 0 {
		detail = &loop.Detail{Exceptions: l.report}
	}
	giveBack(&l.d, detail)
	l.d.Lane.Done(&l.d)
}
