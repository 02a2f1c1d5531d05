// Package httpout is the sink that sends messages to a web address, in batches. Its kind is called http.
//
//	messages ──> request that is being filled ──full, or Flush──> worker ──POST──> endpoint
//	  done  <──────────────────────────────────────────────────────┘  2xx
//
// Write and Flush hand requests to workers and return; they wait while all workers are busy. A worker makes the messages of its request
// done: settled, to be tried again, or rejected. It does so when nobody reads them any more: bodies are read from lent memory.
package httpout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
)

// Sink sends to one URL. Its methods are called one at a time, as [sink.Sink] says; Status and Stats may be called at any time.
type Sink struct {
	cfg     Config
	shown   string // method and host, for errors
	hide    hider
	host    string // header Host; empty for the URL's
	header  http.Header
	clock   clock.Clock
	slog    *slog.Logger
	client  *http.Client
	breaker breaker

	ctx     context.Context // of requests
	cancel  context.CancelCauseFunc
	cur     *job // being filled; nil: none
	jobs    chan *job
	free    chan *job
	closing chan struct{} // closed by Close: nobody waits for the breaker any more
	workers sync.WaitGroup

	requests, failures, rejected, split, opened, held atomic.Uint64

	mu     sync.Mutex
	bad    *Error    // why the last request failed; nil if it did not
	since  time.Time // when bad came or went
	told   time.Time // when a failure was logged last
	fault  error     // the last failure of messages while the sink closes
	ending bool
}

// job is a request's messages.
type job struct {
	items []item
	bytes int
}

// Stats counts what has happened since Open.
type Stats struct {
	Requests uint64 // sent
	Failures uint64 // of those, without an answer, or with one that asks to try again
	Rejected uint64 // messages that the endpoint will not have
	Split    uint64 // requests sent again in halves
	Opened   uint64 // times that the breaker opened
	Held     uint64 // requests that waited because it was open
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Reporter = (*Sink)(nil)
)

// New makes a sink; it sends nothing before there are messages. It fails if cfg makes no sense.
func New(cfg Config) (*Sink, error) {
	problems := cfg.Check()
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = errors.New(p.Message)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("http sink: config: %w", err)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("http sink: config: url is no web address") // without err: that shows it
	}
	if cfg.Format == Single {
		cfg.Batch.Messages = 1
	}
	s := &Sink{
		cfg: cfg, shown: cfg.Method + " " + shownURL(u), hide: newHider(u, cfg.Token.Reveal(), cfg.Headers), header: http.Header{},
		closing: make(chan struct{}),
	}
	s.breaker.limit, s.breaker.openFor = cfg.Breaker.Failures, cfg.Breaker.OpenFor
	s.header.Set("Content-Type", map[Format]string{
		NDJSON: "application/x-ndjson", JSONArray: "application/json", Single: "application/octet-stream",
	}[cfg.Format])
	s.header.Set("User-Agent", "penstock")
	for name, value := range cfg.Headers {
		s.header.Set(name, value.Reveal())
	}
	s.host = s.header.Get("Host")
	s.header.Del("Host")
	if cfg.Compression == Gzip {
		s.header.Set("Content-Encoding", "gzip")
	}
	if cfg.Token != "" {
		s.header.Set("Authorization", "Bearer "+cfg.Token.Reveal())
	}
	return s, nil
}

// Open loads the certificates and starts the workers. It sends nothing: a pipeline starts while the endpoint is down.
func (s *Sink) Open(ctx context.Context, env sink.Env) error {
	s.mu.Lock()
	s.clock, s.slog = env.Clock, env.Logger
	if s.clock == nil {
		s.clock = clock.System{}
	}
	if s.slog == nil {
		s.slog = slog.New(slog.DiscardHandler)
	}
	s.slog = s.slog.With("sink", env.Name)
	s.since = s.clock.Now()
	s.mu.Unlock()
	certs, err := s.cfg.TLS.Config()
	if err != nil {
		return fmt.Errorf("http sink: %w", err)
	}
	s.client = &http.Client{CheckRedirect: redirect, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: certs, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: s.cfg.Concurrency, IdleConnTimeout: 90 * time.Second,
		MaxResponseHeaderBytes: maxAnswer, DisableCompression: true, // an answer is looked at, not unpacked
	}}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.jobs, s.free = make(chan *job), make(chan *job, s.cfg.Concurrency+1)
	for range s.cfg.Concurrency + 1 {
		s.free <- &job{}
	}
	for range s.cfg.Concurrency {
		w := &worker{Sink: s, answer: make([]byte, showBody+s.hide.longest)}
		s.workers.Go(w.work)
	}
	return nil
}

