package builtin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/penstock-dev/penstock/builtin"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

type nothing struct{}

// parse reads a file of a pipeline with the kinds of this package, a source of flights and a sink for each of some streams.
func parse(plugins string, streams ...string) error {
	about := kind.About{Name: "none", Summary: "Nothing."}
	reg := kind.NewRegistry(append(
		builtin.Kinds(),
		kind.Source(about, nothing{}, func(nothing, kind.Env) (source.Source, error) { return nil, nil }),
		kind.Sink(about, nothing{}, func(nothing, kind.Env) (sink.Sink, error) { return nil, nil }))...)
	text := plugins + "sources:\n  flights: { none: {} }\nsinks:\n"
	for _, s := range streams {
		text += fmt.Sprintf("  to_%s: { none: {}, from: %s }\n", s, s)
	}
	_, err := config.Parse("doc.yaml", []byte(text), config.Options{Registry: reg})
	return err
}

// Promise: what the pages and the descriptions of the kinds show is right.
func TestExamples(t *testing.T) {
	streams := map[string][]string{
		"filter": {"big"}, "map": {"slim"}, "dedupe": {"once"}, "route": {"late", "punctual", "early"}, "throttle": {"calls"},
	}
	emits := map[string][]string{ // of the kinds' own examples
		"filter": {"late"}, "map": {"marked"}, "dedupe": {"fresh"}, "route": {"late", "punctual", "early"}, "throttle": {"paced"},
	}
	for _, k := range builtin.Kinds() {
		page, err := os.ReadFile(filepath.Join("..", "docs", "plugin-"+k.Name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		shown := 0
		for _, block := range strings.Split(string(page), "```yaml\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			if !strings.HasPrefix(block, "plugins:") {
				block = "plugins:\n  p:\n    " + block + "    from: flights\n    emits: " + streams[k.Name][0] + "\n"
			}
			if err := parse(block, streams[k.Name]...); err != nil {
				t.Errorf("docs/plugin-%s.md:\n%s\n%v", k.Name, block, err)
			}
			shown++
		}
		example := "plugins:\n  p:\n    " + strings.ReplaceAll(strings.TrimSpace(k.Example), "\n", "\n    ") + "\n"
		if err := parse(example, emits[k.Name]...); err != nil || shown == 0 {
			t.Errorf("%d examples in docs/plugin-%s.md; the kind's own:\n%s\n%v", shown, k.Name, example, err)
		}
	}
}

// Promise: a mistake in an expression is shown at its setting in the file, with its place within the expression.
func TestLint(t *testing.T) {
	err := parse("plugins:\n  p:\n    route:\n      routes:\n        - { where: 'msg.a ==', to: o }\n    from: flights\n    emits: o\n", "o")
	if err == nil || !strings.Contains(err.Error(), "doc.yaml:5:") ||
		!strings.Contains(err.Error(), "routes[0].where: line 1, column 9: Syntax error") {
		t.Errorf("got %v", err)
	}
}

// Promise: in mode pool many workers use one instance at one time.
func TestManyWorkers(t *testing.T) {
	for _, x := range []struct {
		kind     kind.Kind
		settings any
	}{
		{builtin.Filter(), filter(`msg.n + 0 >= 0 && msg.s == "\n"`, "")},
		{builtin.Filter(), filter(`msg.n >= 0 && msg.s == "\n"`, "")},
		{builtin.Map(), with(builtin.Map(), func(s *builtin.MapSettings) { s.Set = map[string]string{"m": "msg.n + 1"} })},
		{builtin.Dedupe(), dedupe("msg.n", nil)},
		{builtin.Route(), with(builtin.Route(), func(s *builtin.RouteSettings) { s.Routes = []builtin.RouteTo{{Where: "msg.n >= 0", To: "o"}} })},
		{builtin.Throttle(), throttle("1000000/s", func(s *builtin.ThrottleSettings) { s.Key, s.MaxKeys = "msg.n", 2 })},
	} {
		h := started(t, build(t, x.kind, x.settings, "o"), clock.System{})
		var all sync.WaitGroup
		for worker := range 4 {
			host := &failing{}
			m := lent(t, host, 1, fmt.Sprintf(`{"n":%d,"s":"\u000a"}`, worker))
			all.Go(func() {
				for range 200 {
					if err := h.Handle(t.Context(), m); err != nil {
						t.Error(err)
						return
					}
				}
				if want := 200; host.n != want && (x.kind.Name != "dedupe" || host.n != 1) {
					t.Errorf("%s: worker %d forwarded %d", x.kind.Name, worker, host.n)
				}
			})
		}
		all.Wait()
	}
}
