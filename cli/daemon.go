package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/api"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/internal/datadir"
	"github.com/penstock-dev/penstock/internal/listen"
	"github.com/penstock-dev/penstock/telemetry"
)

// daemon is a pipeline that runs, and what is there to see and change it.
type daemon struct {
	app       *App
	flags     *runFlags
	logger    *slog.Logger
	rt        *penstock.Runtime
	listeners *listen.Pool
	server    *api.Server // nil if there is no port
	traced    func(context.Context) error
	data      *datadir.Lock // nil until the pipeline has been made
	draining  atomic.Bool
	saidEnded bool // all sources have ended, and the log says so

	reloading sync.Mutex
	again     atomic.Bool // a signal has asked for a reload while one was under way

	mu      sync.Mutex
	current *config.Config
	records []api.Record // the oldest first
}

var _ api.Control = (*daemon)(nil)

// maxRecords is how many reloads are remembered.
const maxRecords = 20

// newDaemon makes the pipeline of a file. Nothing is started.
func (a *App) newDaemon(f *runFlags, c *config.Config, logger *slog.Logger) (*daemon, error) {
	d := &daemon{app: a, flags: f, logger: logger, listeners: listen.NewPool(), current: c}
	p, err := d.pipeline(c)
	if err != nil {
		return nil, exit(ExitConfig, err)
	}
	if c.Tracing.Sample > 0 {
		tracer, shutdown, err := telemetry.NewTracer(telemetry.TraceConfig{Sample: c.Tracing.Sample, Version: a.Version, Logger: logger})
		if err != nil {
			return nil, exit(ExitConfig, err)
		}
		p.Tracer, d.traced = tracer, shutdown
	}
	if d.rt, err = penstock.New(p); err != nil {
		return nil, exit(ExitConfig, errors.Join(err, d.close()))
	}
	if d.data, err = datadir.Take(c.Data); err != nil {
		return nil, exit(ExitFailed, errors.Join(err, d.close()))
	}
	return d, nil
}

// pipeline makes what a file describes.
func (d *daemon) pipeline(c *config.Config) (penstock.Pipeline, error) {
	p, err := c.Pipeline(config.Build{Listen: d.listeners.Listen, Logger: d.logger})
	p.Linger, p.Strict = !d.flags.untilIdle, d.flags.strict
	return p, err
}

// serve opens the port for health, metrics and control, if there is to be one. A job that ends by itself does without it rather than not
// run, if the port is another process's and nobody has asked for it.
func (d *daemon) serve(ctx context.Context) error {
	c := d.current
	if c.Listen == "" {
		return nil
	}
	metrics, err := telemetry.Handler(d.logger, telemetry.Metrics(d.rt.Stats, d.rt.Memory, d.app.Version))
	if err != nil {
		return err
	}
	server, err := api.New(api.Config{
		Address: c.Listen, TLS: c.TLS, Token: c.Token, Metrics: metrics, Control: d, Logger: d.logger, Version: d.app.Version,
	})
	if err != nil {
		return err
	}
	err = server.Start(ctx)
	if errors.Is(err, syscall.EADDRINUSE) && d.flags.untilIdle && d.flags.listen == "" && !c.Set("listen") {
		d.logger.Warn("no health and metrics: the port is in use; --listen chooses another, or off", "listen", c.Listen)
		return nil
	}
	if err != nil {
		return err
	}
	d.server = server
	return nil
}

// address is where the port is; off if there is none.
func (d *daemon) address() string {
	if d.server == nil {
		return "off"
	}
	return d.server.Addr().String()
}

// close ends what newDaemon and serve have begun.
func (d *daemon) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	if d.server != nil {
		errs = append(errs, d.server.Close(ctx))
	}
	if d.traced != nil {
		errs = append(errs, d.traced(ctx))
	}
	if d.data != nil {
		errs = append(errs, d.data.Close())
	}
	return errors.Join(errs...)
}

// Check implements api.Control.
func (d *daemon) Check(ctx context.Context) error {
	select {
	case <-d.rt.Started():
		return d.rt.Check(ctx)
	default:
		return errStarting
	}
}

var errStarting = errors.New("the pipeline has not started yet")

// Stats implements api.Control.
func (d *daemon) Stats() penstock.Summary { return d.rt.Stats() }

// Memory implements api.Control.
func (d *daemon) Memory() arena.Stats { return d.rt.Memory() }

// Draining implements api.Control.
func (d *daemon) Draining() bool { return d.draining.Load() }

// Reloads implements api.Control.
func (d *daemon) Reloads() []api.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.records)
}

