package builtin_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/builtin"
	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/penstocktest"
	"github.com/penstock-dev/penstock/plugin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	message = penstocktest.Message
	emit    = penstocktest.Emit
	header  = penstocktest.Header
)

// build makes a plugin of a kind, as a pipeline does.
func build(t testing.TB, k kind.Kind, settings any, emits ...string) penstock.Plugin {
	t.Helper()
	if p := settings.(kind.Checked).Check(); len(p) > 0 {
		t.Fatalf("settings: %v", p)
	}
	create, err := k.NewPlugin(settings, kind.Env{Name: "p", Emits: emits})
	if err != nil {
		t.Fatal(err)
	}
	return penstock.Plugin{Name: "p", New: create, Emits: emits}
}

// with is the defaults of a kind, changed.
func with[S any](k kind.Kind, change func(s *S)) S {
	s := k.Settings.(S)
	change(&s)
	return s
}

func filter(where, onError string) builtin.FilterSettings {
	return with(builtin.Filter(), func(s *builtin.FilterSettings) {
		if s.Where = where; onError != "" {
			s.OnError = onError
		}
	})
}

// out is m as it is forwarded.
func out(stream string, m message) []emit {
	return []emit{{Stream: stream, Payload: m.Payload, Key: m.Key, Headers: m.Headers}}
}

// Promise: a filter forwards what its condition is true for, with key and headers; what it has no value for goes where on_error says.
func TestFilter(t *testing.T) {
	late := message{Payload: `{"delay": 90, "origin":"SEA"}`, Key: "k", Headers: []header{{Name: "h", Value: "v"}, {Name: "i"}}}
	early := message{Payload: `{"delay": 9, "origin":"SEA"}`}
	without := message{Payload: `{"origin":"SEA"}`}
	var eval *expr.EvalError
	for _, where := range []string{`msg.delay >= 60 && msg.origin == "SEA"`, `msg.delay * 2 >= 120 && msg.origin == "SEA"`} {
		k := builtin.Filter()
		penstocktest.Run(t, build(t, k, filter(where, ""), "big"), []penstocktest.Case{
			{Name: "true", Message: late, Emits: out("big", late)},
			{Name: "false", Message: early},
			{Name: "no value", Message: without, Want: penstocktest.Rejected},
			{Name: "the other side decides", Message: message{Payload: `{"origin":"PDX"}`}},
			{Name: "no JSON", Message: message{Payload: "delay 90"}, Want: penstocktest.Rejected},
			{Name: "empty", Want: penstocktest.Rejected},
		})
		penstocktest.Run(t, build(t, k, filter(where, "drop"), "big"), []penstocktest.Case{{Name: "dropped", Message: without}})
		penstocktest.Run(t, build(t, k, filter(where, "pass"), "big"), []penstocktest.Case{
			{Name: "passed", Message: without, Emits: out("big", without)},
		})
		r := penstocktest.New(t, build(t, k, filter(where, ""), "big")).Send(without)
		if !errors.As(r.Err, &eval) || !strings.Contains(r.Err.Error(), "no such key: delay") {
			t.Errorf("%s: the reason is %v", where, r.Err)
		}
	}
}

