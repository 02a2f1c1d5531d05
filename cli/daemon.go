package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/api"
	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/config"
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
	draining  atomic.Bool

	reloading sync.Mutex

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
	switch {
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
	}
	return r, err
}

// recorded reloads and keeps the record.
func (d *daemon) recorded(ctx context.Context, trigger string) (api.Record, error) {
	if !d.reloading.TryLock() {
		return api.Record{}, penstock.ErrChanging
	}
	defer d.reloading.Unlock()
	select { // a pipeline that is starting is not refused what it can have in a moment
	case <-d.rt.Started():
	case <-ctx.Done():
		return api.Record{}, penstock.ErrChanging
	}
	record := api.Record{At: time.Now(), Trigger: trigger}
	how, err := d.reload(ctx)
	record.Reloaded = how
	if err != nil {
		record.Error = err.Error()
	}
	d.mu.Lock()
	d.records = append(d.records, record)
	d.records = slices.Clone(d.records[max(len(d.records)-maxRecords, 0):])
	d.mu.Unlock()
	return record, err
}

func (d *daemon) reload(ctx context.Context) (penstock.Reloaded, error) {
	c, err := config.Load(d.flags.config, d.app.options())
	if err != nil {
		return penstock.Reloaded{}, err
	}
	d.flags.apply(c)
	p, err := d.pipeline(c)
	if err != nil {
		return penstock.Reloaded{}, err
	}
	how, err := d.rt.Reload(ctx, p)
	if err != nil {
		return how, err
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
			how.Failed = append(how.Failed, x.what+" has changed, which takes another start")
		}
	}
	c.Listen, c.TLS, c.Token, c.Log, c.Tracing = was.Listen, was.TLS, was.Token, was.Log, was.Tracing
	d.mu.Lock()
	d.current = c
	d.mu.Unlock()
	return how, nil
}

// listener makes the linter see that pools fulfil what kinds ask for.
var _ func(context.Context, string, string) (net.Listener, error) = (*listen.Pool)(nil).Listen
