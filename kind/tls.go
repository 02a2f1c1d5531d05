package kind

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ServerTLS is the settings of whoever is connected to.
type ServerTLS struct {
	Cert     string `yaml:"cert" jsonschema:"required,example=server.pem" jsonschema_description:"Certificate chain in PEM. A file that has changed is read again."`
	Key      string `yaml:"key" jsonschema:"required,example=server.key" jsonschema_description:"Private key in PEM."`
	ClientCA string `yaml:"client_ca" jsonschema:"example=clients.pem" jsonschema_description:"With it, a client must show a certificate that one of these signed."`
}

// Config loads the files. A nil ServerTLS gives a nil config.
func (t *ServerTLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	pair := &keyPair{cert: t.Cert, key: t.Key}
	if _, err := pair.get(); err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
	}
	if t.ClientCA != "" {
		pool, err := readPool(t.ClientCA)
		if err != nil {
			return nil, err
		}
		cfg.ClientCAs, cfg.ClientAuth = pool, tls.RequireAndVerifyClientCert
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
		pool, err := readPool(t.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = pool
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("tls: cert and key go together: set both or none")
	}
	if t.Cert != "" {
		pair := &keyPair{cert: t.Cert, key: t.Key}
		if _, err := pair.get(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() }
	}
	return cfg, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: %s holds no certificate in PEM", path)
	}
	return pool, nil
}

// keyPair is a certificate and its key, read again when the certificate's file has changed, and looked at no more than every ten seconds.
type keyPair struct {
	cert, key string

	mu      sync.Mutex
	loaded  *tls.Certificate
	changed time.Time
	looked  time.Time
}

const lookEvery = 10 * time.Second

func (p *keyPair) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.loaded != nil && now.Sub(p.looked) < lookEvery {
		return p.loaded, nil
	}
	p.looked = now
	info, err := os.Stat(p.cert)
	if err == nil && p.loaded != nil && info.ModTime().Equal(p.changed) {
		return p.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		if p.loaded != nil { // half-written, perhaps: the old one serves until the new one can be read
			return p.loaded, nil
		}
		return nil, fmt.Errorf("tls: certificate %s with key %s: %w", p.cert, p.key, err)
	}
	p.loaded = &pair
	if info != nil {
		p.changed = info.ModTime()
	}
	return p.loaded, nil
}
