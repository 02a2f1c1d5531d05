//go:build linux && !race

package socket

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/penstock-dev/penstock/internal/tlstest"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// idlers starts a process that opens n connections, sends one message on each, and keeps them until its input ends.
func idlers(t *testing.T, addr string, n, size int, secure bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "SOCKET_IDLE_ADDR="+addr, "SOCKET_IDLE_COUNT="+strconv.Itoa(n), "SOCKET_IDLE_SIZE="+strconv.Itoa(size),
		"SOCKET_IDLE_TLS="+strconv.FormatBool(secure))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
}

// inUse is the memory of the process that is in use, without what the arena has.
func inUse() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse + m.MSpanInuse
}

// Promise: a thousand connections that have sent something and are idle hold no slab, and cost less than 16 KiB each.
func TestIdleConnections(t *testing.T) {
	const n = 1000
	cert, key, _, _ := tlstest.Certificate(t)
	for _, tt := range []struct {
		name string
		cfg  Config
		size int    // of the message that each has sent, in bytes
		most uint64 // bytes each
	}{
		{"plain", Config{}, 20_000, 16 << 10},
		{"acks", Config{Acks: true}, 100, 16 << 10},
		{"TLS", Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}}, 100, 32 << 10},
		{"TLS, large records", Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}}, 20_000, 64 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, tt.cfg, sourcetest.IntakeConfig{SlabSize: 256 << 10, Budget: 64 << 20})
			before := inUse()
			idlers(t, r.addr, n, tt.size, tt.cfg.TLS != nil)
			for done := 0; done < n; {
				r.until("messages", func() bool { return r.in.Len() > done })
				done = r.in.Len()
				r.settle(0, done)
			}
			r.until("all connections to be idle", func() bool { return r.count(waiting) == n })
			r.until("all memory of the arena to be free", func() bool { return r.in.Account().Used() <= r.slab })
			each := (inUse()-before)/n - uint64(tt.size) // the intake of the test keeps a copy
			t.Logf("%d bytes each", each)
			if each > tt.most {
				t.Errorf("an idle connection costs %d bytes, at most %d are promised", each, tt.most)
			}
		})
	}
}