func TestMap(t *testing.T) {
	set := func(onError string, pairs ...string) builtin.MapSettings {
		return with(builtin.Map(), func(s *builtin.MapSettings) {
			s.Set = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				s.Set[pairs[i]] = pairs[i+1]
			}
			if onError != "" {
				s.OnError = onError
			}
		})
	}
	whole := func(value, key string) builtin.MapSettings {
		return with(builtin.Map(), func(s *builtin.MapSettings) { s.Value, s.Key = value, key })
	}
	remove := func(s builtin.MapSettings, paths ...string) builtin.MapSettings {
		s.Remove = paths
		return s
	}
	headers := []header{{Name: "h", Value: "v"}}
	for _, c := range []struct {
		name     string
		settings builtin.MapSettings
		in, want string // want "": rejected
		key      string
	}{
		{"a field is set", set("", "late", "msg.delay >= 60"), `{"delay":90}`, `{"delay":90,"late":true}`, "k"},
		{
			"order and numbers stay", set("", "b", "msg.a"), `{"z": 12345678901234567890.10, "b":null ,"a":1e400}`,
			`{"z":12345678901234567890.10,"b":1e400,"a":1e400}`, "k",
		},
		{"expressions see the message as it came", set("", "a", "msg.b", "b", "msg.a"), `{"a":1,"b":2}`, `{"a":2,"b":1}`, "k"},
		{"objects are made", set("", "x.y.z", `"n"`, "x.w", "key"), `{}`, `{"x":{"w":"k","y":{"z":"n"}}}`, "k"},
		{"objects are entered", set("", "x.y", "1"), `{"x":{"a":1,"y":2},"b":[]}`, `{"x":{"a":1,"y":1},"b":[]}`, "k"},
		{"what is no object gives way", set("", "x.y", "1"), `{"x":[1]}`, `{"x":{"y":1}}`, "k"},
		{"escaped names", set("", "$.a", "1"), `{"\u0061":2,"a":3}`, `{"\u0061":1}`, "k"},
		{
			"fields are removed", remove(set(""), "a.b", "c", "d.e", "f.g"), `{"a":{"b":1,"x":2},"c":[1],"d":7}`, `{"a":{"x":2},"d":7}`, "k",
		},
		{"set and remove", remove(set("", "n", "msg.old"), "old"), `{"old":"x"}`, `{"n":"x"}`, "k"},
		{"no object", set("", "a", "1"), `[1]`, "", ""},
		{"no JSON", set("", "a", "1"), `{"a":1`, "", ""},
		{"no value", set("", "a", "msg.b"), `{}`, "", ""},
		{
			"the whole", whole(`{"id": msg.id, "l": [1, 2.5, "ü\n", null, b"x"], "t": timestamp("2001-01-01T00:00:00Z")}`, ""), `{"id":7}`,
			`{"id":7,"l":[1,2.5,"ü\n",null,"eA=="],"t":"2001-01-01T00:00:00Z"}`, "k",
		},
		{"the whole is a field", whole(`$.inner`, ""), `{"inner": {"n":1.0}}`, `{"n":1.0}`, "k"},
		{"what JSON cannot say", whole(`1.0/0.0`, ""), `{}`, "", ""},
		{"a key", whole("", "msg.id"), `{"id":"é\n"}`, `{"id":"é\n"}`, "é\n"},
		{"a key of a number", whole("msg", "msg.id + 1"), `{"id":7}`, `{"id":7}`, "8"},
		{"a key of null is none", whole("msg", "msg.id"), `{"id":null}`, `{"id":null}`, ""},
		{"no key", whole("msg", "msg.id"), `{}`, "", ""},
	} {
		r := penstocktest.Case{Name: c.name, Message: message{Payload: c.in, Key: "k", Headers: headers}, Want: penstocktest.Rejected}
		if c.want != "" {
			r.Want, r.Emits = penstocktest.Acked, []emit{{Stream: "o", Payload: c.want, Key: c.key, Headers: headers}}
			if !json.Valid([]byte(c.want)) {
				t.Errorf("%s: %s", c.name, c.want)
			}
		}
		penstocktest.Run(t, build(t, builtin.Map(), c.settings, "o"), []penstocktest.Case{r})
	}
	in := message{Payload: `{}`}
	penstocktest.Run(t, build(t, builtin.Map(), set("pass", "a", "msg.b"), "o"), []penstocktest.Case{
		{Name: "passed unchanged", Message: in, Emits: out("o", in)},
	})
	big := message{Payload: `{"a":"` + strings.Repeat("x", 900<<10) + `"}`}
	penstocktest.Run(t, build(t, builtin.Map(), set("", "b", "msg.a"), "o"), []penstocktest.Case{
		{Name: "too large", Message: big, Want: penstocktest.Rejected, Is: plugin.ErrEmitTooLarge},
	})
}

