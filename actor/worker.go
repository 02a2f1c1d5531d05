package actor

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/internal/lend"
	"github.com/penstock-dev/penstock/internal/mutate"
	"github.com/penstock-dev/penstock/loop"
	"github.com/penstock-dev/penstock/plugin"
)

// worker calls the handler: the one goroutine of mode actor, or one of mode pool. Its fields are its own goroutine's, but for those that
// say otherwise.
type worker struct {
	a       *Actor
	inst    *instance
	msg     plugin.Message
	batch   plugin.Messages
	at      func(int) *plugin.Message
	own     loop.Delivery // mode actor: the delivery in hand
	d       *loop.Delivery
	pick    []uint32
	pos     int // place in the delivery of the message in hand
	emits   emitter
	blocked map[laneKey]struct{} // keys of which a message is not done with
	filter  [filterSize]uint16   // how many of them have these low bits: most messages need no look-up
	report  []loop.Exception
	step    arena.Step         // of a batch that is followed; else nil
	touched bool               // the message in hand was held, or has emitted
	inBatch bool               // HandleBatch is under way
	crashed *plugin.PanicError // by the last message of the delivery; see restart
	call    *callContext
	strict  *page
	pins    pins
	holding holding

	// shared with the watch
	attention atomic.Uint32 // reasons to look up between messages
	progress  atomic.Uint64 // delivery<<20 | message<<1 | busy
	waits     atomic.Bool   // for memory to emit into, which is not the handler's fault
	callNow   atomic.Pointer[callContext]
	seen      watched
}

const filterSize = 1 << 10

// laneKey is a key of one loop's messages: order is by source and key, and each loop says by itself when a key goes on.
type laneKey struct {
	lane *loop.Lane
	hash uint64
}

const (
	attendWatch uint32 = 1 << iota // say exactly where you are, and do not keep reports back
	attendUsed                     // the context of this call has been handed on
)

func newWorker(a *Actor) *worker {
	w := &worker{a: a, blocked: map[laneKey]struct{}{}}
	w.at = w.message
	w.emits.w = w
	w.seen.w = w
	return w
}

// reset prepares for the first delivery.
func (w *worker) reset() { w.renew() }

// renew gives the calls to come a context of their own.
func (w *worker) renew() {
	w.call = newCallContext(w)
	w.callNow.Store(w.call)
}

// serve takes deliveries until the actor is stopped.
func (w *worker) serve() {
	for {
		w.own = <-w.a.mailbox
		w.a.answered(&w.own)
		if w.own.Lane != nil {
			w.take(&w.own)
		}
		w.a.obey(w)
		if w.a.stopping.Load() {
			return
		}
	}
}

// take serves one delivery and returns it.
func (w *worker) take(d *loop.Delivery) {
	var pick []uint32
	if s := d.Special; s != nil {
		pick = s.Pick
		w.letGo(d, s.Resume)
	}
	if d.Batch != nil {
		w.handle(d, pick)
		giveBack(d, w.detail())
	}
	d.Lane.Done(d)
	w.restart()
}

// restart waits for another instance, if the last message of a delivery made the handler panic. The delivery has been returned by then: it
// has nothing to wait for.
func (w *worker) restart() {
	if p := w.crashed; p != nil {
		w.crashed = nil
		w.a.crash(w.inst, p)
	}
}

// giveBack reports detail, if there is something to report, and returns the batch. A report goes out before the return: were it after,
// another borrower could be the last one meanwhile, and the loop would settle the batch without having heard of the exceptions.
func giveBack(d *loop.Delivery, detail *loop.Detail) {
	if detail != nil && d.Batch.Borrowers() > 1 {
		d.Lane.Report(d.Unit, false, detail)
		detail = nil
	}
	if d.Batch.Return() {
		d.Lane.Report(d.Unit, true, detail)
	}
}

// letGo ends the keeping back of keys. A delivery that is only about keys is answered, so that the loop knows what had been kept back.
func (w *worker) letGo(d *loop.Delivery, keys []uint64) {
	for _, h := range keys {
		if _, ok := w.blocked[laneKey{d.Lane, h}]; ok {
			delete(w.blocked, laneKey{d.Lane, h})
			w.filter[h%filterSize]--
		}
		if mutate.On(mutate.KeysOfAllLanes) {
			maps.DeleteFunc(w.blocked, func(k laneKey, _ struct{}) bool { return k.hash == h })
		}
	}
	if d.Batch == nil && len(keys) > 0 {
		d.Lane.Post(loop.Resumed, &loop.Detail{Keys: keys})
	}
}

