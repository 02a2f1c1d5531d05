package sim

import (
	"context"
	"encoding/binary"

	"github.com/penstock-dev/penstock/plugin"
)

// batchHandler takes what has gathered.
type batchHandler struct{ *handler }

var _ plugin.BatchHandler = (*batchHandler)(nil)

// HandleBatch shows each message to the script; some have verdicts of their own, the others that of the whole.
func (b *batchHandler) HandleBatch(_ context.Context, ms *plugin.Messages) error {
	h, s := b.handler, b.p.s
	calls := make([]*call, ms.Len())
	for i := range calls {
		m := ms.At(i)
		calls[i] = h.open(m)
		if s.failure != nil {
			return nil
		}
		calls[i].emit(m)
	}
	crash := !s.ending && s.chance(s.set.panicRate)
	whole := !s.ending && s.chance(s.set.retryRate/4)
	var err error
	for i, c := range calls {
		switch {
		case crash, whole && s.rnd.IntN(2) == 0:
			if s.failed(c.d, 0); !crash {
				ms.Fail(i, errScripted)
			}
			c.undo()
		case whole:
			s.failed(c.d, 0)
			c.undo()
			err = errScripted
		case !s.ending && s.chance(s.set.retryRate):
			ms.Fail(i, c.refuse(nil))
			c.undo()
		default:
			c.ack()
		}
	}
	if crash {
		h.crashed, h.p.state = true, 0
		panic(scripted)
	}
	return err
}

// stateHandler carries its state over to other versions.
type stateHandler struct{ *handler }

var (
	_ plugin.Exporter = (*stateHandler)(nil)
	_ plugin.Importer = (*stateHandler)(nil)
)

// Export is called when nothing of the plugin is out.
func (h *stateHandler) Export(context.Context) ([]byte, error) {
	p := h.p
	for _, ln := range p.lanes {
		if out := ln.out; out > 1 || out == 1 && !ln.serving {
			p.s.fail(Versions, "%q exports its state while %d deliveries are out", p.set.name, out)
		}
	}
	for _, x := range p.s.holds {
		if x.debt.lane.p == p && (x.state == holdOpen || x.state == holdLinked) {
			p.s.fail(Versions, "%q exports its state while %v is held", p.set.name, x.debt)
		}
	}
	if r := p.swap; r != nil && r.broken == "export" {
		return nil, errBroken
	}
	return binary.LittleEndian.AppendUint64(nil, h.state), nil
}

// Import takes the state over.
func (h *stateHandler) Import(_ context.Context, state []byte) error {
	p := h.p
	if r := p.swap; r != nil && r.broken == "import" {
		return errBroken
	}
	h.state = binary.LittleEndian.Uint64(state)
	if h.state != p.state {
		p.s.fail(Versions, "version %d of %q takes over state %d, the last was %d", h.version, p.set.name, h.state, p.state)
	}
	return nil
}

// batchStateHandler does both.
type batchStateHandler struct {
	batchHandler
	stateHandler
	*handler
}
