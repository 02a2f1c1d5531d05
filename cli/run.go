package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/sink/stdout"
	"github.com/spf13/cobra"
)

// runFlags are the flags of run. Those that a file can say too are empty where they were not given.
type runFlags struct {
	config    string
	untilIdle bool
	summary   string
	watch     bool
	listen    string
	data      string
	logLevel  string
	logFormat string
	progress  string
	strict    bool
}

func (a *App) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "run", Short: "Run a pipeline", Args: cobra.NoArgs,
		Long: "Run a pipeline. SIGTERM and Ctrl-C end it: sources stop, what is under way is finished for as long as `drain` says, and the rest\n" +
			"comes again from its source; a second one stops it at once. SIGHUP reads the file again and changes what has changed; if the file is\n" +
			"wrong, it says why and changes nothing. Logs and the summary go to standard error, --summary json to standard output.",
		Example: "  penstock run\n  penstock run -c conf.d --watch\n  penstock run -c job.yaml --until-idle --summary json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return exit(ExitUsage, err)
			}
			return a.run(cmd.Context(), f)
		},
	}
	configFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.BoolVar(&f.untilIdle, "until-idle", false, "end when every source has ended and all is settled; a source without end keeps it running")
	flags.StringVar(&f.summary, "summary", "text", "at the end: text, json (one line on standard output) or none")
	flags.BoolVar(&f.watch, "watch", false, "load the file again whenever it changes")
	flags.StringVar(&f.listen, "listen", "", "address for health, metrics and control, or off (default as the file says: 127.0.0.1:7070)")
	flags.StringVar(&f.data, "data", "", "directory for cursors and dead letters (default as the file says: data)")
	flags.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error (default as the file says: info)")
	flags.StringVar(&f.logFormat, "log-format", "", "text or json (default as the file says: text)")
	flags.StringVar(&f.progress, "progress", "auto", "a line that shows how far it is: auto (if standard error is a terminal), always or never")
	flags.BoolVar(&f.strict, "strict-borrow", false, "for tests: make a message unreadable when its handler returns; slow")
	return cmd
}

func (f *runFlags) check() error {
	for _, x := range []struct {
		flag, value string
		of          []string
	}{
		{"summary", f.summary, []string{"text", "json", "none"}},
		{"log-level", f.logLevel, []string{"", "debug", "info", "warn", "error"}},
		{"log-format", f.logFormat, []string{"", "text", "json"}},
		{"progress", f.progress, []string{"auto", "always", "never"}},
	} {
		if err := oneOf(x.flag, x.value, x.of); err != nil {
			return err
		}
	}
	return nil
}

func oneOf(flag, value string, of []string) error {
	for _, v := range of {
		if v == value {
			return nil
		}
	}
	if of[0] == "" {
		of = of[1:]
	}
	return fmt.Errorf("--%s %q: give one of %v", flag, value, of)
}

// apply puts what was given on the command line in the place of what the file says.
func (f *runFlags) apply(c *config.Config) {
	switch f.listen {
	case "":
	case "off":
		c.Listen = ""
	default:
		c.Listen = f.listen
	}
	for _, x := range []struct{ from, to *string }{{&f.data, &c.Data}, {&f.logLevel, &c.Log.Level}, {&f.logFormat, &c.Log.Format}} {
		if *x.from != "" {
			*x.to = *x.from
		}
	}
}

