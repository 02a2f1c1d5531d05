package httpout

import (
	"net/http"
	"strconv"
	"time"
)

// class is what an answer means for the messages of its request.
type class uint8

const (
	accepted class = iota // settled
	later                 // to be tried again
	endpoint              // to be tried again: nothing is wrong with the messages, but with the endpoint or how it is called
	tooLarge              // to be sent in halves
	mixed                 // to be sent in halves: one message may be wrong, and the others right
	refused               // for the dead letters
)

// classify is the class of a status, and what to do about it.
func classify(status int) (c class, hint string) {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return later, ""
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return endpoint, "check token and headers"
	case http.StatusForbidden:
		return endpoint, "the endpoint knows who asks and does not let them: check token and headers, or its permissions"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return endpoint, "check url and method"
	case http.StatusRequestEntityTooLarge:
		return tooLarge, "this message alone is larger than the endpoint takes"
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return mixed, ""
	}
	switch status / 100 {
	case 2:
		return accepted, ""
	case 3:
		return endpoint, "check url"
	case 4:
		return refused, ""
	default:
		return later, ""
	}
}

// maxAfter is the longest that an endpoint may put messages off.
const maxAfter = 5 * time.Minute

// retryAfter reads the header Retry-After, seconds or a date. It is between 0 and maxAfter; ok is false if there is no such header, or
// one that says nothing.
func retryAfter(value string, now time.Time) (d time.Duration, ok bool) {
	if value == "" {
		return 0, false
	}
	digits := true
	for i := range len(value) {
		digits = digits && value[i] >= '0' && value[i] <= '9'
	}
	if digits {
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > uint64(maxAfter/time.Second) { // more than a number can hold is more than the longest too
			return maxAfter, true
		}
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), maxAfter), true
}
