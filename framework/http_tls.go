package framework

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
)

// httpTLS does for an http.Server what its ServeTLS does, with a config that we
// keep: ServeTLS makes a copy, which new ticket keys would not reach.
type httpTLS struct {
	srv    *http.Server
	config *tls.Config
	once   sync.Once
}

// newHTTPTLS takes the config of srv, which the application may have changed
// or replaced. Without a certificate it has that of own.
func newHTTPTLS(srv *http.Server, own *tls.Config) *httpTLS {
	c := srv.TLSConfig
	if c == nil {
		c = own
	}
	if c != own {
		c = c.Clone() // it may be that of several servers
		if !hasCertificate(c) {
			c.Certificates, c.GetCertificate, c.GetConfigForClient = own.Certificates, own.GetCertificate, own.GetConfigForClient
		}
	}
	// net/http sets up HTTP/2 only for a config that names it.
	c.NextProtos = slices.Clone(c.NextProtos)
	for _, proto := range []string{protoH2, protoH1} {
		if !slices.Contains(c.NextProtos, proto) {
			c.NextProtos = append(c.NextProtos, proto)
		}
	}
	srv.TLSConfig = c
	return &httpTLS{srv: srv, config: c}
}

// As ALPN has them.
const (
	protoH1 = "http/1.1"
	protoH2 = "h2"
)

// server makes a TLS connection of one that was accepted. The handshake comes
// with the first read.
func (t *httpTLS) server(c net.Conn) net.Conn {
	t.once.Do(t.settle)
	return tls.Server(c, t.config)
}

// settle leaves the protocols that the server speaks. By the time that it
// accepts it has set up HTTP/2, or not, by rules that are its own.
func (t *httpTLS) settle() {
	p := t.srv.Protocols
	_, h2 := t.srv.TLSNextProto[protoH2]
	h2 = h2 && (p == nil || p.HTTP2())
	h1 := p == nil || p.HTTP1()
	t.config.NextProtos = slices.DeleteFunc(t.config.NextProtos, func(proto string) bool {
		return proto == protoH2 && !h2 || proto == protoH1 && !h1
	})
}
