package loop

import "github.com/penstock-dev/penstock/internal/mutate"

// flow decides how much the source may have unsettled. The window starts small, so that a system that keeps up cycles through few slabs
// and works in cache. It doubles, up to the bound, when it has been full for a while, nothing has settled, and a consumer of the source
// has nothing to do: then it is another consumer that is slow, and this one should not run dry because of it. It halves when much has
// settled in as long: then it was a passing stall.
type flow struct {
	open, most Window
	now        Window
	messages   int
	bytes      int64
	pressure   bool
	told       Window
	timer      timer  // armed while the window is full, or wider than it began
	settles    uint64 // settlements so far
	seen       uint64 // settles, when the timer was armed
	sure       bool   // it was armed by a first look
	still      bool   // it found nothing to change; until something settles or credit comes, it would find the same
}

// stall is how long a full window must stand still before it is widened. A system at full speed turns its window over in less.
const stall Ticks = 2

// brisk is how many settlements within a stall make a window narrower.
const brisk = 8

func (f *flow) init(open, most Window) {
	f.most = most
	f.open = Window{Messages: min(open.Messages, most.Messages), Bytes: min(open.Bytes, most.Bytes)}
	f.now = f.open
	f.told = f.open
}

// limit sets the bound on how wide the window becomes.
func (f *flow) limit(most Window) {
	f.most = most
	f.open = Window{Messages: min(f.open.Messages, most.Messages), Bytes: min(f.open.Bytes, most.Bytes)}
	f.now = Window{Messages: min(f.now.Messages, most.Messages), Bytes: min(f.now.Bytes, most.Bytes)}
}

func (f *flow) arrived(messages int, bytes int64) {
	f.messages += messages
	f.bytes += bytes
}

func (f *flow) settled(messages int, bytes int64) {
	f.messages -= messages
	f.bytes -= bytes
	f.settles++
	f.still = false
}

// full says whether the source may be waiting: it waits from the bound on until an eighth of the window is free.
func (f *flow) full() bool {
	return f.messages > f.now.Messages-max(f.now.Messages/8, 1) || f.bytes > f.now.Bytes-max(f.now.Bytes/8, 1)
}

// grow doubles what is full.
func (f *flow) grow() {
	if f.messages > f.now.Messages-max(f.now.Messages/8, 1) {
		f.now.Messages = min(2*f.now.Messages, f.most.Messages)
	}
	if f.bytes > f.now.Bytes-max(f.now.Bytes/8, 1) {
		f.now.Bytes = min(2*f.now.Bytes, f.most.Bytes)
	}
}

// adjustWindow watches a window that is full, and tells the driver what the window is.
func (c *Core) adjustWindow() {
	f := &c.flow
	if !f.timer.armed() && !f.still && (f.now != f.most && f.full() || f.now != f.open && f.settles != f.seen) {
		f.seen, f.sure = f.settles, false
		c.wheel.add(&f.timer, c.wheel.now+stall)
	}
	w := f.now
	if f.pressure {
		w = Window{}
	}
	if w != f.told {
		f.told = w
		c.effect(SetWindow).Window = w
	}
}

// watchful says whether what happens next may make the core watch its window, for which it must know the time. The gate counts at least what
// the core will: what was posted and not yet heard of, too.
func (c *Core) watchful(g *Gate) bool {
	f := &c.flow
	return !f.timer.armed() && (f.now != f.open || !g.roomy())
}

// resize is called a while after the window was full, or wider than it began.
func (c *Core) resize() {
	f := &c.flow
	if !f.sure { // the window may have been filled just now: a second look decides
		f.seen, f.sure = f.settles, true
		c.wheel.add(&f.timer, c.wheel.now+stall)
		return
	}
	switch settles := f.settles - f.seen; {
	case settles >= brisk:
		f.now.Messages = max(f.now.Messages/2, f.open.Messages)
		f.now.Bytes = max(f.now.Bytes/2, f.open.Bytes)
	case settles == 0 && f.full() && c.starved():
		before := f.now
		f.grow()
		f.still = f.now == before // it is as wide as it may be
	default:
		f.still = settles == 0
	}
}

// starved says whether a consumer of the source has nothing to do. If not, it asks to be told when that changes.
func (c *Core) starved() bool {
	for _, id := range c.cfg.Graph.Streams[0].Consumers {
		k := c.cons[id]
		if k.idle() && k.open() {
			return true
		}
		if k.queue.len() == 0 && k.ready.len() == 0 {
			c.want(k, k.sent)
		}
	}
	return false
}

func (c *Core) pressure(on bool) { c.flow.pressure = on || mutate.On(mutate.WindowStuck) }
