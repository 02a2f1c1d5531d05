package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/socket"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// Promise: a pipeline's tcp sink and another's tcp source understand each other, in each framing, with a token: what the source has settled is
// done, and what it refuses fails.
func TestAgainstTheSource(t *testing.T) {
	for _, frame := range []Framing{Lines, U32, Varint} {
		t.Run(string(frame), func(t *testing.T) {
			at := make(chan string, 1)
			src, err := socket.New(socket.Config{
				Network: "tcp", Address: "127.0.0.1:0", Framing: string(frame), Token: "open", Acks: true,
				Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
					var lc net.ListenConfig
					ln, err := lc.Listen(ctx, network, address)
					if err == nil {
						at <- ln.Addr().String()
					}
					return ln, err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- src.Run(ctx, in) }()

			cfg := quick(frame, true)
			cfg.Address, cfg.Token = <-at, "open"
			l := newLender(t)
			s := opened(t, cfg, sink.Env{})
			var want []string
			for i := range 300 {
				want = append(want, fmt.Sprintf("message %d", i))
			}
			want[7] = ""
			l.must(l.write(t.Context(), s, want...))
			l.must(s.Flush(t.Context()))
			for in.Len() < len(want) {
				changed := in.Changed()
				if in.Len() < len(want) {
					<-changed
				}
			}
			for i, m := range in.Messages() {
				if string(m.Payload) != want[i] {
					t.Fatalf("message %d arrived as %q", i, m.Payload)
				}
			}
			l.none()
			in.Settle(src, source.Settled, func(sourcetest.Message) bool { return true })
			for p, err := range l.next(len(want)) {
				if err != nil {
					t.Errorf("%q: %v", p, err)
				}
			}

			large := string(make([]byte, 2<<20-10)) // more than the source takes
			err = l.write(t.Context(), s, large)
			if f := l.next(1); !errors.Is(f[large], ErrRefused) && err == nil {
				t.Errorf("a message that is too large: %v", f[large])
			}
			l.must(s.Close(t.Context()))
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := src.Close(context.Background()); err != nil {
				t.Error(err)
			}
			l.must(in.Close())
		})
	}
}
