package httpin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/decode"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
)

// Bounds of a connection that are not for the user to set.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	streamBuffer   = 256 << 10 // of HTTP/2, for each connection and each of its requests
	closeGrace     = 5 * time.Second
	freshGrace     = 200 * time.Millisecond
)

// Source takes messages by HTTP. A request is answered when all its messages are settled, so that what was answered with 200 is never lost;
// what was not is the client's to send again.
type Source struct {
	settings  Settings
	framing   decode.Framing
	delimiter int // bytes that may follow a message and are not part of it
	listen    listener
	ledger    *ledger
	patience  time.Duration // how long a request waits for room

	bound  net.Listener // by Prepare, for Run
	config *tls.Config  // of bound

	mu     sync.Mutex
	server *http.Server
	fresh  map[net.Conn]struct{} // connections without a request so far
	idle   bool                  // fresh ones are closed
	quiet  chan struct{}         // closed when there are no fresh ones; nil while nobody waits for that
	h      *handler
}

var (
	_ source.Source   = (*Source)(nil)
	_ source.Preparer = (*Source)(nil)
)

// New checks the settings and makes a Source. It opens nothing.
func New(s Settings, env kind.Env) (*Source, error) {
	var wrong []error
	for _, p := range s.Check() {
		wrong = append(wrong, fmt.Errorf("http source: %s: %s", p.Field, p.Message))
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	frame := env.Frame
	if frame == "" {
		frame = "whole"
	}
	framing, err := decode.Parse(frame)
	switch {
	case err != nil:
		return nil, fmt.Errorf("http source: %w", err)
	case env.Delimiter != "" && frame != "lines":
		return nil, fmt.Errorf("http source: frame %s has no delimiter: leave it out, or set frame: lines", frame)
	case env.Delimiter != "":
		framing = decode.Lines([]byte(env.Delimiter))
	}
	out := &Source{
		settings: s, framing: framing, delimiter: max(len(env.Delimiter), 1) + 1, listen: env.Listen, ledger: newLedger(),
		patience: patience, fresh: map[net.Conn]struct{}{},
	}
	if out.listen == nil {
		out.listen = new(net.ListenConfig).Listen
	}
	return out, nil
}

// Requests is how many requests are under way, those included that wait for settlement.
func (s *Source) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		return 0
	}
	return int(s.h.active.Load())
}

// Prepare binds the address and reads the certificate. The error says which of them could not be had.
func (s *Source) Prepare(ctx context.Context, _ source.Env) (err error) {
	if s.config, err = s.settings.TLS.Config(); err != nil {
		return fmt.Errorf("http source: %w", err)
	}
	if s.bound, err = s.listen(ctx, "tcp", s.settings.Address); err != nil {
		return fmt.Errorf("http source: listening on %s: %w: is another process there, or the address not this machine's?", s.settings.Address, err)
	}
	return nil
}

// Run serves until ctx ends or the runtime takes no more. It returns when no request can bring a message any more; requests that wait for
// settlement are answered later. The error is that of the listener, or of the certificate.
func (s *Source) Run(ctx context.Context, in source.Intake) error {
	if s.bound == nil {
		if err := s.Prepare(ctx, in.Env()); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	ln, config := &closedOnce{Listener: s.bound}, s.config
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errDraining)
	stopped := make(chan struct{})
	var once sync.Once
	h := newHandler(base, s, in, func() { once.Do(func() { close(stopped) }) })
	log := in.Env().Logger
	server := s.serverFor(h, log)
	server.TLSConfig = config
	s.mu.Lock()
	s.server, s.h = server, h
	s.mu.Unlock()

	log.Info("listening", "source", in.Env().Name, "network", "tcp", "address", ln.Addr().String(), "path", s.settings.Path)
	served := make(chan error, 1)
	go func() {
		if config != nil {
			served <- server.ServeTLS(ln, "", "")
			return
		}
		served <- server.Serve(ln)
	}()
	select {
	case <-ctx.Done():
	case <-stopped:
	case err := <-served:
		served <- err
	}
	s.ledger.drain()
	cancel(errDraining)
	server.SetKeepAlivesEnabled(false) // closes the connections on which there is no request, now and later
	_ = ln.Close()                     // nobody is let in any more, so there is nothing to be done about an error
	err := <-served                    // from here on all connections are known
	s.closeFresh(server)
	<-s.ledger.idle
	if !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("http source: accepting on %s: %w", s.settings.Address, err)
	}
	return nil
}

// closedOnce is a listener that both the source and its server close.
type closedOnce struct {
	net.Listener
	once sync.Once
	err  error
}

// Close closes the listener, the first time.
func (l *closedOnce) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

func (s *Source) serverFor(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerConnection: streamBuffer, MaxReceiveBufferPerStream: streamBuffer},
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState: s.connState,
	}
}

// connState knows the connections that have sent nothing: the server takes its time before it counts those as idle.
func (s *Source) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew && s.idle {
		_ = c.Close() // nothing has been sent on it
		return
	}
	if state == http.StateNew {
		s.fresh[c] = struct{}{}
		return
	}
	delete(s.fresh, c)
	if len(s.fresh) == 0 && s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
}

// closeFresh closes the connections that have sent nothing. Whoever has just connected is about to: for a moment they are waited for, and
// answered, rather than left to guess what has become of their request. The server, once it has been told of a shutdown, would not do that.
func (s *Source) closeFresh(server *http.Server) {
	s.mu.Lock()
	quiet := make(chan struct{})
	if len(s.fresh) == 0 {
		close(quiet)
	} else {
		s.quiet = quiet
	}
	s.mu.Unlock()
	select {
	case <-quiet:
	case <-time.After(freshGrace):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle, s.quiet = true, nil
	for c := range s.fresh {
		_ = c.Close() // nothing has been sent on it
	}
	clear(s.fresh)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = server.Shutdown(now) // tells HTTP/2 clients at once; Close waits for the rest
}

// Settle tells requests what became of their messages.
func (s *Source) Settle(st source.Settlement) { s.ledger.settle(st.Receipts, st.Outcome) }

// Close answers what still waits with 503, and closes all connections: those that do not take their answer within five seconds, or before
// ctx ends, without it.
func (s *Source) Close(ctx context.Context) error {
	s.ledger.drain()
	s.ledger.close()
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if server == nil { // it has not run
		if s.bound != nil {
			return s.bound.Close()
		}
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	err := server.Shutdown(limit)
	closeErr := server.Close()
	if err != nil && limit.Err() == nil || closeErr != nil {
		return fmt.Errorf("http source: closing: %w", errors.Join(err, closeErr))
	}
	return nil
}