// run runs a pipeline until it is done, or told to end.
func (a *App) run(ctx context.Context, f *runFlags) error {
	signals, stopSignals := a.signals() // from here on none ends the process unseen
	defer stopSignals()
	c, err := a.load(f.config)
	if err != nil {
		return err
	}
	f.apply(c)
	screen := newScreen(a.Stderr, f.progress)
	d, err := a.newDaemon(f, c, newLogger(screen, c.Log))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := d.serve(ctx); err != nil {
		return exit(ExitFailed, errors.Join(err, d.close()))
	}
	began := time.Now()
	done := make(chan outcome, 1)
	go func() {
		s, err := d.rt.Run(ctx)
		done <- outcome{s, err}
	}()
	background, stopBackground := context.WithCancel(ctx)
	stopProgress := screen.follow(d.rt.Stats)
	tidy := func() {
		stopBackground()
		stopProgress()
	}
	if f.watch {
		go d.watch(background)
	}
	o, err := d.attend(background, cancel, signals, done)
	tidy()
	if err != nil {
		return err
	}
	closeErr := d.close()
	if err := a.summarize(f.summary, o.summary, time.Since(began), c.Data); err != nil {
		return exit(ExitFailed, err)
	}
	if n := o.summary.Returned; n > 0 && o.err == nil {
		o.err = fmt.Errorf("%d messages were not settled when the time was over that drain gives; they come again, if their source can send "+
			"them again", n)
	}
	if err := errors.Join(o.err, closeErr); err != nil {
		return exit(ExitFailed, err)
	}
	return nil
}

// outcome is how a pipeline has ended.
type outcome struct {
	summary penstock.Summary
	err     error
}

const (
	// sameSignal is how close signals are that count as one: a shell, make and timeout(1) send one to the process and one to its group.
	sameSignal = 100 * time.Millisecond
	// lookEvery is how often a pipeline is looked at that may have to end because its output has been closed.
	lookEvery = 500 * time.Millisecond
	// lastGrace is how long everything else is finished for then.
	lastGrace = 2 * time.Second
)

// attend acts upon signals until the pipeline has ended, or is left as it is: then the error says why. cancel ends the pipeline.
func (d *daemon) attend(ctx context.Context, cancel func(), signals <-chan os.Signal, done <-chan outcome) (outcome, error) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	started := d.rt.Started()
	var told time.Time // when the first signal to end came
	var over <-chan time.Time
	var why error
	for {
		select {
		case <-started:
			started = nil
			d.sayRunning()
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				go func() { _, _ = d.Reload(ctx, "SIGHUP") }() // the log has said how it went
			case told.IsZero():
				told = time.Now()
				d.draining.Store(true)
				d.logger.Info("ending: sources stop, and what is under way is finished; a second signal stops at once", "signal", s.String())
				cancel()
			case time.Since(told) > sameSignal:
				d.logger.Error("stopped at once; what was not settled comes again from its source", "signal", s.String())
				return outcome{}, exit(ExitStopped, nil)
			}
		case <-look.C:
			if why = d.closed(); why == nil || over != nil {
				continue
			}
			d.logger.Error("ending: what goes to the standard output can never be written", "error", why)
			d.draining.Store(true)
			cancel()
			over = time.After(lastGrace)
		case <-over:
			return outcome{}, exit(ExitFailed, why)
		case o := <-done:
			select {
			case <-started: // both have come about at one time
				d.sayRunning()
			default:
			}
			o.err = errors.Join(o.err, why)
			return o, nil
		}
	}
}

func (d *daemon) sayRunning() {
	d.mu.Lock()
	files := d.current.Files
	d.mu.Unlock()
	d.logger.Info("running", "files", strings.Join(files, " "), "listen", d.address())
}

// closed says that the reader of the standard output has gone, and some sink writes to it.
func (d *daemon) closed() error {
	s := d.rt.Stats()
	for i := range s.Rows {
		if r := &s.Rows[i]; r.Kind == "sink" && r.State == stdout.Closed {
			return fmt.Errorf("sink %q: %s", r.Name, r.Error)
		}
	}
	return nil
}

// signals are those that the process is told to act upon.
func (a *App) signals() (<-chan os.Signal, func()) {
	if a.Signals != nil {
		return a.Signals, func() {}
	}
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// newLogger is a logger as the file asks for.
func newLogger(w io.Writer, l config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.SlogLevel()}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// summarize prints what has become of all messages.
func (a *App) summarize(how string, s penstock.Summary, took time.Duration, data string) error {
	switch how {
	case "json":
		line, err := json.Marshal(struct {
			penstock.Summary
			Took float64 `json:"seconds"`
		}{s, took.Seconds()})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Stdout, "%s\n", line)
		return err
	case "text":
		return writeSummary(a.Stderr, s, took, data)
	}
	return nil
}
