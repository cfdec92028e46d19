package framework

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/baton-go/baton/workers"
)

// succession is one address that is served by one server after the other, as by
// generations of workers, each with a life of its own.
type succession struct {
	t         *testing.T
	addr      string
	handler   http.HandlerFunc
	configure []func(*http.Server)
	tls       *tls.Config // nil without TLS
	roots     *x509.CertPool

	mu      sync.Mutex
	serving *reign
	all     []*reign
}

// reign is one server of a succession.
type reign struct {
	l     *life
	s     *httpServer
	conns chan net.Conn
	over  chan struct{} // closed when its drain has ended
	cut   bool          // by its deadline
}

func (r *reign) Accept() (net.Conn, error) {
	if c, ok := <-r.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (r *reign) Close() error   { return nil }
func (r *reign) Addr() net.Addr { return &net.TCPAddr{} }

func newSuccession(t *testing.T, h http.HandlerFunc, configure ...func(*http.Server)) *succession {
	return startSuccession(t, &succession{t: t, handler: h, configure: configure})
}

// newTLSSuccession serves with TLS, with HTTP/2 if the client wants it.
func newTLSSuccession(t *testing.T, h http.HandlerFunc, configure ...func(*http.Server)) *succession {
	other := httptest.NewTLSServer(nil) // has a certificate
	defer other.Close()
	return startSuccession(t, &succession{
		t: t, handler: h, configure: configure,
		tls:   &tls.Config{Certificates: other.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}},
		roots: other.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
	})
}

func startSuccession(t *testing.T, s *succession) *succession {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	s.serving = s.enthrone()
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.serving.conns <- c
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-accepting
		s.drain(workers.DrainOrder{Timeout: 0})
		for _, r := range s.all {
			await(t, r.over, "the end of a drain")
			_ = r.l.end(0)
		}
	})
	return s
}

func (s *succession) enthrone() *reign {
	r := &reign{l: newLife(func() int { return 0 }), conns: make(chan net.Conn, 16), over: make(chan struct{})}
	r.s = newHTTPServer(r.l, s.handler, s.tls, s.configure)
	s.all = append(s.all, r)
	go func() { _ = r.s.run(r) }()
	return r
}

// drain drains the one that serves, and has none in its place.
func (s *succession) drain(o workers.DrainOrder) *reign {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.serving
	select {
	case <-r.l.draining:
		r.l.drain(o)
		return r
	default:
	}
	close(r.conns)
	r.l.drain(o)
	go r.end()
	return r
}

// succeed puts another in the place of the one that serves, which drains.
func (s *succession) succeed(o workers.DrainOrder) *reign {
	s.mu.Lock()
	old := s.serving
	s.serving = s.enthrone()
	s.mu.Unlock()
	close(old.conns)
	old.l.drain(o)
	go old.end()
	return old
}

func (r *reign) end() {
	defer close(r.over)
	r.s.drain()
	select {
	case <-r.l.cut:
		r.cut = true
	default:
	}
}

// peaceful fails the test if the deadline has cut r's connections.
func (r *reign) peaceful(t *testing.T) {
	t.Helper()
	await(t, r.over, "the end of a drain")
	if r.cut {
		t.Error("connections were cut")
	}
}

// dialTLS is a client that speaks proto, "h2" or "http/1.1".
func (s *succession) dialTLS(proto string) *client {
	s.t.Helper()
	c := dial(s.t, s.addr)
	tc := tls.Client(c.Conn, &tls.Config{RootCAs: s.roots, ServerName: "example.com", NextProtos: []string{proto}})
	if err := tc.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	c.Conn = tc
	c.r.Reset(tc)
	return c
}

// transport is net/http's own client for HTTP/2.
func (s *succession) transport() *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols)}
	if s.tls == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP2(true)
		t.TLSClientConfig = &tls.Config{RootCAs: s.roots, ServerName: "example.com"}
	}
	s.t.Cleanup(t.CloseIdleConnections)
	return t
}

func (s *succession) url() string {
	if s.tls == nil {
		return "http://" + s.addr
	}
	return "https://" + s.addr
}

// hour is a drain that has all the time there is.
func hour() workers.DrainOrder { return workers.DrainOrder{Timeout: time.Hour, Grace: time.Hour} }
