package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/buger/jsonparser"
	"github.com/penstock-dev/penstock"
)

// delays emits flights that left more than Threshold minutes late to the stream late. It reads the message where it lies and copies
// nothing but what it emits.
type delays struct{ Threshold int64 }

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
	code       string
	departures int
	delay      int64 // minutes, of all departures together
	late       int
}

func (a *airport) mean() float64 { return float64(a.delay) / float64(a.departures) }

// airports counts departures and delays by origin. Its state is one goroutine's: Handle is called for one message after another.
type airports struct{ byCode map[string]*airport }

func (a *airports) Handle(_ context.Context, m *penstock.Message) error {
	delay, err := jsonparser.GetInt(m.Payload(), "delay")
	if err != nil {
		return penstock.Reject(err)
	}
	origin, ok := a.byCode[string(m.Key())]
	if !ok {
		code := string(m.Key()) // a copy: the key is lent
		origin = &airport{code: code}
		a.byCode[code] = origin
	}
	origin.departures++
	origin.delay += delay
	if delay > 60 {
		origin.late++
	}
	return nil
}

var errNow = errors.New("on purpose, after having emitted")

// longhaul emits flights of more than 2,000 miles to the stream long, and fails on purpose now and then, after it has emitted. A failed
// attempt's emits are discarded, so the retry makes no duplicate.
type longhaul struct{ seen int }

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
