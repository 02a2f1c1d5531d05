package sinktest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/sink"
)

var errFull = errors.New("store is full")

// store is a destination in memory.
type store struct {
	mu   sync.Mutex
	msgs []Message
	room int // bytes; negative: no end
}

func (st *store) add(m Message) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.room >= 0 {
		if len(m.Payload) > st.room || st.room == 0 {
			return errFull
		}
		st.room -= len(m.Payload)
	}
	st.msgs = append(st.msgs, m)
	return nil
}

func (st *store) read() ([]Message, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.Clone(st.msgs), nil
}

func (st *store) setRoom(n int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.room = n
}

// memSink writes to a store. With batches of more than hold messages waiting, or by Flush, it writes them out. bug breaks one promise.
type memSink struct {
	st      *store
	bug     string
	hold    int
	waiting []memSpan
	stuck   bool
	kept    []Message
}

type memSpan struct {
	b *sink.Batch
	i int
}

var _ sink.Sink = (*memSink)(nil)

func (s *memSink) Open(context.Context, sink.Env) error { return nil }

func (s *memSink) Write(_ context.Context, b *sink.Batch) error {
	if s.bug == "stays broken" && s.stuck {
		return errFull
	}
	for i := range b.Len() {
		switch s.bug {
		case "done before it arrives":
			s.kept = append(s.kept, owned(b, i))
			b.Done(i, i+1, nil)
			continue
		case "keeps lent bytes":
			s.kept = append(s.kept, Message{Payload: b.Payload(i)})
			b.Done(i, i+1, nil)
			continue
		case "writes to lent bytes":
			if p := b.Payload(i); len(p) > 2 {
				p[len(p)-1] ^= 1
			}
		}
		s.waiting = append(s.waiting, memSpan{b, i})
	}
	if len(s.waiting) >= s.hold {
		return s.Flush(context.Background())
	}
	return nil
}

func owned(b *sink.Batch, i int) Message {
	m := Message{Payload: bytes.Clone(b.Payload(i)), Key: bytes.Clone(b.Key(i))}
	for n, v, rest, ok := arena.NextHeader(b.Headers(i)); ok; n, v, rest, ok = arena.NextHeader(rest) {
		m.Headers = append(m.Headers, Header{string(n), bytes.Clone(v)})
	}
	return m
}

// spoil gives m the fault of bugs that change what arrives.
func (s *memSink) spoil(m Message) (as []Message) {
	switch s.bug {
	case "loses one":
		if bytes.HasPrefix(m.Payload, []byte("000007")) {
			return nil
		}
	case "repeats one":
		if bytes.HasPrefix(m.Payload, []byte("000007")) {
			return []Message{m, m}
		}
	case "skips empty":
		if len(m.Payload) == 0 {
			return nil
		}
	case "cuts large":
		m.Payload = m.Payload[:min(len(m.Payload), 1<<16)]
	case "cuts at NUL":
		m.Payload, _, _ = bytes.Cut(m.Payload, []byte{0})
	case "forgets keys":
		m.Key = nil
	case "forgets second header":
		m.Headers = m.Headers[:min(len(m.Headers), 1)]
	}
	return []Message{m}
}

func (s *memSink) Flush(context.Context) error {
	for _, m := range s.kept {
		if err := s.st.add(m); err != nil {
			return err
		}
	}
	s.kept = nil
	w := s.waiting
	s.waiting = nil
	if s.bug == "flush of nothing fails" && len(w) == 0 {
		return errors.New("nothing to flush")
	}
	if s.bug == "reorders" {
		slices.Reverse(w)
	}
	for k, m := range w {
		for _, out := range s.spoil(owned(m.b, m.i)) {
			if err := s.st.add(out); err != nil {
				return s.failed(w, k, err)
			}
		}
		if s.bug == "never done" && k == 3 {
			continue
		}
		m.b.Done(m.i, m.i+1, nil)
		if s.bug == "done twice" {
			m.b.Done(m.i, m.i+1, nil)
		}
	}
	return nil
}

// failed settles w from k on.
func (s *memSink) failed(w []memSpan, k int, err error) error {
	s.stuck = true
	switch s.bug {
	case "says done to what failed":
		for _, m := range w[k:] {
			m.b.Done(m.i, m.i+1, nil)
		}
		return err
	case "fails in silence":
		for _, m := range w[k:] {
			m.b.Done(m.i, m.i+1, nil)
		}
		return nil
	case "leaves a torn message":
		s.st.mu.Lock()
		s.st.msgs = append(s.st.msgs, Message{Payload: []byte("00")})
		s.st.mu.Unlock()
	case "fails what has arrived":
		m := owned(w[k].b, w[k].i)
		s.st.mu.Lock()
		s.st.msgs = append(s.st.msgs, m)
		s.st.mu.Unlock()
	case "writes failed ones later":
		s.waiting = append(s.waiting, w[k:]...)
		return err
	}
	for _, m := range w[k:] {
		m.b.Done(m.i, m.i+1, err)
	}
	return err
}

func (s *memSink) Close(ctx context.Context) error {
	switch s.bug {
	case "close drops what is waiting":
		for _, m := range s.waiting {
			m.b.Done(m.i, m.i+1, nil)
		}
		return nil
	case "close forgets what is waiting":
		return nil
	case "close fails nobody":
		if err := s.Flush(ctx); err != nil {
			return nil
		}
	}
	return s.Flush(ctx)
}
