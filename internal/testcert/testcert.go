// Package testcert makes certificates for tests.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Cert is a self-signed certificate for 127.0.0.1 and localhost, and its key.
type Cert struct {
	t         testing.TB
	cert, key []byte // PEM
}

// New makes one with this serial number. It may be for other names instead.
func New(t testing.TB, serial int64, names ...string) Cert {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names) > 0 {
		template.DNSNames, template.IPAddresses = names, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Cert{
		t:    t,
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// TLS returns it as crypto/tls has it.
func (c Cert) TLS() tls.Certificate {
	c.t.Helper()
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return pair
}

// Pool returns a pool of it alone.
func (c Cert) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.cert)
	return pool
}

// Files returns where Write puts it.
func Files(dir string) (cert, key string) {
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// Write writes it as two files, in place of others.
func (c Cert) Write(dir string) (cert, key string) {
	c.t.Helper()
	cert, key = Files(dir)
	if err := os.WriteFile(cert, c.cert, 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(key, c.key, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return cert, key
}
