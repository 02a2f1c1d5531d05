package kind

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// ServerTLS is the settings of whoever is connected to.
type ServerTLS struct {
	Cert     string `yaml:"cert" jsonschema:"required,example=server.pem" jsonschema_description:"Certificate chain in PEM. A file that has changed is read again."`
	Key      string `yaml:"key" jsonschema:"required,example=server.key" jsonschema_description:"Private key in PEM."`
	ClientCA string `yaml:"client_ca" jsonschema:"example=clients.pem" jsonschema_description:"With it, a client must show a certificate that one of these signed. A file that has changed is read again."`
}

// Config loads the files. A nil ServerTLS gives a nil config. Files that have changed are read again, at most every ten seconds; while they
// cannot be read, what was read before serves.
func (t *ServerTLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	pair, clients := newKeyPair(t.Cert, t.Key), newPool(t.ClientCA)
	if _, err := pair.get(); err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
	}
	if t.ClientCA == "" {
		return cfg, nil
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	first, err := clients.get()
	if err != nil {
		return nil, err
	}
	cfg.ClientCAs = first
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now, err := clients.get()
		if err != nil || now == first {
			return nil, err
		}
		other := cfg.Clone()
		other.ClientCAs, other.GetConfigForClient = now, nil
		return other, nil
	}
	return cfg, nil
}

// ClientTLS is the settings of whoever connects.
type ClientTLS struct {
	CA         string `yaml:"ca" jsonschema:"example=ca.pem" jsonschema_description:"Certificates in PEM that may sign the server's; default the system's."`
	Cert       string `yaml:"cert" jsonschema:"example=client.pem" jsonschema_description:"Certificate to show to the server, in PEM."`
	Key        string `yaml:"key" jsonschema:"example=client.key" jsonschema_description:"Private key of it, in PEM."`
	ServerName string `yaml:"server_name" jsonschema:"example=ingest.example.com" jsonschema_description:"Name that the server's certificate must have; default the host that is connected to."`
	Insecure   bool   `yaml:"insecure_skip_verify" jsonschema_description:"Accept any certificate. Unsafe: anybody on the way can read and change what is sent."`
}

// Config loads the files. A nil ClientTLS gives a nil config.
func (t *ClientTLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure}
	if t.CA != "" {
		pool, err := newPool(t.CA).get()
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = pool
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("tls: cert and key go together: set both or none")
	}
	if t.Cert != "" {
		pair := newKeyPair(t.Cert, t.Key)
		if _, err := pair.get(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() }
	}
	return cfg, nil
}

// watched is what was read from files, and is read again when one of them has changed.
type watched[T any] struct {
	paths []string
	read  func() (*T, error)

	mu      sync.Mutex
	loaded  *T
	changed []time.Time // of the files, when they were read
	looked  time.Time
}

const lookEvery = 10 * time.Second

// newKeyPair is a certificate and its key.
func newKeyPair(cert, key string) *watched[tls.Certificate] {
	return &watched[tls.Certificate]{paths: []string{cert, key}, read: func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("tls: certificate %s with key %s: %w", cert, key, err)
		}
		return &pair, nil
	}}
}

// newPool is the certificates of a file.
func newPool(path string) *watched[x509.CertPool] {
	return &watched[x509.CertPool]{paths: []string{path}, read: func() (*x509.CertPool, error) {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: %s holds no certificate in PEM", path)
		}
		return pool, nil
	}}
}

// get looks at the files no more than every ten seconds. What was read serves until something else can be read: files may be half-written.
func (w *watched[T]) get() (*T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.loaded != nil && now.Sub(w.looked) < lookEvery {
		return w.loaded, nil
	}
	w.looked = now
	times := make([]time.Time, len(w.paths))
	for i, path := range w.paths {
		if info, err := os.Stat(path); err == nil {
			times[i] = info.ModTime()
		}
	}
	if w.loaded != nil && slices.EqualFunc(times, w.changed, time.Time.Equal) {
		return w.loaded, nil
	}
	read, err := w.read()
	switch {
	case err == nil:
		w.loaded, w.changed = read, times
	case w.loaded == nil:
		return nil, err
	}
	return w.loaded, nil
}
