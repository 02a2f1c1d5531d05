//go:build unix

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certificate writes a certificate of its own authority for 127.0.0.1, and its key, as cert.pem and key.pem.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "penstock"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// Promise: from one pipeline to another, over TLS and with a token, every message arrives at least once, also when the receiver is killed
// and started again; and the sender says that it cannot send.
func TestRelay(t *testing.T) {
	for name, link := range map[string]struct{ source, sink, broken string }{
		"tcp": {
			`tcp: { address: %q, tls: { cert: cert.pem, key: key.pem }, token: "${RELAY}", acks: true }, frame: u32`,
			`tcp: { address: %q, tls: { ca: cert.pem }, token: "${RELAY}", acks: true, frame: u32, ` +
				`backoff: { initial: 20ms, max: 100ms } }, retry: { backoff: 20ms, max: 100ms }`,
			"retrying",
		},
		"http": {
			`http: { address: %q, tls: { cert: cert.pem, key: key.pem }, tokens: ["${RELAY}"] }`,
			`http: { url: "https://%s/", tls: { ca: cert.pem }, token: "${RELAY}", compression: gzip, batch: { messages: 50 }, ` +
				`breaker: { failures: 2, open_for: 500ms } }, retry: { backoff: 20ms, max: 100ms }`,
			"open",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			certificate(t, dir)
			address := freeAddress(t)
			receiver := "listen: 127.0.0.1:0\nsources:\n  in: { " + fmt.Sprintf(link.source, address) +
				" }\nsinks:\n  out: { from: in, file: { path: out.txt } }\n"
			sender := "sources:\n  in: { file: { path: in.ndjson, follow: true, poll: 20ms } }\n" +
				"sinks:\n  next: { from: in, " + fmt.Sprintf(link.sink, address) + " }\n"
			testRelay(t, dir, receiver, sender, link.broken)
		})
	}
}

func testRelay(t *testing.T, dir, receiver, sender, broken string) {
	out, log := filepath.Join(dir, "out.txt"), filepath.Join(dir, "in.ndjson")
	write(t, dir, "receiver.yaml", receiver)
	write(t, dir, "sender.yaml", sender)
	env := []string{"RELAY=nobody-may-see-this"}
	begin := func(name string) *proc {
		return start(t, options{dir: dir, env: env, args: []string{
			"run", "-c", name + ".yaml", "--listen", "127.0.0.1:0", "--data", "data-" + name, "--summary", "json", "--log-level", "debug",
		}})
	}
	const part = 4000
	n := 0
	add := func() {
		grow(t, log, numbered(n, n+part))
		n += part
	}
	arrived := func(at int) func() bool { return func() bool { return len(linesOf(t, out)) >= at } }

	from := begin("sender") // nobody is there yet
	add()
	url := from.url("/metrics")
	var to *proc
	for range 2 {
		eventually(t, "the sender says that it cannot send", func() bool {
			_, metrics := get(t, url)
			return strings.Contains(metrics, fmt.Sprintf(`penstock_state{kind="sink",name="next",state=%q} 1`, broken))
		})
		to = begin("receiver")
		eventually(t, "messages arrive", arrived(n-part/2))
		add()
		eventually(t, "more messages arrive", arrived(n-part+part/4))
		to.signal(syscall.SIGKILL)
		to.exit()
		add()
	}
	to = begin("receiver")
	eventually(t, "all messages arrive", arrived(n))
	sent, got := from.stop(), to.stop()
	if int(sent.Settled) != n || sent.Accepted != sent.Settled || sent.Retried == 0 || sent.Dead != 0 {
		t.Errorf("sender: accepted %d, settled %d, retried %d, dead %d; want %d", sent.Accepted, sent.Settled, sent.Retried, sent.Dead, n)
	}
	if got.Settled != got.Accepted || got.Dead+got.Dropped+got.Bad != 0 {
		t.Errorf("receiver: %+v", got)
	}
	if torn, err := filepath.Glob(out + ".torn*"); err != nil || len(torn) > 0 {
		t.Logf("the killed receiver left %v, %v", torn, err)
	}
	if err := compare(linesOf(t, out), numbered(0, n), 10); err != nil {
		t.Error(err)
	}
	for _, p := range []*proc{from, to} {
		if strings.Contains(p.log.String(), "nobody-may-see") {
			t.Error("the log shows the token")
		}
	}
}

// A wrong token, and a sender that does not trust the receiver's certificate: nothing gets through, and the log says why.
func TestRelayRefused(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir)
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	certificate(t, other)
	to := run(t, dir, `
sources:
  lines: { tcp: { address: "127.0.0.1:0", tls: { cert: cert.pem, key: key.pem }, token: right, acks: true }, frame: lines }
  web: { http: { address: "127.0.0.1:0", tls: { cert: cert.pem, key: key.pem }, tokens: [right] } }
sinks:
  out: { from: [lines, web], file: { path: out.txt } }
`)
	lines, web := to.addr("lines"), to.addr("web")
	tcp := "tcp: { address: " + lines + ", frame: lines, acks: true, token: %s, tls: { ca: %s } }"
	http := "http: { url: \"https://" + web + "\", token: %s, tls: { ca: %s } }"
	for name, tt := range map[string]struct{ sink, token, ca, says string }{
		"tcp, wrong token":  {tcp, "wrong", "cert.pem", "oken"},
		"tcp, wrong ca":     {tcp, "right", "other/cert.pem", "certificate"},
		"http, wrong token": {http, "wrong", "cert.pem", "401"},
		"http, wrong ca":    {http, "right", "other/cert.pem", "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			sink := fmt.Sprintf(tt.sink, tt.token, tt.ca)
			write(t, dir, "sender.yaml", "drain: 1ms\nsources:\n  in: { stdin: }\nsinks:\n  out: { from: in, "+sink+" }\n")
			from := start(t, options{dir: dir, stdin: strings.NewReader("a\n"), args: []string{
				"run", "-c", "sender.yaml", "--listen", "off", "--summary", "json", "--data", "data-sender",
			}})
			from.await("level=WARN", "sink=out", tt.says)
			from.signal(syscall.SIGTERM)
			if code := from.exit(); code != 1 {
				t.Errorf("exit code %d though a message was not settled", code)
			}
			if s := from.summary(); s.Settled != 0 || s.Returned != 1 {
				t.Errorf("settled %d, returned %d", s.Settled, s.Returned)
			}
		})
	}
	if s := to.stop(); s.Accepted != 0 || s.Bad == 0 {
		t.Errorf("accepted %d, bad %d", s.Accepted, s.Bad)
	}
}
