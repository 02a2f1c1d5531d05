package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/internal/listen"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/source/socket"
)

const (
	reloadMessages = 16 << 20 // at full size: about six seconds
	reloadPlugins  = 10
	reloadEvery    = time.Second
)

// reloadPipeline is a pipeline of ten plugins from a file, which is read again with another setting of the last one every so often.
type reloadPipeline struct {
	tcpRun
	Every time.Duration // 0 for never
}

// reloadResult is what came of it.
type reloadResult struct {
	used
	Reloads int
}

// readFile makes a pipeline of the file, with that setting.
type readFile = func(turn int) (penstock.Pipeline, error)

// file is the text of the file. turn is the setting that changes.
func (*reloadPipeline) file(turn int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "listen: off\nsources:\n  input: { tcp: { address: %q }, frame: u32 }\nplugins:\n", anyPort)
	for i := range reloadPlugins {
		of := 0
		if i == reloadPlugins-1 {
			of = turn
		}
		fmt.Fprintf(&b, "  plugin%d: { native: check, from: input, config: { turn: %d } }\n", i, of)
	}
	return b.Bytes()
}

// moving is lent whose state goes on to its next version.
type moving struct {
	lent
	of       *checks
	settings struct {
		Turn int `json:"turn"`
	}
}

// checks are the plugins that serve, by name.
type checks struct {
	in      *input
	mu      sync.Mutex
	serving map[string]*moving
}

func (c *checks) create() (plugin.Handler, error) {
	return &moving{lent: lent{newChecker(c.in)}, of: c}, nil
}

// Start implements plugin.Starter.
func (h *moving) Start(_ context.Context, env plugin.Env) error {
	h.of.mu.Lock()
	h.of.serving[env.Plugin] = h
	h.of.mu.Unlock()
	return env.Decode(&h.settings)
}

// counts is what goes on.
type counts struct{ Next, Count, Wrong, Sum uint64 }

// Export implements plugin.Exporter.
func (h *moving) Export(context.Context) ([]byte, error) {
	return json.Marshal(counts{h.next, h.count, h.wrong, h.sum})
}

// Import implements plugin.Importer.
func (h *moving) Import(_ context.Context, state []byte) error {
	var c counts
	err := json.Unmarshal(state, &c)
	h.next, h.count, h.wrong, h.sum = c.Next, c.Count, c.Wrong, c.Sum
	return err
}

// do implements job.
func (p *reloadPipeline) do(ctx context.Context, in io.Reader, out io.Writer) error {
	var s serving
	checks := &checks{in: numbered(p.Bytes, p.Size), serving: map[string]*moving{}}
	options := config.Options{Registry: kind.NewRegistry(socket.TCP(), kind.Native("check", checks.create))}
	build := config.Build{Listen: told(listen.NewPool().Listen, out, s.meter.start)}
	read := func(turn int) (penstock.Pipeline, error) {
		c, err := config.Parse("penstock.yaml", p.file(turn), options)
		if err != nil {
			return penstock.Pipeline{}, err
		}
		plan, err := c.Pipeline(build)
		return quiet(plan), err
	}
	var err error
	if s.plan, err = read(0); err != nil {
		return err
	}
	s.from = newCounted(s.plan.Sources[0].From, p.Messages)
	s.plan.Sources[0].From = s.from
	var r reloadResult
	if p.Every > 0 {
		s.also = func(ctx context.Context, rt *penstock.Runtime) error { return p.reload(ctx, rt, read, &r) }
	}
	if r.used, err = s.run(ctx, in); err != nil {
		return err
	}
	if len(checks.serving) != reloadPlugins {
		return fmt.Errorf("%d plugins serve", len(checks.serving))
	}
	for name, h := range checks.serving {
		if err := h.verify(checks.in, p.Messages); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if turn := checks.serving[lastPlugin()].settings.Turn; turn != r.Reloads%2 {
		return fmt.Errorf("after %d reloads the setting is %d", r.Reloads, turn)
	}
	return say(out, r)
}

func lastPlugin() string { return fmt.Sprintf("plugin%d", reloadPlugins-1) }

// reload reloads every so often, until ctx ends.
func (p *reloadPipeline) reload(ctx context.Context, rt *penstock.Runtime, read readFile, r *reloadResult) error {
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		plan, err := read((r.Reloads + 1) % 2)
		if err != nil {
			return err
		}
		how, err := rt.Reload(context.WithoutCancel(ctx), plan)
		if err != nil {
			return fmt.Errorf("reload %d: %w", r.Reloads+1, err)
		}
		r.Reloads++
		touched := slices.Concat(how.Changed, how.Added, how.Removed, how.Failed)
		if strings.Join(touched, ", ") != "plugin "+lastPlugin() || len(how.Untouched) != reloadPlugins {
			return fmt.Errorf("reload %d has touched more than one plugin: %+v", r.Reloads, how)
		}
	}
}

// reloading measures deliveries/s with a reload every so often.
func reloading(every time.Duration) measure {
	return func(ctx context.Context, r *runner) ([]float64, error) {
		run := newTCPRun(r, 1024, reloadMessages)
		if r.check && every > 0 {
			every = time.Millisecond
		}
		var got reloadResult
		err := converse(ctx, r, &reloadPipeline{run, every}, func(address string) job { return &tcpSend{run, address} }, &got, nil)
		if err != nil {
			return nil, err
		}
		if every > 0 && got.Reloads == 0 && got.Took > 2*every {
			return nil, errors.New("nothing was reloaded")
		}
		return []float64{rate(run.Messages*reloadPlugins, got.Took)}, nil
	}
}

func reloadFigures() []figure {
	return []figure{{
		name: "reload", what: "1 KiB frames over one TCP connection to 10 plugins from a file; one of them gets another setting every second",
		against: "the same without reloads", rows: []row{{"reload", perSecond, atLeast(0.95)}},
		ours: reloading(reloadEvery), reference: reloading(0),
	}}
}
