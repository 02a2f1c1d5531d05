package kind_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
	"github.com/penstock-dev/penstock/sink"
	"github.com/penstock-dev/penstock/source"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text  string
		want  kind.Size
		shown string // empty: refused
	}{
		{"0", 0, "0"},
		{"512", 512, "512"},
		{"512B", 512, "512"},
		{"8MiB", 8 << 20, "8MiB"},
		{"1.5KiB", 1536, "1536"},
		{"64 KB", 64_000, "64000"},
		{"2GB", 2_000_000_000, "1953125KiB"},
		{"1TiB", 1 << 40, "1TiB"},
		{"-1", 0, ""},
		{"NaN", 0, ""},
		{"Inf", 0, ""},
		{"9999999TiB", 0, ""},
		{"8MB8", 0, ""},
		{"", 0, ""},
		{"MiB", 0, ""},
	} {
		var s kind.Size
		err := s.UnmarshalText([]byte(c.text))
		switch {
		case c.shown == "" && (err == nil || !strings.Contains(err.Error(), "is not a size")):
			t.Errorf("%q: %v, %v", c.text, s, err)
		case c.shown != "" && (err != nil || s != c.want || s.String() != c.shown):
			t.Errorf("%q: %d shown as %v, %v", c.text, s, s, err)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]kind.Rate{
		"100/s": {N: 100, Per: time.Second}, "6000/m": {N: 6000, Per: time.Minute}, "50/250ms": {N: 50, Per: 250 * time.Millisecond},
		"3 / h": {N: 3, Per: time.Hour},
	} {
		var r, again kind.Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != want {
			t.Errorf("%q is shown as %q, which is %+v: %v", text, r, again, err)
		}
	}
	for _, text := range []string{"", "100", "/s", "0/s", "-1/s", "1/0s", "1/x", "x/s"} {
		if err := new(kind.Rate).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for a rate", text)
		}
	}
}

// FuzzValues: what is read from text is shown as text that is read as the same.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"8MiB", "100/s", "1.5KB", "50/250ms", "1/1h0m1s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var size, sizeAgain kind.Size
		if size.UnmarshalText([]byte(text)) == nil {
			if err := sizeAgain.UnmarshalText([]byte(size.String())); err != nil || sizeAgain != size || size < 0 {
				t.Errorf("%q is %d, shown as %v, which is %d: %v", text, size, size, sizeAgain, err)
			}
		}
		var rate, rateAgain kind.Rate
		if rate.UnmarshalText([]byte(text)) == nil {
			if err := rateAgain.UnmarshalText([]byte(rate.String())); err != nil || rateAgain != rate {
				t.Errorf("%q is %+v, shown as %v, which is %+v: %v", text, rate, rate, rateAgain, err)
			}
		}
	})
}

// Promise: a secret is not shown by whatever prints or marshals it.
func TestSecret(t *testing.T) {
	var s struct{ Token kind.Secret }
	if err := s.Token.UnmarshalText([]byte("hunter2")); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	shown := fmt.Sprintf("%v %+v %#v %s %q %s", s, s, s, s.Token, s.Token, text)
	if err != nil || strings.Contains(shown, "hunter2") || s.Token.Reveal() != "hunter2" {
		t.Errorf("%s, %v", shown, err)
	}
}

type settings struct{ N int }

// Promise: a registry finds kinds by role and name, lists them in order, and refuses two of one name.
func TestRegistry(t *testing.T) {
	r := kind.NewRegistry(
		kind.Source(kind.About{Name: "b"}, settings{N: 1}, func(s settings, e kind.Env) (source.Source, error) {
			return nil, fmt.Errorf("%d %s", s.N, e.Name)
		}),
		kind.Source(kind.About{Name: "a"}, settings{}, func(settings, kind.Env) (source.Source, error) { return nil, nil }),
		kind.Sink(kind.About{Name: "b"}, settings{}, func(settings, kind.Env) (sink.Sink, error) { return nil, nil }),
		kind.NativeWith(kind.About{Name: "b"}, settings{N: 2}, func(settings) (plugin.Handler, error) { return nil, nil }),
	)
	r.Add(kind.Native("c", func() (plugin.Handler, error) { return nil, nil }))
	b, ok := r.Lookup(kind.RoleSource, "b")
	if _, err := b.NewSource(b.Settings, kind.Env{Name: "x"}); !ok || err == nil || err.Error() != "1 x" {
		t.Errorf("%v, %v", ok, err)
	}
	if list := r.Kinds(kind.RoleSource); len(list) != 2 || list[0].Name != "a" {
		t.Errorf("%+v", list)
	}
	if list := r.Kinds(kind.RolePlugin); len(list) != 2 || !list[0].Native || !list[1].Native || list[1].Settings != nil {
		t.Errorf("%+v", list)
	}
	defer func() {
		if recover() == nil {
			t.Error("two kinds of one name")
		}
	}()
	r.Add(kind.Native("c", nil))
}

