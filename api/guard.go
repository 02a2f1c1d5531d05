package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/penstock-dev/penstock/kind"
)

// guard is what every request goes through.
func (s *Server) guard(next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "this comes from a page of another site: only pages of this address may change anything here")
	}))
	next = origin.Handler(s.authenticated(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// A name that others have made to mean this machine would let their pages read what is here.
		if s.local && r.Host != "" && !kind.Loopback(kind.Host(r.Host)) {
			refuse(w, http.StatusForbidden, fmt.Sprintf("host %q: this port is for this machine only: ask for 127.0.0.1 or localhost", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authenticated wants the token, if there is one, of all but what probes ask for.
func (s *Server) authenticated(next http.Handler) http.Handler {
	if s.cfg.Token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.cfg.Token.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" && r.URL.Path != "/readyz" {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			got := sha256.Sum256([]byte(strings.TrimSpace(token))) // of one length, so that the time tells nothing of the token's
			if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "Bearer") {
				w.Header().Set("WWW-Authenticate", `Bearer realm="penstock"`)
				refuse(w, http.StatusUnauthorized, "send the header \"Authorization: Bearer TOKEN\", with the token of the pipeline's file")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// bounded is around the endpoints of this package: so many at one time, next to no body, and a time for the answer to be taken.
func (s *Server) bounded(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.places <- struct{}{}:
			defer func() { <-s.places }()
		default:
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d requests are under way: ask again later", maxRequests))
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		control := http.NewResponseController(w)
		if r.ContentLength != 0 && !s.skipBody(control, w, r) {
			return
		}
		next(&timedWriter{ResponseWriter: w, control: control}, r)
	})
}

// skipBody reads a body that nobody wants, if it is small and quick.
func (s *Server) skipBody(control *http.ResponseController, w http.ResponseWriter, r *http.Request) bool {
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // where there are none, Close ends it
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	if err == nil {
		return true
	}
	w.Header().Set("Connection", "close")
	if errors.As(err, new(*http.MaxBytesError)) {
		refuse(w, http.StatusRequestEntityTooLarge, "no body is wanted here")
	} else {
		refuse(w, http.StatusBadRequest, "the body breaks off, or comes too slowly; none is wanted here")
	}
	return false
}

// timedWriter bounds the time for an answer from when it begins, not from when it was asked for: a reload takes its time.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// WriteHeader begins the answer.
func (w *timedWriter) WriteHeader(status int) {
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

func (w *timedWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

func (w *timedWriter) begin() {
	if !w.begun {
		w.begun = true
		_ = w.control.SetWriteDeadline(time.Now().Add(answerTimeout)) // where there are none, Close ends it
	}
}

// Unwrap is for http.ResponseController.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers with one line of text.
func refuse(w http.ResponseWriter, status int, why string) { http.Error(w, why, status) }
