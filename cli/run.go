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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/deadletter"
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
	dead      bool // a dead letter is a failure
	strict    bool

	seen string // of the files, before they were read: not a flag
}

func (a *App) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "run", Short: "Run a pipeline", Args: noFile,
		Long: "Run a pipeline. SIGTERM and Ctrl-C end it: sources stop, what is under way is finished for as long as `drain` says, and the rest\n" +
			"comes again if its source can send it again; a second one stops it at once. SIGHUP reads the file again and changes what has\n" +
			"changed; if the file is wrong, it says why and changes nothing. Logs and the summary go to standard error, --summary json to\n" +
			"standard output.",
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
	flags.BoolVar(&f.dead, "fail-on-dead", false, "exit with 1 if a message went to the dead letters")
	flags.BoolVar(&f.strict, "strict-borrow", false, "for tests: make a message unreadable when its handler returns; slow")
	for _, c := range f.choices() {
		values(cmd, c.flag, slices.DeleteFunc(c.of, func(v string) bool { return v == "" })...)
	}
	return cmd
}

// choice is a flag that has one of some values.
type choice struct {
	flag, value string
	of          []string // "" is the first, where the file can say it too
}

func (f *runFlags) choices() []choice {
	return []choice{
		{"summary", f.summary, []string{"text", "json", "none"}},
		{"log-level", f.logLevel, []string{"", "debug", "info", "warn", "error"}},
		{"log-format", f.logFormat, []string{"", "text", "json"}},
		{"progress", f.progress, []string{"auto", "always", "never"}},
	}
}

func (f *runFlags) check() error {
	for _, x := range f.choices() {
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

// run runs a pipeline until it is done, or told to end. Where the log is JSON, its error is a record of the log.
func (a *App) run(ctx context.Context, f *runFlags) error {
	signals, stopSignals := a.signals() // from here on none ends the process unseen
	defer stopSignals()
	l := config.Log{Format: f.logFormat}
	f.seen = fingerprint(f.config)
	c, err := a.load(f.config)
	if err == nil {
		f.apply(c)
		l = c.Log
	}
	screen := newScreen(a.Stderr, f.progress)
	if err == nil {
		err = a.runLoaded(ctx, f, c, screen, signals)
	}
	var code *exitError
	if l.Format == "json" && errors.As(err, &code) && code.err != nil {
		newLogger(screen, l).Error("failed", "error", code.err, "exit_code", code.code)
		return exit(code.code, nil)
	}
	return err
}

// runLoaded runs the pipeline of a file that has been read.
func (a *App) runLoaded(ctx context.Context, f *runFlags, c *config.Config, screen *screen, signals <-chan os.Signal) error {
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
	if f.watch {
		go d.watch(background)
	}
	o, left := d.attend(background, cancel, signals, done)
	stopBackground()
	stopProgress()
	if left == nil {
		o.err = errors.Join(o.err, d.close())
	}
	if d.began() || o.err == nil || o.summary.Accepted > 0 { // else there is nothing to tell but the error
		told := make(chan error, 1)
		took := time.Since(began)
		go func() { told <- a.summarize(screen, f.summary, c, o.summary, took) }()
		if err := hear(told, left != nil); err != nil && left == nil {
			return exit(ExitFailed, errors.Join(o.err, err))
		}
	}
	if left != nil {
		return left
	}
	return f.judge(c, o)
}

// hear waits until the summary has been written; in a hurry for a moment only, as nobody may read the outputs.
func hear(told <-chan error, hurry bool) error {
	var over <-chan time.Time
	if hurry {
		over = time.After(time.Second)
	}
	select {
	case err := <-told:
		return err
	case <-over:
		return nil
	}
}

// judge says whether what has come about is a failure.
func (f *runFlags) judge(c *config.Config, o outcome) error {
	if n := o.summary.Returned; n > 0 && o.err == nil {
		o.err = fmt.Errorf("%d messages were not settled when the time was over that drain gives; they come again, if their source can send "+
			"them again", n)
	}
	if n := o.summary.Dead; n > 0 && f.dead {
		o.err = errors.Join(o.err, fmt.Errorf("%s went to the dead letters, each with the reason: %s", count(int(n), "message"),
			deadletter.Path(c.Data)))
	}
	if o.err != nil {
		return exit(ExitFailed, o.err)
	}
	return nil
}

// began says that the pipeline has started.
func (d *daemon) began() bool {
	select {
	case <-d.rt.Started():
		return true
	default:
		return false
	}
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

// attend acts upon signals until the pipeline has ended, or is left as it is: then the error says why, and the summary goes as far as is
// known. cancel ends the pipeline.
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
				go func() { _, _ = d.Reload(ctx, signalTrigger) }() // the log has said how it went
			case told.IsZero():
				told = time.Now()
				d.draining.Store(true)
				d.logger.Info("ending: sources stop, and what is under way is finished; a second signal stops at once", "signal", s.String())
				cancel()
			case time.Since(told) > sameSignal:
				d.logger.Error("stopped at once; what was not settled comes again, if its source can send it again", "signal", s.String())
				return outcome{summary: d.rt.Stats()}, exit(ExitStopped, nil)
			}
		case <-look.C:
			s := d.rt.Stats()
			d.sayEnded(&s)
			if why = closed(&s); why == nil || over != nil {
				continue
			}
			d.logger.Error("ending: what goes to the standard output can never be written", "error", why)
			d.draining.Store(true)
			cancel()
			over = time.After(lastGrace)
		case <-over:
			return outcome{summary: d.rt.Stats()}, exit(ExitFailed, why)
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
	c := d.current
	d.mu.Unlock()
	d.logger.Info("running", "version", d.app.Version, "pid", os.Getpid(), "sources", len(c.Sources), "plugins", len(c.Plugins),
		"sinks", len(c.Sinks), "files", strings.Join(c.Files, " "), "listen", d.address())
}

// sayEnded says, once, that nothing can come any more, and the process goes on nevertheless. Only attend calls it.
func (d *daemon) sayEnded(s *penstock.Summary) {
	if d.saidEnded || d.flags.untilIdle || d.draining.Load() {
		return
	}
	sources := 0
	for i := range s.Rows {
		if s.Rows[i].Kind != "source" {
			continue
		}
		if s.Rows[i].State != "ended" {
			return
		}
		sources++
	}
	if sources > 0 {
		d.saidEnded = true
		d.logger.Info("all sources have ended; the process goes on until it is told to end: --until-idle would end it here")
	}
}

// closed says that the reader of the standard output has gone, and some sink writes to it.
func closed(s *penstock.Summary) error {
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

// summarize prints what has become of all messages. Where the log is JSON, the text is a record of it, whatever its level.
func (a *App) summarize(log io.Writer, how string, c *config.Config, s penstock.Summary, took time.Duration) error {
	switch {
	case how == "json":
		line, err := json.Marshal(struct {
			penstock.Summary
			Took float64 `json:"seconds"`
		}{s, took.Seconds()})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Stdout, "%s\n", line)
		return err
	case how == "text" && c.Log.Format == "json":
		about := []any{
			"accepted", s.Accepted, "settled", s.Settled, "retried", s.Retried, "held", s.Held, "dead", s.Dead, "dropped", s.Dropped,
			"bad", s.Bad, "returned", s.Returned, "seconds", took.Seconds(), "rows", s.Rows,
		}
		if s.Dead > 0 {
			about = append(about, "dead_letters", deadletter.Path(c.Data))
		}
		newLogger(log, config.Log{Format: "json"}).Info("summary", about...)
	case how == "text":
		return writeSummary(a.Stderr, s, took, c.Data)
	}
	return nil
}
