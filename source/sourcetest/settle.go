package sourcetest

import (
	"errors"
	"slices"

	"github.com/penstock-dev/penstock/source"
)

// Messages is what has been accepted so far, in order.
func (in *Intake) Messages() []Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	list := make([]Message, len(in.entries))
	for i, e := range in.entries {
		list[i] = e.Message
	}
	return list
}

// Len is how many messages have been accepted so far.
func (in *Intake) Len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.entries)
}

// Blocked is how many calls of Ready wait.
func (in *Intake) Blocked() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.blocked
}

// Reports is what the source has reported.
func (in *Intake) Reports() []error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.reports)
}

// Breaches is how the source has broken the contract.
func (in *Intake) Breaches() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.breaches)
}

// Changed is closed when something has happened since the call.
func (in *Intake) Changed() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.changed
}

// Settle tells src that the messages that pick chooses are settled, or returned: those that are not done and whose assignment has not been
// revoked. src is told one partition after the other, with the cursor as the runtime would count it; the memory is released afterwards.
func (in *Intake) Settle(src source.Source, outcome source.Outcome, pick func(Message) bool) {
	in.settling.Lock()
	defer in.settling.Unlock()
	list, chosen := in.settlements(outcome, pick)
	for _, st := range list {
		src.Settle(st)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, e := range chosen {
		in.finish(e)
	}
	in.broadcast()
}

// settlements is one settlement for each partition of which pick chooses messages, and those messages.
func (in *Intake) settlements(outcome source.Outcome, pick func(Message) bool) (list []source.Settlement, chosen []*entry) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for l, as := range in.lines {
		if in.epochs[l.partition] != l.epoch {
			continue
		}
		st := source.Settlement{Outcome: outcome, Partition: l.partition, Epoch: l.epoch}
		for _, e := range as.entries {
			if !e.done && pick(e.Message) {
				st.Receipts = append(st.Receipts, e.Receipt)
				e.settled = outcome == source.Settled
				chosen = append(chosen, e)
			}
		}
		for as.settled < len(as.entries) && as.entries[as.settled].settled {
			as.settled++
		}
		if as.settled > 0 {
			st.Cursor, st.HasCursor = as.entries[as.settled-1].Receipt, true
		}
		if len(st.Receipts) > 0 {
			list = append(list, st)
		}
	}
	return list, chosen
}

// Close releases what was not settled. The error lists the breaches of the contract, and the memory that the source has not released. It
// is called once, after Run has returned.
func (in *Intake) Close() error {
	in.mu.Lock()
	for _, e := range in.entries {
		in.finish(e)
	}
	var errs []error
	for _, b := range in.breaches {
		errs = append(errs, errors.New(b))
	}
	in.stopped = true
	in.mu.Unlock()
	return errors.Join(append(errs, in.account.Close(), in.arena.Close())...)
}
