package sourcetest

import (
	"slices"

	"github.com/penstock-dev/penstock/arena"
	"github.com/penstock-dev/penstock/source"
)

// fault is what a broken variant of the broker's source does wrong. The kit must find each.
type fault string

const (
	loseMessage      fault = "loses a message"
	duplicateMessage fault = "gives a message twice"
	reorderMessages  fault = "gives messages out of order"
	corruptPayload   fault = "changes a byte of a payload"
	missReceipt      fault = "gives a batch with too few receipts"
	repeatReceipt    fault = "uses a receipt twice"
	emptyBatch       fault = "gives an empty batch"
	staleEpoch       fault = "gives messages under an epoch that was never assigned"
	ignoreReady      fault = "reads while the window is full"
	ignoreContext    fault = "goes on when its context has ended"
	giveUpOnBudget   fault = "gives up when the budget is exhausted"
	leakSlab         fault = "keeps a reference to each slab"
	leakGoroutine    fault = "leaves a goroutine behind"
	blockSettle      fault = "blocks in Settle"
	settleRevoked    fault = "settles a revoked assignment"
	commitOverHole   fault = "commits over a hole"
	redeliverSettled fault = "gives what was settled again after a restart"
	forgetSettled    fault = "forgets what was settled"
	deafToNew        fault = "does not notice what is put later"
	ignoreStopped    fault = "goes on when the runtime takes no more"
	forgetLate       fault = "does not commit what lay behind a hole"
	forgetReturned   fault = "forgets what was returned"
)

// accept gives b to the intake, after what the fault does to it.
func (s *brokerSource) accept(in source.Intake, b *arena.Batch) error {
	last := b.Len() - 1
	switch s.b.fault {
	case loseMessage:
		if last > 0 {
			b.Frames, b.Receipts = b.Frames[:last], b.Receipts[:last]
		}
	case duplicateMessage:
		if b.Len() < in.Env().MaxBatch {
			b.Frames, b.Receipts = append(b.Frames, b.Frames[0]), append(b.Receipts, b.Receipts[last]+1_000_000)
		}
	case reorderMessages:
		slices.Reverse(b.Frames)
	case corruptPayload:
		b.Slab.Bytes()[b.Frames[last].Off+b.Frames[last].Len-1] ^= 1
	case missReceipt:
		b.Receipts = b.Receipts[:last]
	case repeatReceipt:
		b.Receipts[last] = 1
	case emptyBatch:
		b.Frames, b.Receipts = b.Frames[:0], b.Receipts[:0]
	case staleEpoch:
		b.Epoch += 7
	case leakSlab:
		b.Slab.Retain()
	}
	return in.Accept(b)
}
