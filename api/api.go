package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/kind"
)

// Bounds that are not for the user to set.
const (
	headerTimeout  = 10 * time.Second
	bodyTimeout    = 5 * time.Second
	answerTimeout  = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	closeGrace     = 5 * time.Second
	checkTimeout   = 2 * time.Second
	maxHeaderBytes = 64 << 10
	maxBody        = 4 << 10   // no endpoint of this package has a use for one
	streamBuffer   = 256 << 10 // of HTTP/2, for each connection and each of its requests
	maxRequests    = 64        // at one time, of the endpoints of this package but for /healthz
	maxShown       = 20        // records of reloads
)

// Control is the pipeline, as the server asks for it. Its methods are called concurrently.
type Control interface {
	// Check asks every plugin whether it could serve; it fails while the pipeline has not started. It is called again only when it has
	// returned.
	Check(ctx context.Context) error
	// Stats are the figures so far.
	Stats() penstock.Summary
	// Memory is the use of the byte budget now.
	Memory() arena.Stats
	// Reload reads the file again and makes the pipeline what it says. If it fails nothing has changed; it fails with
	// [penstock.ErrChanging] where it cannot be done now. The record is also one of Reloads, and it is filled in if there is an error, too.
	Reload(ctx context.Context, trigger string) (Record, error)
	// Reloads are the records, the oldest first; the last 20 will do. The slice is the caller's.
	Reloads() []Record
	// Draining says that the pipeline is ending.
	Draining() bool
}

// Record is one reload, whether it went well or not.
type Record struct {
	At      time.Time `json:"at"`
	Trigger string    `json:"trigger"` // SIGHUP, watch or api
	Error   string    `json:"error,omitempty"`
	penstock.Reloaded
	RestartNeeded []string `json:"restart_needed,omitempty"` // settings that have changed in the file and are as they were until a restart
}

// Config is what a Server is made of.
type Config struct {
	Address string // host:port; port 0 takes a free one
	TLS     *kind.ServerTLS
	Token   kind.Secret  // wanted of all requests but those for /healthz and /readyz; empty for none
	Metrics http.Handler // answers /metrics; nil for none
	Control Control
	Logger  *slog.Logger // default slog.Default()
	Version string       // of the program
	// Listen opens the listener; default that of net.ListenConfig.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Errors of a Server.
var (
	// ErrStarted refuses a second Start, or one after Close.
	ErrStarted = errors.New("api: the server has been started or closed before: make another")
	// ErrUnsafe is why an [*AddressError] refuses an address that others can reach.
	ErrUnsafe = errors.New("not a loopback address, so that others could read and change the pipeline")
)

// AddressError says that the server does not listen on an address.
type AddressError struct {
	Address string
	Err     error  // why; [ErrUnsafe], or what the operating system says
	Hint    string // what to do
}

// Error names the address, the reason and what to do.
func (e *AddressError) Error() string {
	return fmt.Sprintf("listen %s: %v: %s", e.Address, e.Err, e.Hint)
}

// Unwrap is the reason.
func (e *AddressError) Unwrap() error { return e.Err }

// Server is the HTTP port. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	log     *slog.Logger
	mux     *http.ServeMux
	http    *http.Server
	ready   *prober
	serving atomic.Bool   // a reload by this server is under way
	places  chan struct{} // of requests that are answered now
	local   bool          // the listener is on loopback; set by Start, before anything is served

	base   context.Context // of what requests have done; ends with Close
	cancel context.CancelFunc
	served chan struct{} // closed when nothing is accepted any more

	mu     sync.Mutex
	state  state
	addr   net.Addr
	fresh  map[net.Conn]struct{} // connections without a request so far
	ending bool                  // fresh ones are closed
}

// state is where a Server is.
type state uint8

const (
	made state = iota
	started
	closed
)

// New checks the configuration and loads the certificates. It opens nothing. An address that is not loopback is refused with an
// [*AddressError], unless there are TLS, and a token or certificates of clients.
func New(cfg Config) (*Server, error) {
	if cfg.Control == nil {
		return nil, errors.New("api: Control is nil: set what is to be controlled")
	}
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		return nil, &AddressError{cfg.Address, err, "write host:port, such as 127.0.0.1:7070"}
	}
	if err := cfg.exposed(cfg.Address); err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Listen == nil {
		cfg.Listen = new(net.ListenConfig).Listen
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, mux: http.NewServeMux(), places: make(chan struct{}, maxRequests), served: make(chan struct{}),
		fresh: map[net.Conn]struct{}{},
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler: s.guard(s.mux), TLSConfig: tlsConfig, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerConnection: streamBuffer, MaxReceiveBufferPerStream: streamBuffer},
		ErrorLog:  slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: s.connState,
	}
	s.routes()
	return s, nil
}

// exposed is why the server does not listen at an address; nil if it may.
func (c *Config) exposed(address string) error {
	missing := kind.Exposed(address, c.TLS, c.Token != "")
	if missing == "" {
		return nil
	}
	_, port, _ := net.SplitHostPort(address)
	return &AddressError{address, ErrUnsafe, fmt.Sprintf("set %s, or listen on %s", missing, net.JoinHostPort("127.0.0.1", port))}
}

// Handle mounts a handler, behind the same guards as everything else: pattern is as [http.ServeMux] has it. It may be called at any time,
// and panics if the pattern is wrong or taken. Requests that are upgraded, such as WebSockets, must have their origin checked by h.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Start binds the address and serves until Close. The error is an [*AddressError] if the address cannot be had. ctx bounds the binding;
// its values go to the handlers.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != made {
		return ErrStarted
	}
	ln, err := s.cfg.Listen(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return &AddressError{s.cfg.Address, err, "is another process there? Choose another port with listen, port 0 for any that is free, or " +
			"listen: off for none"}
	}
	s.local = kind.Loopback(kind.Host(s.cfg.Address))
	if a, ok := ln.Addr().(*net.TCPAddr); ok {
		s.local = a.IP.IsLoopback()
	}
	if err := s.cfg.exposed(ln.Addr().String()); !s.local && err != nil {
		return errors.Join(err, ln.Close())
	}
	s.state, s.addr = started, ln.Addr()
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.ready = &prober{control: s.cfg.Control, base: s.base}
	s.http.BaseContext = func(net.Listener) context.Context { return s.base }
	go s.serve(ln)
	return nil
}

func (s *Server) serve(ln net.Listener) {
	defer close(s.served)
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(ln, "", "")
	} else {
		err = s.http.Serve(ln)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("the api is not served any more", "address", ln.Addr().String(), "error", err)
	}
}

// Addr is the address that the server listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Close takes no more requests, waits for those under way, up to five seconds and not beyond ctx, and closes all connections. A reload that
// has begun is cancelled then. The error says that the listener or a connection could not be closed. Close may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	was := s.state
	s.state, s.ending = closed, true
	for c := range s.fresh {
		_ = c.Close() // nothing has been sent on it
	}
	clear(s.fresh)
	s.mu.Unlock()
	if was != started {
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	err := s.http.Shutdown(limit)
	if limit.Err() != nil {
		err = nil // what has not ended by now is ended
	}
	s.cancel()
	err = errors.Join(err, s.http.Close())
	<-s.served
	if err != nil {
		return fmt.Errorf("api: closing: %w", err)
	}
	return nil
}

// connState knows the connections that have sent nothing: Shutdown would wait for them.
func (s *Server) connState(c net.Conn, now http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now != http.StateNew {
		delete(s.fresh, c)
		return
	}
	if s.ending {
		_ = c.Close() // nothing has been sent on it
		return
	}
	s.fresh[c] = struct{}{}
}
