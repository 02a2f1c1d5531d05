package builtin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/penstock-dev/penstock/internal/clock"
	"github.com/penstock-dev/penstock/internal/expr"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// ThrottleSettings are the settings of a throttle.
type ThrottleSettings struct {
	Rate     kind.Rate     `yaml:"rate" jsonschema:"required,example=100/s" jsonschema_description:"How many messages are let through in how long."`
	Burst    int           `yaml:"burst" jsonschema:"minimum=0,example=20" jsonschema_description:"How many may go at once after a pause; 0 for as many as the rate names."`
	Key      string        `yaml:"key" jsonschema:"example=msg.user" jsonschema_description:"Expression: each of its values has the rate to itself; empty for one rate in all."`
	MaxKeys  int           `yaml:"max_keys" jsonschema:"minimum=1,maximum=10000000" jsonschema_description:"The most values of key that are counted at one time, in about 100 bytes each. Beyond it the one that was not seen for longest begins anew."`
	Overflow string        `yaml:"overflow" jsonschema:"enum=wait,enum=reject,enum=drop" jsonschema_description:"What becomes of a message beyond the rate: wait holds it and all behind it up, so that its source slows down; reject sends it to the dead letters; drop settles it without a trace."`
	MaxWait  time.Duration `yaml:"max_wait" jsonschema:"example=10s" jsonschema_description:"With wait: the longest that one message is waited for. One that would have to wait longer is retried after that time, which counts as an attempt. It must be shorter than the plugin's timeout."`
	OnError  string        `yaml:"on_error" jsonschema:"enum=reject,enum=drop,enum=pass" jsonschema_description:"What becomes of a message for which key has no value: reject sends it to the dead letters with the reason, drop settles it without a trace, pass forwards it at once."`
}

const mostBuckets = 10_000_000

// ErrThrottled is the reason of messages beyond the rate that are rejected, or retried.
var ErrThrottled = errors.New("more messages than the rate allows")

// Throttle is the kind of plugin that forwards messages at a bounded rate.
func Throttle() kind.Kind {
	return kind.Plugin(kind.About{
		Name: "throttle", Summary: "Forwards messages at no more than a given rate.",
		Doc:     "By default what is beyond the rate waits, and with it everything behind it, so that the source slows down: nothing is lost.",
		Example: "throttle: { rate: 100/s, burst: 20 }\nfrom: flights\nemits: paced\n",
	}, ThrottleSettings{MaxKeys: 10_000, Overflow: wait, MaxWait: 10 * time.Second, OnError: reject}, newThrottle)
}

// Check implements kind.Checked.
func (s ThrottleSettings) Check() []kind.Problem {
	_, p := s.compile()
	return p
}

func (s ThrottleSettings) compile() (*expr.Program, problems) {
	var p problems
	p.choice("overflow", s.Overflow, wait, reject, drop)
	p.choice("on_error", s.OnError, reject, drop, pass)
	if s.Rate.N <= 0 || s.Rate.Per <= 0 {
		p.add("rate", "the rate is missing: write how many messages in how long, as in 100/s")
	} else if every := s.every(); s.Overflow == wait && s.MaxWait > 0 && every > s.MaxWait {
		p.add("rate", "one message in %v cannot be waited for: the longest wait, max_wait, is %v; set it higher, and the plugin's timeout "+
			"above it, or choose overflow: reject or drop", every, s.MaxWait)
	}
	if s.Burst < 0 {
		p.add("burst", "%d is negative: write how many messages may go at once", s.Burst)
	}
	if s.MaxKeys < 1 || s.MaxKeys > mostBuckets {
		p.add("max_keys", "%d is not between 1 and %d", s.MaxKeys, mostBuckets)
	}
	if s.MaxWait <= 0 {
		p.add("max_wait", "%v is not a time to wait: write one, as in 10s", s.MaxWait)
	}
	if s.Key == "" {
		return nil, p
	}
	return p.value("key", field(s.Key)), p
}

// every is the time from one message to the next.
func (s ThrottleSettings) every() time.Duration { return max(s.Rate.Per/time.Duration(s.Rate.N), 1) }

func newThrottle(s ThrottleSettings, env kind.Env) (func() (plugin.Handler, error), error) {
	stream, err := onlyStream("throttle", env)
	if err != nil {
		return nil, err
	}
	by, p := s.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	burst := s.Burst
	if burst == 0 {
		burst = s.Rate.N
	}
	every := s.every()
	ahead := every * time.Duration(burst)
	if ahead/every != time.Duration(burst) {
		return nil, fmt.Errorf("plugin %q: a burst of %d at %v is too much to count: lower it", env.Name, burst, s.Rate)
	}
	return func() (plugin.Handler, error) {
		return &throttle{
			tally: tally{kind: "throttle"}, by: by, stream: stream, overflow: s.Overflow, onError: s.OnError, maxWait: s.MaxWait,
			buckets: buckets{every: every, ahead: ahead, most: s.MaxKeys, at: map[sum]uint32{}},
		}, nil
	}, nil
}

