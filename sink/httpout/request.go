package httpout

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/plugin"
)

const (
	maxAnswer = 64 << 10 // bytes of an answer that are read, so that its connection can be used again
	showBody  = 200      // bytes of it that an error shows
	maxTrace  = 256      // bytes of a traceparent
	maxHops   = 3        // redirects that are followed
	keyBytes  = 16
)

// worker sends one request at a time. Its buffers are used again.
type worker struct {
	*Sink
	packed bytes.Buffer
	zip    *gzip.Writer
	hash   hash.Hash
	answer []byte
}

func (w *worker) work() {
	for j := range w.jobs {
		w.send(j.items)
		clear(j.items) // let go of the batches
		j.items, j.bytes = j.items[:0], 0
		w.free <- j
	}
}

// send makes the messages of items done, one way or another.
func (w *worker) send(items []item) {
	if !w.hold() {
		finish(items, plugin.Retry(&Error{URL: w.shown, Err: ErrOpen}, 0)) // not w.fail: what was not tried is no failure of Close
		return
	}
	after, c, err := w.request(items)
	switch {
	case err == nil:
		w.worked()
		finish(items, nil)
	case (c == tooLarge || c == mixed) && len(items) > 1:
		w.worked()
		w.split.Add(1)
		w.send(items[:len(items)/2])
		w.send(items[len(items)/2:])
	case c == tooLarge, c == mixed, c == refused:
		w.worked()
		w.rejected.Add(uint64(len(items)))
		w.fail(items, plugin.Reject(err))
	case errors.Is(err, ErrClosed):
		w.breaker.abandon()
		w.fail(items, err)
	default:
		w.failed(err, after)
		w.fail(items, plugin.Retry(err, after))
	}
}

// hold waits until the breaker lets a request through: a message that waits here has no attempt that counts. It reports false if the sink
// is closed before.
func (w *worker) hold() bool {
	for first := true; ; first = false {
		wait, ok := w.breaker.allow(w.clock.Now())
		if ok {
			return true
		}
		if first {
			w.held.Add(1)
		}
		over := make(chan struct{})
		timer := w.clock.AfterFunc(wait, func() { close(over) })
		select {
		case <-over:
		case <-w.closing:
			timer.Stop()
			return false
		}
	}
}

// request sends items and reads the answer. When it has returned, nobody reads the messages any more.
func (w *worker) request(items []item) (after time.Duration, c class, failed *Error) {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	timer := w.clock.AfterFunc(w.cfg.Timeout, func() { cancel(ErrTimeout) })
	defer timer.Stop()
	l := newLent(items, w.cfg.Format)
	defer l.release()
	req, err := w.prepare(ctx, l)
	if err != nil {
		return 0, endpoint, &Error{URL: w.shown, Err: w.hide.error(err)}
	}
	w.requests.Add(1)
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, endpoint, w.noAnswer(ctx, err)
	}
	n, _ := io.ReadFull(resp.Body, w.answer) // an answer that breaks off is an answer: its status counts
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer-int64(n))
	_ = resp.Body.Close() // of what was read only
	c, hint := classify(resp.StatusCode)
	if c == accepted {
		return 0, c, nil
	}
	if v, ok := retryAfter(resp.Header.Get("Retry-After"), w.clock.Now()); ok && c == later {
		after = v
	}
	return after, c, &Error{URL: w.shown, Status: resp.StatusCode, Body: w.excerpt(n), Hint: hint}
}

// excerpt is what an error shows of the first n bytes of an answer, which may repeat the request.
func (w *worker) excerpt(n int) string {
	text := w.hide.text(string(w.answer[:n]))
	return text[:min(len(text), showBody)]
}

func (w *worker) noAnswer(ctx context.Context, err error) *Error {
	e := &Error{URL: w.shown, Err: err}
	if inner, ok := errors.AsType[*url.Error](err); ok {
		e.Err = inner.Err // the address is in e
	}
	e.Err = w.hide.error(e.Err)
	switch cause := context.Cause(ctx); {
	case cause != nil:
		e.Err = cause
	case errors.Is(err, ErrRedirect):
		e.Hint = "if that is the right place, set url to it; messages are not sent where the file does not say"
	}
	return e
}

// prepare makes a request.
func (w *worker) prepare(ctx context.Context, l *lent) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, w.cfg.Method, w.cfg.URL, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header = w.header.Clone()
	req.Host = w.host
	if w.cfg.IdempotencyKey {
		req.Header.Set("Idempotency-Key", w.key(l.items))
	}
	first := &l.items[0]
	if t := first.batch.Header(first.i, "traceparent"); len(t) > 0 && len(t) <= maxTrace && validValue(t) {
		req.Header.Set("Traceparent", string(t))
	}
	if w.cfg.Compression == Gzip {
		if err := w.pack(l); err != nil {
			return nil, err
		}
	}
	if req.ContentLength = l.size(); req.ContentLength > 0 {
		req.Body = &body{l: l}
		req.GetBody = func() (io.ReadCloser, error) { return &body{l: l}, nil }
	}
	return req, nil
}

// pack compresses the body.
func (w *worker) pack(l *lent) error {
	w.packed.Reset()
	if w.zip == nil {
		w.zip = gzip.NewWriter(&w.packed)
	} else {
		w.zip.Reset(&w.packed)
	}
	_, err := io.Copy(w.zip, &body{l: l})
	if err = errors.Join(err, w.zip.Close()); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	l.packed = w.packed.Bytes()
	return nil
}

// key is a hash over what the messages are: payloads, keys, and headers but those of traces, which differ from one delivery to the next.
func (w *worker) key(items []item) string {
	if w.hash == nil {
		w.hash = sha256.New()
	}
	w.hash.Reset()
	var scratch [8]byte
	add := func(p []byte) {
		binary.BigEndian.PutUint64(scratch[:], uint64(len(p)))
		w.hash.Write(scratch[:])
		w.hash.Write(p)
	}
	for k := range items {
		b, i := items[k].batch, items[k].i
		add(b.Payload(i))
		add(b.Key(i))
		for n, v, rest, ok := arena.NextHeader(b.Headers(i)); ok; n, v, rest, ok = arena.NextHeader(rest) {
			if string(n) != "traceparent" && string(n) != "tracestate" {
				add(n)
				add(v)
			}
		}
		w.hash.Write([]byte{1}) // the message ends
	}
	var sum [sha256.Size]byte
	return hex.EncodeToString(w.hash.Sum(sum[:0])[:keyBytes])
}

// redirect allows a redirect that sends the same request to the same host.
func redirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case req.Method != first.Method:
		return fmt.Errorf("%w: to %s, by a %s without the messages", ErrRedirect, shownURL(req.URL), req.Method)
	case req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme:
		return fmt.Errorf("%w: to %s, another host", ErrRedirect, shownURL(req.URL))
	case len(via) > maxHops:
		return fmt.Errorf("%w: more than %d times", ErrRedirect, maxHops)
	}
	return nil
}