func TestRoute(t *testing.T) {
	settings := with(builtin.Route(), func(s *builtin.RouteSettings) {
		s.Routes = []builtin.RouteTo{{"msg.n > 10", "big"}, {"msg.n > 5", "middle"}, {"msg.odd", "odd"}, {"msg.n > 100", "big"}}
	})
	emits := []string{"big", "middle", "odd", "rest"}
	n := func(n string) message { return message{Payload: n} }
	big, middle, odd := n(`{"n":11,"odd":true}`), n(`{"n":6,"odd":false}`), n(`{"n":1,"odd":true}`)
	none, bad := n(`{"n":2,"odd":false}`), n(`{"n":3}`)
	penstocktest.Run(t, build(t, builtin.Route(), settings, emits...), []penstocktest.Case{
		{Name: "first match", Message: big, Emits: out("big", big)},
		{Name: "second", Message: middle, Emits: out("middle", middle)},
		{Name: "third", Message: odd, Emits: out("odd", odd)},
		{Name: "none is dropped", Message: none},
		{Name: "no value", Message: bad, Want: penstocktest.Rejected},
	})
	settings.All, settings.Default, settings.OnError = true, "rest", "skip"
	huge := n(`{"n":101,"odd":true}`)
	penstocktest.Run(t, build(t, builtin.Route(), settings, emits...), []penstocktest.Case{
		{
			Name: "every match, each stream once", Message: huge,
			Emits: append(append(out("big", huge), out("middle", huge)...), out("odd", huge)...),
		},
		{Name: "none goes to the default", Message: none, Emits: out("rest", none)},
		{Name: "skipped", Message: bad, Emits: out("rest", bad)},
	})
	settings.OnError = "drop"
	penstocktest.Run(t, build(t, builtin.Route(), settings, emits...), []penstocktest.Case{
		{Name: "dropped as a whole", Message: n(`{"n":50}`)},
	})
	k := builtin.Route()
	_, err := k.NewPlugin(settings, kind.Env{Name: "r", Emits: []string{"big"}})
	if err == nil || !strings.Contains(err.Error(), "middle, odd, rest") {
		t.Errorf("streams that are not emitted: %v", err)
	}
}

// Promise: what is wrong with settings is reported by field, with the position within the expression, and nothing is built of them.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		settings any
		kind     kind.Kind
		want     []string // field: part of the message
	}{
		{filter("msg.a ==", ""), builtin.Filter(), []string{"where: line 1, column 9: Syntax error"}},
		{filter("1 == 1 &&\n  mgs.a > 2", ""), builtin.Filter(), []string{"where: line 2, column 3: undeclared reference to 'mgs'"}},
		{filter("size", ""), builtin.Filter(), []string{"where: line 1, column 1: the expression gives a value of type int"}},
		{filter("", "explode"), builtin.Filter(), []string{"where: line 1, column 1: the expression is empty", `on_error: "explode"`}},
		{builtin.Map().Settings, builtin.Map(), []string{": a map needs something to do"}},
		{with(builtin.Map(), func(s *builtin.MapSettings) {
			s.Set = map[string]string{"a": "1 +", "b.c": "1", "b": "2", "x..y": "1"}
			s.Remove, s.Value = []string{"b"}, "1"
		}), builtin.Map(), []string{
			"value: value gives the whole payload", "set.a: line 1, column 4", `set.b.c: "b.c" lies within "b"`, `set.x..y: "x..y" is not a path`,
			`remove[0]: "b" is changed twice`,
		}},
		{
			with(builtin.Dedupe(), func(s *builtin.DedupeSettings) { s.By, s.Window, s.MaxKeys = "msg.", 0, 0 }), builtin.Dedupe(),
			[]string{"window: 0s", "max_keys: 0", "by: line 1, column 5"},
		},
		{builtin.Route().Settings, builtin.Route(), []string{"routes: a route needs"}},
		{
			with(builtin.Route(), func(s *builtin.RouteSettings) { s.Routes = []builtin.RouteTo{{"true", "a"}, {"a", ""}} }), builtin.Route(),
			[]string{"routes[1].to: the stream is missing", "routes[1].where: line 1, column 1"},
		},
		{builtin.Throttle().Settings, builtin.Throttle(), []string{"rate: the rate is missing"}},
		{with(builtin.Throttle(), func(s *builtin.ThrottleSettings) {
			s.Rate, s.Burst, s.MaxKeys, s.Key, s.Overflow = kind.Rate{N: 1, Per: time.Minute}, -1, -1, "(", "wait"
		}), builtin.Throttle(), []string{
			"rate: one message in 1m0s cannot be waited for", "burst: -1", "max_keys: -1", "key: line 1, column 2",
		}},
	} {
		problems := c.settings.(kind.Checked).Check()
		if len(problems) != len(c.want) {
			t.Errorf("%+v: %d problems, want %d: %v", c.settings, len(problems), len(c.want), problems)
			continue
		}
		for i, p := range problems {
			if got := p.Field + ": " + p.Message; !strings.HasPrefix(got, c.want[i]) {
				t.Errorf("got %s\nwant %s", got, c.want[i])
			}
		}
		if _, err := c.kind.NewPlugin(c.settings, kind.Env{Name: "p", Emits: []string{"o"}}); err == nil {
			t.Errorf("%+v: built nevertheless", c.settings)
		}
	}
}