// handle shows the messages of d, or those that pick names, to the handler.
func (w *worker) handle(d *loop.Delivery, pick []uint32) {
	n := d.Batch.Len()
	if pick != nil {
		if n = len(pick); n == 0 {
			return
		}
	}
	w.d, w.pick = d, pick
	if t := d.Batch.Trail; t != nil {
		w.step = t.Enter(w.a.cfg.Name, arena.RolePlugin, n)
	}
	w.enter()
	w.msg.Describe(key, w, d.Lane.Stream(d.Stream), int(d.Attempt))
	w.msg.Open(key, d.Batch, 0)
	delivery := (w.progress.Load()>>20 + 1) << 20
	for i := 0; i < n; {
		if w.a.stopping.Load() || w.a.yielding.Load() {
			w.revokeFrom(i, n)
			break
		}
		var p *plugin.PanicError
		if w.inst.batch != nil && n-i > 1 && !w.a.cfg.Order { // in order, one verdict decides whether the next message is shown
			w.progress.Store(delivery | uint64(i)<<1 | 1)
			i, p = w.callBatch(i, n)
		} else {
			i, p = w.callEach(i, n, delivery)
		}
		if p != nil {
			w.failed(i, p)
			if i++; i == n {
				w.crashed = p
				break
			}
			w.crash(p)
		}
	}
	w.msg.Shut(key)
	w.progress.Store(delivery)
	if w.attention.Load() != 0 {
		w.attend()
		w.attention.And(^attendWatch)
	}
	w.leave()
	if w.step != nil {
		w.step.Leave(len(w.report))
		w.step = nil
	}
	w.d, w.pick = nil, nil
}

// index is the place in the batch of message i of the delivery.
func (w *worker) index(i int) int {
	if w.pick == nil {
		return i
	}
	return int(w.pick[i])
}

// callEach calls Handle for the messages from i on. It returns how far it came: n, or the message that panicked.
func (w *worker) callEach(i, n int, delivery uint64) (at int, p *plugin.PanicError) {
	defer func() {
		if v := recover(); v != nil {
			p = &plugin.PanicError{Value: v, Stack: debug.Stack()}
			if at = w.pos; w.pick == nil {
				at = w.msg.Index(key)
			}
		}
	}()
	h, strict := w.inst.handler, w.a.cfg.Strict
	between := roughly // messages between two words of progress, less one
	if n <= few || strict {
		between = 0
	}
	plain := w.pick == nil && !strict && len(w.blocked) == 0
	w.progress.Store(delivery | uint64(i)<<1 | 1)
	var ctx context.Context = w.call
	for ; i < n; i++ {
		if i&between == 0 && i > 0 {
			w.progress.Store(delivery | uint64(i)<<1 | 1)
		}
		if w.attention.Load() != 0 {
			if w.attend() {
				between = 0
				w.progress.Store(delivery | uint64(i)<<1 | 1)
			}
			ctx = w.call
			if w.a.yielding.Load() {
				return i, nil
			}
		}
		if plain {
			w.msg.Next(key, i)
		} else if !w.show(i) {
			continue
		}
		err := h.Handle(ctx, &w.msg)
		if err != nil || w.touched {
			w.verdict(i, err)
			plain = plain && len(w.blocked) == 0
		}
		if strict {
			w.unseal()
		}
	}
	return n, nil
}

// How exact the word of progress is until the watch asks for more: a store that others must see costs more than a small handler.
const (
	few     = 16 // messages of a delivery that are always told one by one
	roughly = 63 // of a longer one: messages between two words, less one
)

// show points the worker's message at message i, unless its key is kept back.
func (w *worker) show(i int) bool {
	w.pos = i
	if w.a.cfg.Strict {
		w.msg.Open(key, w.d.Batch, w.index(i)) // the message before was a private copy
	} else {
		w.msg.Next(key, w.index(i))
	}
	if len(w.blocked) > 0 && w.keptBack(i) {
		return false
	}
	if w.a.cfg.Strict {
		w.seal(i)
	}
	return true
}

// callBatch calls HandleBatch for the messages from i on.
func (w *worker) callBatch(i, n int) (at int, p *plugin.PanicError) {
	w.pos, w.inBatch = i, true
	w.batch.Bind(key, n-i, func(j int) *plugin.Message { return w.at(i + j) })
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				p = &plugin.PanicError{Value: v, Stack: debug.Stack()}
				err = p
			}
		}()
		return w.inst.batch.HandleBatch(w.call, &w.batch)
	}()
	w.inBatch, w.touched = false, false
	w.unseal()
	w.pins.release()
	if w.attention.Load() != 0 {
		w.attend()
	}
	for j := i; j < n; j++ { // first, since a commit releases whatever has not been discarded
		if w.batch.Verdict(key, j-i, err) != nil {
			w.emits.discard(uint32(w.index(j)))
		}
	}
	for j := i; j < n; j++ {
		w.message(j)
		if verdict := w.batch.Verdict(key, j-i, err); verdict != nil || w.emits.dirty() {
			w.verdict(j, verdict)
		}
	}
	w.crashed = p // the whole batch failed with it; which message it was nobody knows
	return n, nil
}

// message points the worker's message at message i of the delivery.
func (w *worker) message(i int) *plugin.Message {
	w.pos = i
	if !w.a.cfg.Strict {
		w.msg.Next(key, w.index(i))
		return &w.msg
	}
	w.unseal() // the message before was a private copy
	w.msg.Open(key, w.d.Batch, w.index(i))
	if w.inBatch {
		w.seal(i)
	}
	return &w.msg
}

