package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/buger/jsonparser"
	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/plugin"
)

// delays emits flights that left more than Threshold minutes late to the stream late. It reads the message where it lies and copies
// nothing but what it emits.
type delays struct {
	Threshold int64 `yaml:"threshold" jsonschema:"minimum=0,example=30" jsonschema_description:"Minutes that a flight may be late."`
}

func newDelays(settings delays) (penstock.Handler, error) { return &settings, nil }

func (d *delays) Handle(_ context.Context, m *penstock.Message) error {
	delay, err := jsonparser.GetInt(m.Payload(), "delay")
	if err != nil {
		return penstock.Reject(fmt.Errorf("no delay in %.80q: %w", m.Payload(), err))
	}
	if delay <= d.Threshold {
		return nil
	}
	return m.Emit("late", m.Payload())
}

// airport is what airports knows of one origin.
type airport struct {
	Code       string `json:"airport"`
	Departures int    `json:"departures"`
	Delay      int64  `json:"delay"` // minutes, of all departures together
	Late       int    `json:"late"`
}

// airports counts departures and delays by origin, and emits what it has counted when it stops. Its state is one goroutine's: Handle is
// called for one message after another. A reload hands it on to the next version.
type airports struct {
	env    plugin.Env
	byCode map[string]*airport
}

func newAirports() (penstock.Handler, error) { return &airports{byCode: map[string]*airport{}}, nil }

func (a *airports) Start(_ context.Context, env plugin.Env) error {
	a.env = env
	return nil
}

func (a *airports) Handle(_ context.Context, m *penstock.Message) error {
	delay, err := jsonparser.GetInt(m.Payload(), "delay")
	if err != nil {
		return penstock.Reject(err)
	}
	origin, ok := a.byCode[string(m.Key())]
	if !ok {
		code := string(m.Key()) // a copy: the key is lent
		origin = &airport{Code: code}
		a.byCode[code] = origin
	}
	origin.Departures++
	origin.Delay += delay
	if delay > 60 {
		origin.Late++
	}
	return nil
}

// Stop emits the airports, those first that cost most time.
func (a *airports) Stop(ctx context.Context) error {
	all := slices.SortedFunc(maps.Values(a.byCode), func(x, y *airport) int {
		return cmp.Or(cmp.Compare(y.Delay, x.Delay), cmp.Compare(x.Code, y.Code))
	})
	for _, x := range all {
		line, err := json.Marshal(x)
		if err != nil {
			return err
		}
		if err := a.env.Emit(ctx, "airports", line); err != nil {
			return err
		}
	}
	return nil
}

func (a *airports) Export(context.Context) ([]byte, error) { return json.Marshal(a.byCode) }

func (a *airports) Import(_ context.Context, state []byte) error {
	return json.Unmarshal(state, &a.byCode)
}

var errNow = errors.New("on purpose, after having emitted")

// longhaul emits flights of more than 2,000 miles to the stream long, and fails on purpose now and then, after it has emitted. A failed
// attempt's emits are discarded, so the retry makes no duplicate.
type longhaul struct{ seen int }

func newLonghaul() (penstock.Handler, error) { return &longhaul{}, nil }

func (l *longhaul) Handle(_ context.Context, m *penstock.Message) error {
	distance, err := jsonparser.GetInt(m.Payload(), "distance")
	if err != nil {
		return penstock.Reject(err)
	}
	if distance > 2000 {
		if err := m.Emit("long", m.Payload(), penstock.WithKey(m.Key())); err != nil {
			return err
		}
	}
	if l.seen++; l.seen%100 == 0 && m.Attempt() == 1 {
		return penstock.Retry(errNow, 0)
	}
	return nil
}