// Reload implements api.Control: it reads the file again, and changes what has changed. If the file is wrong, nothing changes. The log says
// how it went.
func (d *daemon) Reload(ctx context.Context, trigger string) (api.Record, error) {
	r, err := d.recorded(ctx, trigger)
	if d.again.Load() && !errors.Is(err, penstock.ErrChanging) {
		defer func() {
			if d.again.Swap(false) {
				_, _ = d.Reload(ctx, signalTrigger) // the log says how it went
			}
		}()
	}
	switch {
	case errors.Is(err, penstock.ErrChanging) && trigger == signalTrigger && ctx.Err() == nil:
		d.logger.Info("to be loaded again when what is under way has ended", "trigger", trigger)
	case errors.Is(err, penstock.ErrChanging):
		d.logger.Warn("not loaded again: that is under way already, or the pipeline is ending", "trigger", trigger)
	case err != nil:
		d.logger.Error("not loaded again; nothing has changed", "trigger", trigger, "error", err)
	default:
		d.logger.Info("loaded again", "trigger", trigger, "added", r.Added, "changed", r.Changed, "removed", r.Removed,
			"untouched", len(r.Untouched), "took", r.Took)
		for _, what := range r.Failed {
			d.logger.Warn("loaded again, but", "problem", what)
		}
		if len(r.RestartNeeded) > 0 {
			d.logger.Warn("loaded again, but for settings that take a restart", "settings", r.RestartNeeded)
		}
	}
	return r, err
}

// signalTrigger is what a record calls a reload that a signal has asked for.
const signalTrigger = "SIGHUP"

// recorded reloads and keeps the record.
func (d *daemon) recorded(ctx context.Context, trigger string) (api.Record, error) {
	if !d.reloading.TryLock() {
		if trigger != signalTrigger {
			return api.Record{}, penstock.ErrChanging
		}
		if d.again.Store(true); !d.reloading.TryLock() { // whoever has it sees that, when it is done
			return api.Record{}, penstock.ErrChanging
		}
		d.again.Store(false)
	}
	defer d.reloading.Unlock()
	select { // a pipeline that is starting is not refused what it can have in a moment
	case <-d.rt.Started():
	case <-ctx.Done():
		return api.Record{}, penstock.ErrChanging
	}
	record := api.Record{At: time.Now(), Trigger: trigger}
	how, restart, err := d.reload(ctx)
	record.Reloaded, record.RestartNeeded = how, restart
	if err != nil {
		record.Error = err.Error()
	}
	d.mu.Lock()
	d.records = append(d.records, record)
	d.records = slices.Clone(d.records[max(len(d.records)-maxRecords, 0):])
	d.mu.Unlock()
	return record, err
}

// reload returns what has changed, and the settings that have changed in the file and take a restart.
func (d *daemon) reload(ctx context.Context) (how penstock.Reloaded, restart []string, err error) {
	c, err := config.Load(d.flags.config, d.app.options())
	if err != nil {
		return penstock.Reloaded{}, nil, err
	}
	d.flags.apply(c)
	p, err := d.pipeline(c)
	if err == nil {
		err = fixed(d.current, c)
	}
	if err != nil {
		return penstock.Reloaded{}, nil, err
	}
	how, err = d.rt.Reload(ctx, p)
	if err != nil {
		return how, nil, err
	}
	was := d.current
	for _, x := range []struct {
		what     string
		was, now any
	}{
		{"listen", was.Listen, c.Listen},
		{"tls", was.TLS, c.TLS},
		{"token", was.Token, c.Token},
		{"log", was.Log, c.Log},
		{"tracing", was.Tracing, c.Tracing},
	} {
		if !reflect.DeepEqual(x.was, x.now) {
			restart = append(restart, x.what)
		}
	}
	c.Listen, c.TLS, c.Token, c.Log, c.Tracing = was.Listen, was.TLS, was.Token, was.Log, was.Tracing
	d.mu.Lock()
	d.current = c
	d.mu.Unlock()
	return how, restart, nil
}

// fixed checks that what cannot be changed while a pipeline runs is what it was.
func fixed(was, now *config.Config) error {
	var errs []error
	for _, x := range []struct {
		key      string
		was, now any
	}{{"memory", was.Memory, now.Memory}, {"max_message", was.MaxMessage, now.MaxMessage}, {"data", was.Data, now.Data}} {
		if x.was != x.now {
			errs = append(errs, fmt.Errorf("%s: %s cannot be changed while the pipeline runs: it is %v, and would be %v; start it anew",
				strings.Join(now.Files, ", "), x.key, x.was, x.now))
		}
	}
	return errors.Join(errs...)
}

// listener makes the linter see that pools fulfil what kinds ask for.
var _ func(context.Context, string, string) (net.Listener, error) = (*listen.Pool)(nil).Listen
