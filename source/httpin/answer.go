package httpin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/source"
)

// Reasons why a request is refused, or its body no longer read.
var (
	errFull            = errors.New("the pipeline has no room: its window or its memory is full, because its plugins or sinks are behind")
	errSlow            = errors.New("the body comes too slowly")
	errDraining        = errors.New("the source is stopping")
	errBodyTooLarge    = errors.New("the body is too large")
	errMessageTooLarge = errors.New("a message is too large")
)

// RefusedError says that a request was answered with a status of 400 or more because of what it was, not of how busy the source is. It is
// what the source reports.
type RefusedError struct {
	Remote   string // the client's address
	Status   int
	Accepted int // messages of the request that had been accepted, and stay so
	Err      error
}

// Error names the client, the status and the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("http request from %s refused with %d after %d messages: %v", e.Remote, e.Status, e.Accepted, e.Err)
}

// Unwrap is the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// answer is what a request is answered. The zero answer is none.
type answer struct {
	status    int
	why       string
	bad       bool // the request is at fault
	busy      bool // it may come again soon
	broken    bool // what follows on the connection cannot be made sense of
	err       error
	accepted  int
	unsettled int
}

// refuse is the answer to a request that is at fault.
func refuse(status int, why string) answer {
	return answer{status: status, why: why, bad: true, err: errors.New(why)}
}

// judge is the answer to a request of which all that was accepted is settled, and whose reading ended with err.
func (h *handler) judge(err error) answer {
	a := answer{err: err, bad: true}
	var encoding *encodingError
	var broken *brokenError
	var framing *decode.Error
	switch {
	case err == nil:
		return answer{status: http.StatusOK}
	case errors.Is(err, errFull):
		a.status, a.why, a.bad, a.busy = http.StatusTooManyRequests, err.Error()+": send the rest again later", false, true
	case errors.Is(err, errDraining), errors.Is(err, source.ErrStopped), errors.Is(err, arena.ErrClosed):
		a.status, a.why, a.bad, a.busy = http.StatusServiceUnavailable, errDraining.Error()+": send the rest again later", false, true
	case errors.Is(err, errSlow):
		a.status, a.broken = http.StatusRequestTimeout, true
		a.why = fmt.Sprintf("%v: nothing in %v, or next to nothing while memory is short: send the rest again, faster", err, h.settings.BodyTimeout)
	case errors.Is(err, errBodyTooLarge):
		a.status, a.broken = http.StatusRequestEntityTooLarge, true
		a.why = fmt.Sprintf("the body is larger than %v, also counted decompressed: send less at once, or raise max_body", h.settings.MaxBody)
	case errors.Is(err, errMessageTooLarge), errors.Is(err, decode.ErrTooLarge):
		a.status, a.broken = http.StatusRequestEntityTooLarge, true
		a.why = fmt.Sprintf("a message is larger than %d bytes: send it in parts, look at the framing, or raise max_message", h.env.MaxBytes)
	case errors.As(err, &framing):
		a.status, a.why = http.StatusBadRequest, err.Error()
	case errors.As(err, &encoding), errors.As(err, &broken):
		a.status, a.broken, a.why = http.StatusBadRequest, true, err.Error()+": send the rest again"
	default:
		a.status, a.bad, a.broken = http.StatusInternalServerError, false, true
		a.why = "the pipeline could not take a message: " + err.Error()
	}
	return a
}

// unsettled is the answer to a request of which not all is settled.
func (h *handler) unsettled(a answer, q *request) answer {
	reading := ""
	if a.why != "" {
		reading = "; besides: " + a.why
	}
	if _, _, returned := q.count.tally(); returned > 0 || q.shut {
		a.status, a.busy = http.StatusServiceUnavailable, true
		a.why = fmt.Sprintf("the pipeline stops before all is settled: send those that are not settled again%s", reading)
		return a
	}
	a.status = http.StatusGatewayTimeout
	a.why = fmt.Sprintf("not settled within %v: the messages are still under way, and come twice if they are sent again%s",
		h.settings.SettleTimeout, reading)
	return a
}

// write sends a, and reports what the client did wrong.
func (h *handler) write(w http.ResponseWriter, r *http.Request, a answer) {
	if a.bad {
		h.in.Report(fmt.Errorf("http source %q: %w", h.env.Name, &RefusedError{r.RemoteAddr, a.status, a.accepted, a.err}))
	}
	head := w.Header()
	head.Set("Content-Type", "application/json")
	var body []byte
	if a.status == http.StatusOK {
		body = append(strconv.AppendInt(append(make([]byte, 0, 40), `{"accepted":`...), int64(a.accepted), 10), "}\n"...)
	} else {
		body = a.json()
		h.linger(w, r, a)
	}
	if a.busy {
		head.Set("Retry-After", "1")
	}
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // who has gone cannot be told
}

func (a answer) json() []byte {
	body, err := json.Marshal(struct {
		Error     string `json:"error"`
		Accepted  int    `json:"accepted"`
		Unsettled int    `json:"unsettled"`
	}{a.why, a.accepted, a.unsettled})
	if err != nil { // a string and two numbers always can be
		return nil
	}
	return append(body, '\n')
}

// What is left of a body that is not wanted is read for a short time, so that the client sees the answer, and may go on with the
// connection if it was little.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

func (h *handler) linger(w http.ResponseWriter, r *http.Request, a answer) {
	if r.ContentLength == 0 {
		return
	}
	if r.ProtoMajor == 1 && (a.broken || r.ContentLength < 0 || r.ContentLength > lingerBytes) {
		w.Header().Set("Connection", "close")
	}
	if !a.broken || r.ProtoMajor == 1 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTime)) // where it cannot be set, there is no connection
	}
}
