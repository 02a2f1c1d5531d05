package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/penstock-dev/penstock"
)

var errBusy = errors.New("on purpose, now and then")

// ordered is a plugin that checks the order of each key by itself, across retries and holds. If it is told to, it asks for one message in
// so many again, and holds one in ten times as many.
type ordered struct {
	every int      // asks again for one message in so many; 0 for none
	turn  int      // which one of them, so that plugins do not all fail at the same message
	next  []uint32 // by key: the place of the message that must come
	later chan *penstock.Held

	first, retried, held int // first attempts, and what became of them
	count, wrong         int
	sum                  uint64
}

// Handle implements penstock.Handler.
func (h *ordered) Handle(_ context.Context, m *penstock.Message) error {
	p := m.Payload()
	key, place := binary.LittleEndian.Uint32(p[atKey:]), binary.LittleEndian.Uint32(p[atPlace:])
	if place != h.next[key] {
		h.wrong++
	}
	if h.every > 0 && m.Attempt() == 1 {
		h.first++
		if h.first%h.every == h.turn {
			h.retried++
			return penstock.Retry(errBusy, 0)
		}
		if h.first%(10*h.every) == h.every+h.turn+1 {
			held, err := m.Hold(time.Minute)
			if err != nil {
				return err
			}
			h.held++
			h.later <- held
		}
	}
	if place++; place == binary.LittleEndian.Uint32(p[atOfKey:]) {
		place = 0 // the input begins again
	}
	h.next[key] = place
	h.count++
	h.sum += binary.LittleEndian.Uint64(p[len(p)-tail:])
	return nil
}

// settle acknowledges what is held, from a goroutine of its own.
func (h *ordered) settle() (err error) {
	for held := range h.later {
		err = errors.Join(err, held.Ack())
	}
	return err
}

func (h *ordered) verify(in *input, n int) error {
	if h.count != n || h.wrong > 0 || h.sum != in.sumOf(n) {
		return fmt.Errorf("a plugin has been done with %d messages instead of %d, %d of them out of order; the last bytes of all are right: %v",
			h.count, n, h.wrong, h.sum == in.sumOf(n))
	}
	if h.every > 0 && (h.retried < n/h.every-1 || h.held < n/(10*h.every)-1) {
		return fmt.Errorf("of %d messages %d were retried and %d held: too few", n, h.retried, h.held)
	}
	return nil
}

// orderedAt measures deliveries/s of a number of plugins with order by key. Each retries one of every so many messages, and holds one of
// ten times as many; 0 for neither.
func orderedAt(plugins, every int) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		f := &feed{from: r.in, size: r.in.size, total: r.messages(runMessages / 4), batch: 64}
		handlers := make([]*ordered, plugins)
		p := penstock.Pipeline{Sources: []penstock.Source{{Name: "input", From: f, Key: func(payload []byte) []byte {
			return payload[atKey : atKey+4]
		}}}}
		for i := range handlers {
			h := &ordered{every: every, turn: 7 * i % 100, next: make([]uint32, keys), later: make(chan *penstock.Held, 1024)}
			handlers[i] = h
			p.Plugins = append(p.Plugins, penstock.Plugin{
				Name: fmt.Sprintf("plugin%d", i), From: []string{"input"}, ByKey: true, New: func() (penstock.Handler, error) { return h, nil },
				Retry: penstock.RetryPolicy{Backoff: time.Millisecond, Max: time.Millisecond},
			})
		}
		errs := make([]error, plugins)
		var settling sync.WaitGroup
		for i, h := range handlers {
			settling.Go(func() { errs[i] = h.settle() })
		}
		s, err := runPipeline(ctx, p, f)
		for _, h := range handlers {
			close(h.later)
		}
		settling.Wait()
		if err := errors.Join(append(errs, err)...); err != nil {
			return nil, err
		}
		retried := 0
		for _, h := range handlers {
			retried += h.retried
			if err := h.verify(r.in, f.total); err != nil {
				return nil, err
			}
		}
		if s.Retried != uint64(retried) {
			return nil, fmt.Errorf("the summary counts %d retries, the plugins %d", s.Retried, retried)
		}
		return []float64{rate(f.total*plugins, f.took())}, nil
	}
}

func exceptionFigures() []figure {
	const what = "order by key over 10,000 keys, 8 plugins, 1 KiB, batches of 64; "
	return []figure{
		{
			name: "exceptions", what: what + "1 % of all messages retried and 0.1 % held, by one or another of the plugins",
			against: "the same pipeline, clean", size: 1024,
			rows: []row{{"exceptions", perSecond, atLeast(0.5)}}, ours: orderedAt(8, 800), reference: orderedAt(8, 0),
		},
		{
			name: "exceptions-each", what: what + "1 % retried and 0.1 % held by each of the plugins: 8.8 % of all messages",
			against: "the same pipeline, clean", size: 1024,
			rows: []row{{"exceptions-each", perSecond, want{}}}, ours: orderedAt(8, 100), reference: orderedAt(8, 0),
		},
	}
}
