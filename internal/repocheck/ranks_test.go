package repocheck

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layer is one rung: the packages that match, and the packages further down that they may import.
type layer struct {
	packages string   // a folder, or folder/... for what is below it
	may      []string // names of rungs further down; "below" is all of them
	public   bool     // whatever may says, nothing under internal/: this is what users write too
}

// ladder is the order of the layers, the lowest first. An upstream layer never imports a downstream one: it declares a small interface
// that the later one fulfils. Only the rungs with "below" wire layers together. Tests may import what they like.
func ladder() []layer {
	return []layer{
		// Helpers that know nothing of messages.
		{packages: "internal/invariants"},
		{packages: "internal/mutate"},
		{packages: "internal/lend"},
		{packages: "internal/clock"},
		{packages: "internal/fsx"},
		{packages: "internal/fsx/fsxtest", may: []string{"internal/fsx"}},
		{packages: "internal/datadir", may: []string{"internal/fsx"}},
		{packages: "internal/listen"},
		{packages: "internal/suggest"},
		{packages: "internal/tlstest"},
		{packages: "internal/yamltree"},

		// The way of a message.
		{packages: "arena", may: []string{"internal/invariants"}},
		{packages: "decode", may: []string{"arena", "internal/invariants"}},
		{packages: "loop", may: []string{"arena", "internal/clock", "internal/invariants", "internal/mutate"}},
		{packages: "plugin", may: []string{"arena", "internal/clock", "internal/invariants", "internal/lend", "internal/mutate"}},
		{packages: "source", may: []string{"arena", "internal/clock"}},
		{packages: "sink", may: []string{"arena", "source"}},
		{packages: "actor", may: []string{
			"arena", "loop", "plugin", "sink", "internal/clock", "internal/invariants", "internal/lend", "internal/mutate",
		}},
		{packages: "deadletter", may: []string{
			"arena", "loop", "plugin", "source", "sink", "internal/clock", "internal/fsx", "internal/invariants",
		}},

		// What a pipeline's file can name.
		{packages: "kind", may: []string{"plugin", "source", "sink"}},
		{packages: "source/...", may: []string{
			"arena", "decode", "source", "kind", "internal/clock", "internal/fsx", "internal/invariants",
		}},
		{packages: "sink/...", may: []string{
			"arena", "plugin", "source", "sink", "kind", "internal/clock", "internal/fsx", "internal/invariants",
		}},
		{packages: "internal/expr", may: []string{"arena"}},
		{packages: "builtin", may: []string{"kind", "plugin", "internal/clock", "internal/expr"}},

		// What wires them, and what stands on the whole.
		{packages: ".", may: []string{"below"}},
		{packages: "penstocktest", may: []string{"below"}},
		{packages: "config", may: []string{".", "arena", "kind", "plugin", "source", "sink", "internal/suggest", "internal/yamltree"}},
		{packages: "telemetry", may: []string{".", "arena", "kind"}},
		{packages: "api", may: []string{".", "arena", "kind"}},
		{packages: "internal/pipetest", may: []string{"below"}},
		{packages: "cli", may: []string{"below"}},
		{packages: "standard", may: []string{"kind", "builtin", "source/...", "sink/..."}},
		{packages: "internal/sim", may: []string{"below"}},
		{packages: "internal/sim/...", may: []string{"below"}},
		{packages: "examples/...", may: []string{"below"}, public: true},
		{packages: "cmd/...", may: []string{"below"}},
		{packages: "internal/repocheck"},
	}
}

// rung is the index of the layer of the package in folder dir, or -1. An exact name goes before a pattern.
func rung(layers []layer, dir string) int {
	pattern := -1
	for i, l := range layers {
		if l.packages == dir {
			return i
		}
		if under, ok := strings.CutSuffix(l.packages, "/..."); ok && strings.HasPrefix(dir, under+"/") {
			pattern = i
		}
	}
	return pattern
}

