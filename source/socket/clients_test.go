package socket

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/internal/tlstest"
	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

// tool is the first of some programs that is there.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("none of %s is installed: install one to run this test", strings.Join(names, ", "))
	return ""
}

// shell runs a program with an input and returns what it printed.
func shell(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

func TestNetcat(t *testing.T) {
	nc := tool(t, "nc", "ncat")
	t.Run("tcp", func(t *testing.T) {
		r := start(t, Config{}, sourcetest.IntakeConfig{})
		host, port, _ := net.SplitHostPort(r.addr)
		shell(t, "a\nb\n", nc, "-w", "1", host, port)
		r.expect("a", "b")
	})
	t.Run("unix", func(t *testing.T) {
		r := start(t, Config{Network: "unix"}, sourcetest.IntakeConfig{})
		shell(t, "a\nb\n", nc, "-w", "1", "-U", r.addr)
		r.expect("a", "b")
	})
}

func TestBash(t *testing.T) {
	bash := tool(t, "bash")
	r := start(t, Config{Token: "secret"}, sourcetest.IntakeConfig{})
	host, port, _ := net.SplitHostPort(r.addr)
	shell(t, "", bash, "-c", fmt.Sprintf(`printf 'secret\na\nb\n' > /dev/tcp/%s/%s`, host, port))
	r.expect("a", "b")
}

func TestOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	cert, key, _, _ := tlstest.Certificate(t)
	r := start(t, Config{TLS: &kind.ServerTLS{Cert: cert, Key: key}, Token: "secret"}, sourcetest.IntakeConfig{})
	shell(t, "secret\na\nb\n", openssl, "s_client", "-quiet", "-no_ign_eof", "-verify_return_error", "-CAfile", cert, "-connect", r.addr)
	r.expect("a", "b")
}

// pythonProducer is the one of docs/sources-stdin-and-sockets.md.
const pythonProducer = `
import socket, sys

messages = [line.rstrip("\n") for line in sys.stdin]
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
    s.sendall("".join(m + "\n" for m in messages).encode())
    s.shutdown(socket.SHUT_WR)            # no more; the acknowledgements still come
    settled = 0
    for line in s.makefile():
        if line.startswith("error: "):
            sys.exit(line.strip())
        settled = int(line)               # all up to here need not be sent again
print(settled, "of", len(messages), "settled")
`

func TestPython(t *testing.T) {
	python := tool(t, "python3")
	r := start(t, Config{Acks: true}, sourcetest.IntakeConfig{})
	host, port, _ := net.SplitHostPort(r.addr)
	printed := make(chan string, 1)
	go func() { printed <- shell(t, "a\nb\nc\n", python, "-c", pythonProducer, host, port) }()
	r.expect("a", "b", "c")
	r.settle(2, 3)
	r.settle(0, 2)
	if got := strings.TrimSpace(<-printed); got != "3 of 3 settled" {
		t.Errorf("the producer printed %q", got)
	}
}
