package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
)

// routes mounts the endpoints.
func (s *Server) routes() {
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = fmt.Fprintln(w, "ok") // who has gone does not mind
	})
	s.mux.Handle("GET /readyz", s.bounded(s.readyz))
	s.mux.Handle("GET /stats", s.bounded(s.stats))
	s.mux.Handle("GET /reload", s.bounded(s.reloads))
	s.mux.Handle("POST /reload", s.bounded(s.reload))
	s.mux.Handle("GET /{$}", s.bounded(s.index))
	if s.cfg.Metrics != nil {
		s.mux.Handle("GET /metrics", s.bounded(s.cfg.Metrics.ServeHTTP))
	}
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	text := "penstock " + s.cfg.Version + "\n\n" +
		"GET  /healthz  the process serves\n" +
		"GET  /readyz   the pipeline is ready, or why it is not\n"
	if s.cfg.Metrics != nil {
		text += "GET  /metrics  for Prometheus\n"
	}
	text += "GET  /stats    what has become of all messages\n" +
		fmt.Sprintf("GET  /reload   the last %d reloads\n", maxShown) +
		"POST /reload   read the file again\n"
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text)) // who has gone does not mind
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	reasons := s.ready.reasons(r.Context())
	if len(reasons) > 0 {
		s.answer(w, http.StatusServiceUnavailable, readiness{Reasons: reasons})
		return
	}
	s.answer(w, http.StatusOK, readiness{Ready: true})
}

// figures is the answer of /stats.
type figures struct {
	Version string `json:"version"`
	penstock.Summary
	Memory memory `json:"memory"`
}

// memory is an arena.Stats with its names. Amounts are in bytes.
type memory struct {
	Budget   int64                  `json:"budget"`
	Resident int64                  `json:"resident"`
	Classes  map[string]memoryClass `json:"classes"`
	Leases   int                    `json:"leases"`
	Refused  uint64                 `json:"refused"`
}

type memoryClass struct {
	Used       int64 `json:"used"`
	Limit      int64 `json:"limit"`
	Guaranteed int64 `json:"guaranteed"`
}

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	f := figures{Version: s.cfg.Version, Summary: s.cfg.Control.Stats()}
	m := s.cfg.Control.Memory()
	f.Memory = memory{Budget: m.Budget, Resident: m.Resident, Leases: m.Leases, Refused: m.Refused, Classes: map[string]memoryClass{}}
	for i := range m.Used {
		f.Memory.Classes[arena.Class(i).String()] = memoryClass{Used: m.Used[i], Limit: m.Capacity[i], Guaranteed: m.Guaranteed[i]}
	}
	if f.Rows == nil {
		f.Rows = []penstock.Row{}
	}
	s.answer(w, http.StatusOK, f)
}

func (s *Server) reloads(w http.ResponseWriter, _ *http.Request) {
	records := s.cfg.Control.Reloads()
	records = slices.Clone(records[max(len(records)-maxShown, 0):])
	slices.Reverse(records)
	for i := range records {
		records[i].lists()
	}
	if records == nil {
		records = []Record{}
	}
	s.answer(w, http.StatusOK, records)
}

// refusal is the answer to a reload that did not take place.
type refusal struct {
	Error    string   `json:"error"`
	Problems []string `json:"problems,omitempty"`
	Record   *Record  `json:"record,omitempty"`
}

var errBusy = errors.New("another reload is under way: ask again when it is done")

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	control := s.cfg.Control
	if control.Draining() {
		s.answer(w, http.StatusConflict, refusal{Error: "the pipeline is ending: nothing has been changed"})
		return
	}
	if !s.serving.CompareAndSwap(false, true) {
		s.answer(w, http.StatusConflict, refusal{Error: errBusy.Error()})
		return
	}
	defer s.serving.Store(false)
	record, err := control.Reload(s.base, "api") // goes on if whoever asked goes away
	switch {
	case err == nil:
		record.lists()
		s.answer(w, http.StatusOK, record)
	case errors.Is(err, penstock.ErrChanging) || control.Draining():
		s.answer(w, http.StatusConflict, refusal{Error: err.Error()})
	case s.base.Err() != nil:
		s.answer(w, http.StatusServiceUnavailable, refusal{Error: err.Error()})
	default:
		record.lists()
		if record.Error == "" {
			record.Error = err.Error()
		}
		s.answer(w, http.StatusUnprocessableEntity, refusal{Error: "nothing has been changed", Problems: lines(err), Record: &record})
	}
}

// lists makes lists that are not there empty ones, so that a client need not tell null from [].
func (r *Record) lists() {
	for _, l := range []*[]string{&r.Added, &r.Changed, &r.Removed, &r.Untouched} {
		if *l == nil {
			*l = []string{}
		}
	}
}

// answer writes JSON that people can read, too.
func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.log.Error("an answer of the api cannot be written as JSON", "error", err)
		refuse(w, http.StatusInternalServerError, "the answer cannot be written as JSON: see the log")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // who has gone does not mind
}
