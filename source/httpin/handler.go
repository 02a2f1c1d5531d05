package httpin

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
)

// patience is how long a request waits for room, be it in the window or in memory, before it is told to come again.
const patience = time.Second

// handler answers requests. It is made for one run of a source, knows no network, and serves any number of requests concurrently.
type handler struct {
	origins   http.CrossOriginProtection // against pages in browsers of this machine, where no token is asked for
	settings  Settings
	framing   decode.Framing
	delimiter int
	headers   []header
	tokens    [][sha256.Size]byte
	in        source.Intake
	env       source.Env
	ledger    *ledger
	base      context.Context // ends when the source drains
	stopped   func()          // is called when the runtime takes no more
	patience  time.Duration
	active    atomic.Int64
	accepted  atomic.Int64 // messages
	zips      sync.Pool    // of *gzip.Reader
}

var _ http.Handler = (*handler)(nil)

func newHandler(base context.Context, s *Source, in source.Intake, stopped func()) *handler {
	h := &handler{
		settings: s.settings, framing: s.framing, delimiter: s.delimiter, headers: keptHeaders(s.settings.Headers), in: in, env: in.Env(),
		ledger: s.ledger, base: base, stopped: stopped, patience: s.patience,
	}
	for _, t := range s.settings.Tokens {
		h.tokens = append(h.tokens, sha256.Sum256([]byte(t.Reveal())))
	}
	return h
}

// ServeHTTP takes the messages of one request and answers when they are settled.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.active.Add(-1)
	full := h.active.Add(1) > int64(h.settings.MaxRequests)
	a := h.door(w, r)
	if a.status == 0 && full {
		a = answer{status: http.StatusServiceUnavailable, why: "too many requests are under way: come again later", busy: true}
	}
	if a.status == 0 {
		a = h.serve(w, r)
	}
	if a.status == 0 { // nobody is there to be answered
		return
	}
	h.write(w, r, a)
}

// door looks at what can be refused without the body. The zero answer lets the request in.
func (h *handler) door(w http.ResponseWriter, r *http.Request) answer {
	switch {
	case !h.authorized(r):
		w.Header().Set("WWW-Authenticate", "Bearer")
		return refuse(http.StatusUnauthorized, "no token, or a wrong one: send the header Authorization: Bearer TOKEN")
	case len(h.tokens) == 0 && h.origins.Check(r) != nil:
		return refuse(http.StatusForbidden, "this comes from a page of another site in a browser: if it may, set tokens and send one")
	case r.URL.Path != h.settings.Path:
		return refuse(http.StatusNotFound, "messages are not taken at this path: look at the setting path of the source")
	case r.Method != http.MethodPost && r.Method != http.MethodPut:
		w.Header().Set("Allow", "POST, PUT")
		return refuse(http.StatusMethodNotAllowed, "messages are sent by POST (or PUT)")
	case r.ContentLength > int64(h.settings.MaxBody):
		return h.judge(errBodyTooLarge)
	}
	switch _, known := compressed(r); {
	case !known:
		w.Header().Set("Accept-Encoding", "gzip")
		return refuse(http.StatusUnsupportedMediaType, "the Content-Encoding is not known: send gzip, or none")
	case h.whole(r) && r.ContentLength > int64(h.env.MaxBytes):
		return h.judge(errMessageTooLarge)
	}
	return answer{}
}

// authorized compares in a time that does not depend on the token.
func (h *handler) authorized(r *http.Request) bool {
	if len(h.tokens) == 0 {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || len(token) > maxToken {
		return false
	}
	sum := sha256.Sum256([]byte(token))
	same := 0
	for i := range h.tokens {
		same |= subtle.ConstantTimeCompare(sum[:], h.tokens[i][:])
	}
	return same == 1
}

// compressed reports whether the body is gzip; known is false if it is something else that is not plain.
func compressed(r *http.Request) (zip, known bool) {
	values := r.Header["Content-Encoding"]
	switch {
	case len(values) == 0:
		return false, true
	case len(values) > 1:
		return false, false
	}
	switch strings.ToLower(strings.TrimSpace(values[0])) {
	case "gzip", "x-gzip":
		return true, true
	case "", "identity":
		return false, true
	}
	return false, false
}

// framingOf is how messages are found in the body of r.
func (h *handler) framingOf(r *http.Request) decode.Framing {
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch t = strings.TrimSpace(t); {
	case strings.EqualFold(t, "application/x-ndjson"), strings.EqualFold(t, "application/ndjson"):
		return decode.Lines(nil)
	}
	return h.framing
}

// whole reports whether the body of r is, byte for byte, one message.
func (h *handler) whole(r *http.Request) bool {
	zip, _ := compressed(r)
	return !zip && h.framingOf(r).Name() == "whole"
}

// serve reads the body and waits for settlement.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) answer {
	q := &request{h: h, r: r}
	q.count.done = make(chan struct{}, 1)
	begun, err := q.take(w)
	if !begun {
		return h.judge(errDraining)
	}
	defer h.ledger.end(q)
	if !q.wait() {
		return answer{}
	}
	a := h.judge(err)
	a.accepted, a.unsettled = q.outcome()
	if a.unsettled > 0 {
		a = h.unsettled(a, q)
	}
	return a
}

// unzip takes a decompressor, if the body needs one.
func (h *handler) unzip(q *request) error {
	zip, _ := compressed(q.r)
	if !zip {
		return nil
	}
	z, _ := h.zips.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	q.zip = z
	return z.Reset(&q.wire)
}

// unzipped gives the decompressor back.
func (h *handler) unzipped(q *request) {
	if q.zip != nil {
		h.zips.Put(q.zip)
		q.zip, q.plain.zip = nil, nil
	}
}