// keptBack reports message i as deferred if its key is not done with.
func (w *worker) keptBack(i int) bool {
	h := w.hash(i)
	if h == 0 || w.filter[h%filterSize] == 0 {
		return false
	}
	if _, ok := w.blocked[laneKey{w.d.Lane, h}]; !ok {
		return false
	}
	w.report = append(w.report, loop.Exception{Index: uint32(w.index(i)), What: loop.Deferred})
	return true
}

func (w *worker) hash(i int) uint64 {
	if hashes := w.d.Batch.Hashes; len(hashes) > 0 {
		return hashes[w.index(i)]
	}
	return 0
}

// verdict records what became of message i, if it was not simply acknowledged, and releases or discards what it emitted.
func (w *worker) verdict(i int, err error) {
	w.touched = false
	w.pins.release()
	held := w.takeHeld()
	if held != nil {
		w.holdBack(i)
		w.emits.giveTo(held, uint32(w.index(i)))
		if err != nil {
			_ = held.Resolve(err) // not yet known to the loop: it cannot have lapsed, but the handler may have given a verdict itself
		}
		w.reportHeld(i, held)
		return
	}
	if err == nil {
		w.emits.commit()
		return
	}
	if mutate.On(mutate.EmitsOnFailure) {
		w.emits.commit()
	} else {
		w.emits.discard(uint32(w.index(i)))
	}
	w.holdBack(i)
	w.report = append(w.report, exceptionOf(uint32(w.index(i)), err))
}

// failed records that message i made the handler panic.
func (w *worker) failed(i int, p *plugin.PanicError) {
	if mutate.On(mutate.KeysForgotten) {
		defer clear(w.blocked)
	}
	if mutate.On(mutate.PanicAcked) {
		w.verdict(i, nil)
		return
	}
	w.verdict(i, p) // a hold takes the panic as its verdict
	w.unseal()
}

// holdBack keeps later messages of message i's key from the handler, until the loop says otherwise.
func (w *worker) holdBack(i int) {
	if !w.a.cfg.Order || mutate.On(mutate.KeyNotHeldBack) {
		return
	}
	h := w.hash(i)
	if _, ok := w.blocked[laneKey{w.d.Lane, h}]; !ok && h != 0 {
		w.blocked[laneKey{w.d.Lane, h}] = struct{}{}
		w.filter[h%filterSize]++
	}
}

// attend does what somebody has asked for between two messages. It reports whether progress is to be exact from now on.
func (w *worker) attend() (exact bool) {
	if w.attention.Load()&attendUsed != 0 {
		w.attention.And(^attendUsed)
		w.call.end()
		w.renew()
	}
	if w.attention.Load()&attendWatch != 0 {
		w.flush()
		return true
	}
	return false
}

// Flush implements plugin.Host.
func (w *worker) Flush(lend.Key) { w.flush() }

// flush reports what has gathered, without waiting for the end of the delivery.
func (w *worker) flush() {
	if d := w.detail(); d != nil {
		w.d.Lane.Report(w.d.Unit, false, d)
	}
}

// detail is what there is to report; nil for nothing.
func (w *worker) detail() *loop.Detail {
	if len(w.report) == 0 && !w.emits.pending() {
		return nil
	}
	d := &loop.Detail{Emits: w.emits.take(), Exceptions: append([]loop.Exception(nil), w.report...)}
	clear(w.report)
	w.report = w.report[:0]
	return d
}

// revokeFrom reports the messages from i on as not shown.
func (w *worker) revokeFrom(i, n int) {
	for ; i < n; i++ {
		w.holdBack(i)
		w.report = append(w.report, loop.Exception{Index: uint32(w.index(i)), What: loop.Revoked})
	}
}

// revoke reports a whole delivery as not shown.
func (w *worker) revoke(d *loop.Delivery, pick []uint32) {
	if d.Batch == nil {
		return
	}
	if s := d.Special; s != nil && pick == nil {
		pick = s.Pick
	}
	w.d, w.pick = d, pick
	n := d.Len()
	if pick != nil {
		n = len(pick)
	}
	w.revokeFrom(0, n)
	w.flush()
	w.d, w.pick = nil, nil
}

// callContext is the context of calls of a handler. One serves many calls, as long as no call takes its Done channel: then what was
// derived from it must end with that call, so the next call gets a new one.
type callContext struct {
	context.Context
	cancel context.CancelCauseFunc
	w      *worker
}

func newCallContext(w *worker) *callContext {
	ctx, cancel := context.WithCancelCause(w.a.ctx)
	return &callContext{Context: ctx, cancel: cancel, w: w}
}

// Done is the context's channel. Whoever asks for it may keep it.
func (c *callContext) Done() <-chan struct{} {
	c.w.attention.Or(attendUsed)
	return c.Context.Done()
}

var errReturned = errors.New("the call of Handle has returned")

func (c *callContext) end() { c.cancel(errReturned) }

// watched is what the watch remembers of a worker.
type watched struct {
	w        *worker
	progress uint64
	since    time.Time
	named    bool
}
