package arena

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels, to be asked for with errors.Is.
var (
	// ErrBudget says that an account or its class has no room now. It may have room later, see [Account.Wait].
	ErrBudget = errors.New("no room in the memory budget")
	// ErrClosed says that the arena or the account has been closed.
	ErrClosed = errors.New("closed")
	// ErrTooLarge says that a lease was asked to grow past the maximum that it was made for.
	ErrTooLarge = errors.New("larger than the lease allows")
	// ErrNotStrict says that the arena was made without [Config.Strict].
	ErrNotStrict = errors.New("not in strict mode")
)

// ConfigError says which setting of an arena or an account cannot work, and what would.
type ConfigError struct {
	Field  string // "Budget", "SlabSize", "guaranteed", ...
	Value  int64  // in bytes
	Reason string // why not, and what to do
}

// Error names the setting, its value and what to do.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("arena: %s of %d bytes: %s", e.Field, e.Value, e.Reason)
}

// BudgetError says who asked for how much and found no room. errors.Is(err, ErrBudget) is true of it. All amounts are in bytes.
type BudgetError struct {
	Account     string
	Class       Class
	Wanted      int64 // asked for now
	Used, Limit int64 // of the account
	ClassUsed   int64 // by all accounts of the class
	ClassSize   int64 // the most that the class may use
}

// Error names the account, its class and the amounts.
func (e *BudgetError) Error() string {
	why := "other accounts hold or are guaranteed the rest of the class: wait for them, or raise the budget"
	if e.Used+e.Wanted > e.Limit {
		why = "the account is at its limit: wait for its own leases to end, or raise the limit"
	}
	return fmt.Sprintf("arena: account %q (class %v) wants %d bytes and uses %d of %d; the class uses %d of %d: %v; %s",
		e.Account, e.Class, e.Wanted, e.Used, e.Limit, e.ClassUsed, e.ClassSize, ErrBudget, why)
}

// Is reports whether target is ErrBudget.
func (e *BudgetError) Is(target error) bool { return target == ErrBudget }

// LeakError lists the leases that had not been released when their arena or account was closed.
type LeakError struct {
	What    string   // `arena`, or `account "name"`
	Holders []Holder // one entry a lease
}

// Error lists at most ten of the leases.
func (e *LeakError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "arena: close of %s: %d leases not released; release each exactly once", e.What, len(e.Holders))
	if !tracing {
		b.WriteString(" (build with -tags penstock_trace to see who holds them)")
	}
	for i, h := range e.Holders {
		if i == 10 {
			fmt.Fprintf(&b, "\n\tand %d more", len(e.Holders)-i)
			break
		}
		b.WriteString("\n\t" + strings.ReplaceAll(h.String(), "\n", "\n\t"))
	}
	return b.String()
}

// Holder is one lease that is not released, and, in builds with the tag penstock_trace, who took and dropped references to it.
type Holder struct {
	Slab    string // the name used in panics and logs: slot.generation
	Account string
	Class   Class
	Bytes   int      // usable
	Refs    int      // references not released
	Stacks  []string // oldest first: what was done (lease, retain, resolve, release) and from where; nil without tracing
}

// String shows the lease, and a line or more for each stack.
func (h Holder) String() string {
	s := fmt.Sprintf("slab %s of account %q (%v): %d bytes, %d references", h.Slab, h.Account, h.Class, h.Bytes, h.Refs)
	for _, st := range h.Stacks {
		s += "\n" + st
	}
	return s
}