// Promise: a plugin with one way out says so.
func TestOneStream(t *testing.T) {
	for _, k := range builtin.Kinds() {
		if k.Name == "route" {
			continue
		}
		for _, emits := range [][]string{nil, {"a", "b"}} {
			_, err := k.NewPlugin(k.Settings, kind.Env{Name: "p", Emits: emits})
			if err == nil || !strings.Contains(err.Error(), "exactly one stream") {
				t.Errorf("%s that emits to %q: %v", k.Name, emits, err)
			}
		}
	}
}

// Any text in the settings: Check never panics, and says nothing exactly if the plugin can be built.
func FuzzSettings(f *testing.F) {
	f.Add("msg.a == 1", "a.b", "$.c", "reject", 10)
	f.Add("", "..", "$.", "drop", -1)
	f.Fuzz(func(t *testing.T, source, path, by, choice string, n int) {
		all := []struct {
			kind     kind.Kind
			settings any
		}{
			{builtin.Filter(), builtin.FilterSettings{Where: source, OnError: choice}},
			{builtin.Map(), builtin.MapSettings{Set: map[string]string{path: source}, Remove: []string{by}, Key: by, OnError: choice}},
			{builtin.Dedupe(), builtin.DedupeSettings{By: by, Window: time.Duration(n), MaxKeys: n, OnError: choice}},
			{builtin.Route(), builtin.RouteSettings{Routes: []builtin.RouteTo{{source, "o"}}, OnError: choice}},
			{builtin.Throttle(), builtin.ThrottleSettings{
				Rate: kind.Rate{N: n, Per: time.Second}, Burst: 1, Key: by, MaxKeys: n, MaxWait: time.Hour, Overflow: "wait", OnError: choice,
			}},
		}
		for _, x := range all {
			problems := x.settings.(kind.Checked).Check()
			create, err := x.kind.NewPlugin(x.settings, kind.Env{Name: "p", Emits: []string{"o"}})
			if (err == nil) != (len(problems) == 0) {
				t.Fatalf("%s: Check says %v, and building it %v", x.kind.Name, problems, err)
			}
			if err != nil {
				continue
			}
			h, err := create()
			if err != nil || h.(plugin.Starter).Start(t.Context(), plugin.Env{Clock: stopped{}}) != nil {
				t.Fatal("an instance cannot be made")
			}
		}
	})
}

// stopped stands still.
type stopped struct{ plugin.Clock }

func (stopped) Now() time.Time { return time.Time{} }