type throttle struct {
	tally
	inputs
	by       *expr.Program // nil: one bucket
	stream   string
	overflow string
	onError  string
	maxWait  time.Duration
	clock    plugin.Clock
	start    time.Time

	mu      sync.Mutex
	buckets buckets
}

var _ plugin.Handler = (*throttle)(nil)

// Start implements plugin.Starter.
func (t *throttle) Start(ctx context.Context, env plugin.Env) error {
	t.clock, t.start = env.Clock, env.Clock.Now()
	return t.tally.Start(ctx, env)
}

// Handle implements plugin.Handler.
func (t *throttle) Handle(ctx context.Context, m *plugin.Message) error {
	id, err := t.bucket(m)
	if err != nil {
		return t.fails(m, t.onError, t.stream, "key", err)
	}
	most := time.Duration(0)
	if t.overflow == wait {
		most = t.maxWait
	}
	t.mu.Lock()
	left := t.buckets.take(id, t.clock.Now().Sub(t.start), most)
	t.mu.Unlock()
	switch {
	case left <= 0:
	case t.overflow == drop:
		return t.drop()
	case t.overflow == reject:
		return plugin.Reject(fmt.Errorf("throttle: %w", ErrThrottled))
	case left > most:
		return plugin.Retry(fmt.Errorf("throttle: %w: it would have to wait for %v, and max_wait is %v", ErrThrottled, left, most), left)
	default:
		m.Flush() // what went before has its own time
		if err := clock.Sleep(ctx, t.clock, left); err != nil {
			t.mu.Lock()
			t.buckets.giveBack(id)
			t.mu.Unlock()
			return fmt.Errorf("throttle: while waiting for the rate to allow the message: %w", err)
		}
	}
	return m.Forward(t.stream)
}

// bucket is what the message's rate is counted by.
func (t *throttle) bucket(m *plugin.Message) (sum, error) {
	if t.by == nil {
		return sum{}, nil
	}
	in := t.get(m)
	defer t.put(in)
	var err error
	in.key, err = t.by.AppendText(in.key[:0], &in.Input)
	return sumOf(in.key), err
}

// buckets count by the time at which each would be full again: taking a message moves that on by every, and it may lie ahead of now by at
// most ahead. A bucket that is full is as good as none, so it may be forgotten.
type buckets struct {
	every, ahead time.Duration
	most         int
	at           map[sum]uint32 // places in list
	list         []bucket       // linked, from what was used last to what was used first
	newest       uint32
	oldest       uint32
}

type bucket struct {
	id           sum
	full         time.Duration
	older, newer uint32
}

const nowhere = ^uint32(0)

// take takes one message from the bucket of id, and says how long it has to wait. If that is longer than most, nothing was taken.
func (b *buckets) take(id sum, now, most time.Duration) time.Duration {
	x := b.find(id)
	full := max(x.full, now) + b.every
	left := full - now - b.ahead
	if left <= most {
		x.full = full
	}
	return left
}

// giveBack undoes a take.
func (b *buckets) giveBack(id sum) {
	if i, ok := b.at[id]; ok {
		b.list[i].full -= b.every
	}
}

// find is the bucket of id, which becomes the newest.
func (b *buckets) find(id sum) *bucket {
	i, ok := b.at[id]
	switch {
	case ok && i == b.newest:
		return &b.list[i]
	case ok:
		b.unlink(i)
	case len(b.list) < b.most:
		i = uint32(len(b.list))
		if i == 0 {
			b.newest, b.oldest = nowhere, nowhere
		}
		b.list = append(b.list, bucket{id: id, full: minTime})
		b.at[id] = i
	default:
		i = b.oldest
		b.unlink(i)
		delete(b.at, b.list[i].id)
		b.list[i] = bucket{id: id, full: minTime}
		b.at[id] = i
	}
	x := &b.list[i]
	x.older, x.newer = b.newest, nowhere
	if b.newest != nowhere {
		b.list[b.newest].newer = i
	}
	b.newest = i
	if b.oldest == nowhere {
		b.oldest = i
	}
	return x
}

const minTime = -1 << 62 // long ago

func (b *buckets) unlink(i uint32) {
	x := &b.list[i]
	if x.older != nowhere {
		b.list[x.older].newer = x.newer
	} else {
		b.oldest = x.newer
	}
	if x.newer != nowhere {
		b.list[x.newer].older = x.older
	} else {
		b.newest = x.older
	}
}