// certificate writes a key pair, and returns the files.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// Promise: a server with client_ca takes only clients with a certificate of it, and a client knows its server.
func TestTLS(t *testing.T) {
	cert, key := certificate(t, "server")
	clientCert, clientKey := certificate(t, "client")
	server, err := (&kind.ServerTLS{Cert: cert, Key: key, ClientCA: clientCert}).Config()
	if err != nil {
		t.Fatal(err)
	}
	shake := func(c kind.ClientTLS) error {
		client, err := c.Config()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		served := make(chan error, 1)
		go func() {
			a, err := l.Accept()
			if err == nil {
				err = tls.Server(a, server).Handshake()
				a.Close()
			}
			served <- err
		}()
		b, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		conn := tls.Client(b, client)
		if err := conn.Handshake(); err != nil {
			return err
		}
		return <-served
	}
	if err := shake(kind.ClientTLS{CA: cert, Cert: clientCert, Key: clientKey, ServerName: "server"}); err != nil {
		t.Errorf("the right client: %v", err)
	}
	if err := shake(kind.ClientTLS{CA: cert, ServerName: "server"}); err == nil {
		t.Error("a client without a certificate came in")
	}
	if err := shake(kind.ClientTLS{CA: clientCert, Cert: clientCert, Key: clientKey, ServerName: "server"}); err == nil {
		t.Error("a client took a server that nobody it trusts has signed")
	}
}

// Promise: files that are missing or wrong are named.
func TestTLSErrors(t *testing.T) {
	cert, key := certificate(t, "x")
	for name, config := range map[string]func() (*tls.Config, error){
		"no-cert.pem": (&kind.ServerTLS{Cert: "no-cert.pem", Key: key}).Config,
		"no-ca.pem":   (&kind.ServerTLS{Cert: cert, Key: key, ClientCA: "no-ca.pem"}).Config,
		"PEM":         (&kind.ClientTLS{CA: os.Args[0]}).Config,
		"go together": (&kind.ClientTLS{Cert: cert}).Config,
	} {
		if _, err := config(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, config := range []func() (*tls.Config, error){(*kind.ServerTLS)(nil).Config, (*kind.ClientTLS)(nil).Config} {
		if c, err := config(); c != nil || err != nil {
			t.Errorf("no settings: %v, %v", c, err)
		}
	}
}

// Promise: an address that others can reach takes TLS, and a token or client certificates.
func TestExposed(t *testing.T) {
	plain, mutual := &kind.ServerTLS{}, &kind.ServerTLS{ClientCA: "ca.pem"}
	for _, c := range []struct {
		address string
		tls     *kind.ServerTLS
		token   bool
		want    string
	}{
		{"127.0.0.1:1", nil, false, ""},
		{"127.9.9.9:1", nil, false, ""},
		{"[::1]:1", nil, false, ""},
		{"[::ffff:127.0.0.1]:1", nil, false, ""},
		{"localhost:1", nil, false, ""},
		{"LOCALHOST.:1", nil, false, ""},
		{"localhost.example.com:1", nil, false, "tls and a token (or tls.client_ca)"},
		{":1", nil, false, "tls and a token (or tls.client_ca)"},
		{"0.0.0.0:1", plain, false, "a token (or tls.client_ca)"},
		{"0.0.0.0:1", nil, true, "tls"},
		{"0.0.0.0:1", plain, true, ""},
		{"0.0.0.0:1", mutual, false, ""},
	} {
		if got := kind.Exposed(c.address, c.tls, c.token); got != c.want {
			t.Errorf("%s, %v, %v: %q, want %q", c.address, c.tls, c.token, got, c.want)
		}
	}
}