// Write puts the messages of b into requests, and hands those that are full to the workers. It returns nil: what fails is told message by
// message. When ctx ends while it waits for a worker, what has not been handed over fails.
func (s *Sink) Write(ctx context.Context, b *sink.Batch) error {
	for i := range b.Len() {
		p := b.Payload(i)
		fold, err := s.fits(p)
		if err != nil {
			s.rejected.Add(1)
			b.Done(i, i+1, plugin.Reject(&Error{URL: s.shown, Err: err}))
			continue
		}
		if s.cur != nil && len(s.cur.items) > 0 && s.cur.bytes+len(p) > int(s.cfg.Batch.Bytes) {
			err = s.dispatch(ctx)
		}
		if err == nil && s.cur == nil {
			s.cur, err = s.empty(ctx)
		}
		if err != nil {
			b.Done(i, b.Len(), err)
			return nil
		}
		s.cur.items = append(s.cur.items, item{b, i, fold})
		s.cur.bytes += len(p)
		if len(s.cur.items) < s.cfg.Batch.Messages {
			continue
		}
		if err := s.dispatch(ctx); err != nil {
			b.Done(i+1, b.Len(), err)
			return nil
		}
	}
	return nil
}

// fits says whether a payload can stand in the format, and whether its line ends must become spaces for that.
func (s *Sink) fits(p []byte) (fold bool, err error) {
	switch s.cfg.Format {
	case NDJSON:
		if bytes.IndexByte(p, '\n') < 0 {
			return false, nil
		}
		fold = true
	case Single:
		return false, nil
	}
	if !json.Valid(p) {
		return false, ErrNotJSON
	}
	return fold, nil
}

// empty is a request to fill.
func (s *Sink) empty(ctx context.Context) (*job, error) {
	select {
	case j := <-s.free:
		return j, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// dispatch hands the request that is being filled to a worker. When ctx ends before, its messages fail.
func (s *Sink) dispatch(ctx context.Context) error {
	j := s.cur
	if j == nil {
		return nil
	}
	s.cur = nil
	select {
	case s.jobs <- j:
		return nil
	case <-ctx.Done():
		err := context.Cause(ctx)
		s.fail(j.items, err)
		clear(j.items)
		j.items, j.bytes = j.items[:0], 0
		s.free <- j
		return err
	}
}

// Flush hands over what is waiting, and does not wait for its answers. It returns nil: what fails is told message by message.
func (s *Sink) Flush(ctx context.Context) error {
	_ = s.dispatch(ctx) // its messages have heard of it
	return nil
}

// Close hands over what is waiting, and waits for all answers; when ctx ends, it gives up the requests that are under way. It fails if
// messages failed meanwhile. Those that wait for the breaker are given back at once, for another sink or a later run; that is no failure.
func (s *Sink) Close(ctx context.Context) error {
	if s.jobs == nil {
		return nil
	}
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	close(s.closing)
	_ = s.dispatch(ctx) // its messages have heard of it, and fault has
	close(s.jobs)
	s.jobs = nil
	stop := context.AfterFunc(ctx, func() { s.cancel(ErrClosed) })
	s.workers.Wait()
	stop()
	s.cancel(nil)
	s.client.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// Stats is what has been counted so far.
func (s *Sink) Stats() Stats {
	return Stats{
		Requests: s.requests.Load(), Failures: s.failures.Load(), Rejected: s.rejected.Load(),
		Split: s.split.Load(), Opened: s.opened.Load(), Held: s.held.Load(),
	}
}

// Status is "ok"; "retrying" after a request that failed; "open" while the breaker lets nothing through, "half-open" while it lets one
// request try.
func (s *Sink) Status() sink.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := sink.Status{State: "ok", Since: s.since, Failures: s.failures.Load()}
	if s.bad != nil {
		st.State, st.Detail = "retrying", s.bad.text()
	}
	if s.clock != nil {
		if b := s.breaker.state(s.clock.Now()); b != "closed" {
			st.State = b
		}
	}
	return st
}

// fail makes messages fail.
func (s *Sink) fail(items []item, err error) {
	s.mu.Lock()
	if s.ending {
		s.fault = err
	}
	s.mu.Unlock()
	finish(items, err)
}

// worked hears that the endpoint has answered as one that works.
func (s *Sink) worked() {
	closed := s.breaker.success()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad == nil {
		return
	}
	s.bad, s.since, s.told = nil, s.clock.Now(), time.Time{}
	if closed {
		s.slog.Info("the breaker is closed, the endpoint answers again", "request", s.shown)
	} else {
		s.slog.Info("the endpoint answers again", "request", s.shown)
	}
}

const (
	tellEvery     = 10 * time.Second // how often failures are logged
	tellOpenEvery = time.Minute      // how often, while the breaker is open
)

// failed hears of a request that is to be tried again.
func (s *Sink) failed(err *Error, after time.Duration) {
	now := s.clock.Now()
	s.failures.Add(1)
	was, open := s.breaker.failure(now, after)
	s.mu.Lock()
	defer s.mu.Unlock()
	opened := open && !was
	if s.bad == nil || opened {
		s.since = now
	}
	s.bad = err
	quiet := tellEvery
	if open {
		quiet = tellOpenEvery
	}
	if opened {
		s.opened.Add(1)
	} else if !s.told.IsZero() && now.Sub(s.told) < quiet {
		return
	}
	s.told = now
	switch {
	case opened:
		s.slog.Warn("the breaker is open; nothing is sent before one request may try again",
			"error", err.text(), "for", max(s.cfg.Breaker.OpenFor, after))
	case open:
		s.slog.Warn("the breaker is still open; one request tries now and then", "error", err.text())
	default:
		s.slog.Warn("a request failed; its messages are tried again", "error", err.text())
	}
}