// checkRanks finds imports that go up the ladder, or beside it, in files of any build tag.
func checkRanks(tr *tree, layers []layer) []string {
	var out []string
	for _, dir := range tr.packages() {
		if rung(layers, dir) < 0 {
			out = append(out, fmt.Sprintf("%s: this package has no rank: give it one in ladder(), internal/repocheck/ranks_test.go", dir))
		}
	}
	for _, f := range tr.files {
		from := rung(layers, f.dir())
		if f.module != "." || f.test() || from < 0 {
			continue
		}
		for _, spec := range f.syntax.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if name != modulePath && !strings.HasPrefix(name, modulePath+"/") {
				continue
			}
			to := path.Clean("." + strings.TrimPrefix(name, modulePath))
			if allowed(layers, f.dir(), to) {
				continue
			}
			l := layers[from]
			what := "nothing of ours"
			if len(l.may) > 0 {
				what = strings.Join(l.may, ", ")
			}
			if l.public {
				what += ", but nothing internal"
			}
			out = append(out, fmt.Sprintf("%s: imports %s; %s may import %s: declare a small interface that the later layer fulfils, "+
				"or, if the edge is right, add it to ladder() in internal/repocheck/ranks_test.go", tr.line(spec), to, l.packages, what))
		}
	}
	return out
}

// allowed says whether the package in folder from may import the one in folder to.
func allowed(layers []layer, from, to string) bool {
	if strings.HasPrefix(to, from+"/internal/") {
		return true // its own machinery
	}
	a, b := rung(layers, from), rung(layers, to)
	if b < 0 || layers[a].public && (strings.HasPrefix(to, "internal/") || strings.Contains(to, "/internal/")) {
		return false
	}
	if own := strings.TrimSuffix(layers[a].packages, "/..."); a == b && layers[a].public {
		// Examples may have packages of their own, each below its own folder.
		return first(from, own) == first(to, own)
	}
	return b < a && (slices.Contains(layers[a].may, layers[b].packages) || slices.Contains(layers[a].may, "below"))
}

// first is the first folder of dir below own.
func first(dir, own string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(dir, own+"/"), "/")
	return name
}

// Promise: an upstream layer never imports a downstream one.
func TestImportRanks(t *testing.T) {
	report(t, checkRanks(repository(t), ladder()))
}

// The ladder itself must go one way: a rung names only rungs further down.
func TestLadderGoesOneWay(t *testing.T) {
	seen := map[string]bool{"below": true}
	for _, l := range ladder() {
		for _, m := range l.may {
			if !seen[m] {
				t.Errorf("%s may import %s, which is not a rung further down", l.packages, m)
			}
		}
		if seen[l.packages] {
			t.Errorf("%s is there twice", l.packages)
		}
		seen[l.packages] = true
	}
}

func TestRanksAreFound(t *testing.T) {
	const imports = "package p\nimport _ \"" + modulePath
	tr := scratch(t,
		"go.mod", "module "+modulePath+"\n",
		"arena/a.go", imports+"/loop\"\n",
		"arena/a_windows.go", imports+"\"\n",
		"arena/a_test.go", imports+"/loop\"\n",
		"loop/l.go", imports+"/arena\"\n",
		"loop/m.go", imports+"/loop/internal/wheel\"\n",
		"new/n.go", "package n\n",
		"source/kafka/k.go", imports+"/source/file\"\n",
		"source/file/f.go", imports+"/source\"\n",
		"examples/one/e.go", imports+"/internal/clock\"\n",
		"examples/one/f.go", imports+"/examples/one/help\"\n",
		"examples/two/f.go", imports+"/examples/one/help\"\n",
		"cmd/penstock/main.go", imports+"/examples/one\"\n",
		"bench/go.mod", "module bench\n",
		"bench/b.go", imports+"/loop\"\n",
	)
	mustFind(t, checkRanks(tr, ladder()),
		"new: this package has no rank",
		"arena/a.go:2: imports loop; arena may import internal/invariants",
		"arena/a_windows.go:2: imports .;",
		"examples/one/e.go:2: imports internal/clock; examples/... may import below, but nothing internal",
		"examples/two/f.go:2: imports examples/one/help",
		"source/kafka/k.go:2: imports source/file",
	)
}
