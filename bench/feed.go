package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/source"
)

// feed is the source of the benchmarks. It copies runs of payloads from an input into slabs that it leases, as a read would, and counts
// what is settled. Batches share a slab, one behind the other, as small reads do.
type feed struct {
	from  messages
	size  int             // bytes of a message
	total int             // messages; 0 for as many as can be until stop is closed
	batch int             // messages in a batch
	stop  <-chan struct{} // may be nil
	warm  func()          // called after a quarter of total; may be nil
	last  func()          // called when all has been sent, before Run returns; may be nil
	pace  chan struct{}   // a token for each batch that may be sent, given as those before settle; nil for full speed
	idle  bool            // send nothing until stop is closed
	heard func(n int)     // called for each settlement; may be nil

	sent    int
	slab    *arena.Slab
	off     int
	began   time.Time
	read    time.Time // Run returned
	ended   time.Time // the last settlement
	settled int
	cursor  uint64
	odd     error // a settlement that should not be
}

var _ source.Source = (*feed)(nil)

// Run implements source.Source.
func (f *feed) Run(ctx context.Context, in source.Intake) error {
	f.began = time.Now()
	err := f.send(ctx, in)
	f.read = time.Now()
	if f.slab != nil {
		f.slab.Release()
		f.slab = nil
	}
	if f.last != nil {
		f.last()
	}
	return err
}

func (f *feed) send(ctx context.Context, in source.Intake) error {
	if f.idle {
		select {
		case <-f.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for f.total == 0 || f.sent < f.total {
		select {
		case <-f.stop:
			return nil
		default:
		}
		if f.pace != nil {
			<-f.pace
		}
		if err := in.Ready(ctx); err != nil {
			return err
		}
		n := f.batch
		if f.total > 0 {
			n = min(n, f.total-f.sent)
		}
		if err := f.room(ctx, in.Account(), n*f.size); err != nil {
			return err
		}
		if err := f.give(in, n); err != nil {
			return err
		}
	}
	return nil
}

// room sees to it that the slab has room for n more bytes.
func (f *feed) room(ctx context.Context, memory *arena.Account, n int) error {
	if f.slab != nil {
		if len(f.slab.Bytes())-f.off >= n {
			return nil
		}
		f.slab.Release()
		f.slab = nil
	}
	for {
		slab, err := memory.Lease()
		if err == nil {
			f.slab, f.off = slab, 0
			return nil
		}
		if !errors.Is(err, arena.ErrBudget) {
			return err
		}
		if err := memory.Wait(ctx); err != nil {
			return err
		}
	}
}

// give reads up to n messages and hands them over.
func (f *feed) give(in source.Intake, n int) error {
	n, err := f.from.read(f.slab.Bytes()[f.off:f.off+n*f.size], f.sent)
	if err != nil {
		return err
	}
	b := in.NewBatch()
	f.slab.Retain()
	b.Slab = f.slab
	frames, receipts := slices.Grow(b.Frames, n)[:n], slices.Grow(b.Receipts, n)[:n]
	for i := range n {
		frames[i] = arena.Frame{Off: uint32(f.off + i*f.size), Len: uint32(f.size)}
		receipts[i] = uint64(f.sent + i + 1)
	}
	b.Frames, b.Receipts = frames, receipts
	f.off += n * f.size
	before := f.sent
	f.sent += n
	if f.warm != nil && before < f.total/4 && f.sent >= f.total/4 {
		f.warm()
	}
	return in.Accept(b)
}

// Settle implements source.Source.
func (f *feed) Settle(s source.Settlement) {
	if s.Outcome != source.Settled && f.odd == nil {
		f.odd = fmt.Errorf("%d messages were returned", len(s.Receipts))
	}
	if s.HasCursor {
		if s.Cursor < f.cursor && f.odd == nil {
			f.odd = fmt.Errorf("the cursor went back from %d to %d", f.cursor, s.Cursor)
		}
		f.cursor = s.Cursor
	}
	f.settled += len(s.Receipts)
	if f.settled == f.total {
		f.ended = time.Now()
	}
	if f.heard != nil {
		f.heard(len(s.Receipts))
	}
}

// Close implements source.Source.
func (f *feed) Close(context.Context) error { return nil }

// verify says whether all that was sent was settled.
func (f *feed) verify() error {
	if f.odd != nil {
		return f.odd
	}
	if f.settled != f.sent || f.cursor != uint64(f.sent) || f.total > 0 && f.sent != f.total {
		return fmt.Errorf("of %d messages to send %d were sent, %d settled, and the cursor is at %d", f.total, f.sent, f.settled, f.cursor)
	}
	return nil
}

// took is the time from the first read to the last settlement.
func (f *feed) took() time.Duration { return f.ended.Sub(f.began) }

// lasted is the time for which it has sent.
func (f *feed) lasted() time.Duration { return f.read.Sub(f.began) }

// lents makes n plugins, each with a handler that checks.
func lents(in *input, n int) ([]*lent, []penstock.Plugin) {
	handlers, plugins := make([]*lent, n), make([]penstock.Plugin, n)
	for i := range handlers {
		h := &lent{newChecker(in)}
		handlers[i] = h
		plugins[i] = penstock.Plugin{
			Name: fmt.Sprintf("plugin%d", i), From: []string{"input"}, New: func() (penstock.Handler, error) { return h, nil },
		}
	}
	return handlers, plugins
}

// quiet is a pipeline that logs nothing and keeps nothing.
func quiet(p penstock.Pipeline) penstock.Pipeline {
	p.Logger = slog.New(slog.DiscardHandler)
	p.Data = os.DevNull // nothing is to be written: whoever tries fails
	return p
}

// runPipeline runs p to its end, and checks that every plugin was given every message of the feed.
func runPipeline(ctx context.Context, p penstock.Pipeline, f *feed) (penstock.Summary, error) {
	rt, err := penstock.New(quiet(p))
	if err != nil {
		return penstock.Summary{}, err
	}
	s, err := rt.Run(ctx)
	if err == nil {
		err = f.verify()
	}
	if err == nil && (s.Accepted != uint64(f.sent) || s.Settled != s.Accepted || s.Dead+s.Dropped+s.Returned > 0) {
		err = fmt.Errorf("the summary says %+v", s)
	}
	return s, err
}

// fanOut runs the feed into n plugins that check, and returns the feed.
func fanOut(ctx context.Context, in *input, f *feed, n int) error {
	handlers, plugins := lents(in, n)
	f.from, f.size = in, in.size
	_, err := runPipeline(ctx, penstock.Pipeline{Sources: []penstock.Source{{Name: "input", From: f}}, Plugins: plugins}, f)
	if err != nil {
		return err
	}
	for _, h := range handlers {
		if err := h.verify(in, f.total); err != nil {
			return err
		}
	}
	return nil
}
