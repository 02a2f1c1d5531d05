package penstock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/penstock-dev/penstock"
	"github.com/penstock-dev/penstock/plugin"
	sinkfile "github.com/penstock-dev/penstock/sink/file"
	sourcefile "github.com/penstock-dev/penstock/source/file"
)

// A whole program: lines of a file go to a plugin, and what it emits to another file.
func Example() {
	dir := must(os.MkdirTemp("", "penstock"))
	defer func() { check(os.RemoveAll(dir)) }()
	in, out := filepath.Join(dir, "in.txt"), filepath.Join(dir, "out.txt")
	check(os.WriteFile(in, []byte("a small fish\na whale\na shrimp\n"), 0o600))

	shout := func(_ context.Context, m *penstock.Message) error {
		if bytes.Contains(m.Payload(), []byte("whale")) {
			return m.Emit("big", bytes.ToUpper(m.Payload()))
		}
		return nil // acknowledged
	}
	rt := must(penstock.New(penstock.Pipeline{
		Data:    dir,
		Sources: []penstock.Source{{Name: "sightings", From: must(sourcefile.New(sourcefile.Config{Path: in}))}},
		Plugins: []penstock.Plugin{{
			Name: "shout", From: []string{"sightings"}, Emits: []string{"big"},
			New: func() (penstock.Handler, error) { return plugin.HandlerFunc(shout), nil },
		}},
		Sinks: []penstock.Sink{{Name: "big", From: []string{"big"}, To: must(sinkfile.New(sinkfile.Config{Path: out}))}},
	}))
	summary := must(rt.Run(context.Background()))
	fmt.Printf("%d accepted, %d settled\n%s", summary.Accepted, summary.Settled, must(os.ReadFile(out)))
	// Output:
	// 3 accepted, 3 settled
	// A WHALE
}

// counter is a plugin with state.
type counter struct{ byName map[string]int }

func (c *counter) Handle(_ context.Context, m *penstock.Message) error {
	c.byName[string(m.Payload())]++ // string copies: the payload is lent
	return nil
}

// Mode actor, the default: one message after another in one goroutine, so state needs no lock.
func Example_actor() {
	c := &counter{byName: map[string]int{}}
	runWords("ann bob ann", penstock.Plugin{New: func() (penstock.Handler, error) { return c, nil }})
	fmt.Println(c.byName)
	// Output: map[ann:2 bob:1]
}

// Mode pool: Workers calls of Handle at one time, for work that is independent. State that they share needs a lock.
func Example_pool() {
	var mu sync.Mutex
	handle := penstock.Owned(func(_ context.Context, m penstock.OwnedMessage) error {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println("fetched", string(m.Payload()))
		return nil
	})
	runWords("a b c", penstock.Plugin{Workers: 3, New: func() (penstock.Handler, error) { return handle, nil }})
	// Unordered output:
	// fetched a
	// fetched b
	// fetched c
}

// Order by key: while b1 waits to be retried, b2 waits behind it; c1 does not.
func Example_byKey() {
	handle := penstock.Owned(func(_ context.Context, m penstock.OwnedMessage) error {
		if string(m.Payload()) == "b1" && m.Attempt() == 1 {
			return penstock.Retry(errors.New("not yet"), 50*time.Millisecond)
		}
		fmt.Println(string(m.Payload()))
		return nil
	})
	runWords("b1 b2 c1", penstock.Plugin{ByKey: true, New: func() (penstock.Handler, error) { return handle, nil }})
	// Output:
	// c1
	// b1
	// b2
}

// Held.Go: work beside the message, on a copy of it. The plugin goes on to the next message; what the function returns is the verdict.
func Example_heldGo() {
	handle := func(_ context.Context, m *penstock.Message) error {
		held, err := m.Hold(time.Minute)
		if err != nil {
			return err
		}
		return held.Go(func(_ context.Context, m penstock.OwnedMessage) error {
			if string(m.Payload()) == "bad" {
				return penstock.Reject(errors.New("cannot be looked up"))
			}
			return nil
		})
	}
	s := runWords("good bad good", penstock.Plugin{New: func() (penstock.Handler, error) { return plugin.HandlerFunc(handle), nil }})
	fmt.Printf("%d held, %d settled, %d of them dead\n", s.Held, s.Settled, s.Dead)
	// Output: 3 held, 3 settled, 1 of them dead
}

// inserter would rather see what has gathered.
type inserter struct{ rows int }

func (i *inserter) HandleBatch(_ context.Context, ms *plugin.Messages) error {
	for j := range ms.Len() {
		if string(ms.At(j).Payload()) == "?" {
			ms.Fail(j, penstock.Reject(errors.New("no row")))
			continue
		}
		i.rows++
	}
	return nil // the verdict of all that have none of their own
}

func (i *inserter) Handle(_ context.Context, m *penstock.Message) error { // for a message that comes alone
	if string(m.Payload()) == "?" {
		return penstock.Reject(errors.New("no row"))
	}
	i.rows++
	return nil
}

// A batch handler: what was read together is seen together, and each message may have a verdict of its own.
func Example_batch() {
	i := &inserter{}
	s := runWords("a b ? c", penstock.Plugin{New: func() (penstock.Handler, error) { return i, nil }})
	fmt.Printf("%d rows, %d dead\n", i.rows, s.Dead)
	// Output: 3 rows, 1 dead
}

// runWords gives a plugin the words as messages. Their first letter is their key.
func runWords(words string, p penstock.Plugin) penstock.Summary {
	dir := must(os.MkdirTemp("", "penstock"))
	defer func() { check(os.RemoveAll(dir)) }()
	in := filepath.Join(dir, "in.txt")
	check(os.WriteFile(in, []byte(strings.ReplaceAll(words, " ", "\n")), 0o600))
	p.Name, p.From = "example", []string{"words"}
	rt := must(penstock.New(penstock.Pipeline{
		Data: dir,
		Sources: []penstock.Source{{
			Name: "words", From: must(sourcefile.New(sourcefile.Config{Path: in})), Key: func(b []byte) []byte { return b[:1] },
		}},
		Plugins: []penstock.Plugin{p},
	}))
	return must(rt.Run(context.Background()))
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
