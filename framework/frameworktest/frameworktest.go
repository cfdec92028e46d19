// Package frameworktest runs an application of package framework inside a
// test: one process, the same API, the same drain.
//
//	func TestGreeting(t *testing.T) {
//		s := frameworktest.Start(t, build)
//		resp, err := s.Client().Get(s.URL)
//		...
//	}
//
// What depends on there being several processes is beyond it: that each worker
// builds for itself, reloads, upgrades. For these a test starts the real binary.
package frameworktest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/listener"
)

// startTimeout is how long an application may build.
const startTimeout = 10 * time.Second

// Server is an application that runs.
type Server struct {
	// URL of the listener "default", such as "http://127.0.0.1:40123"; https
	// where it has TLS.
	URL string

	client *http.Client
	stop   context.CancelFunc

	mu    sync.Mutex
	addrs map[string]net.Addr

	ended chan struct{} // closed when Run has returned
	err   error         // what it returned
}

// Start runs the application and returns once it is built and listens. A start
// that fails, or takes longer than 10 s, ends the test with the reason. When the
// test ends the server is drained; an error then fails the test, unless it has
// called Drain itself.
//
// There is always a listener "default" on a free port of 127.0.0.1. Listen
// options add to it and need another name; Addr tells where they are.
//
// Idle connections are kept for 100 ms when draining, and the log goes to the
// test's output; the options IdleGrace and Logger change that.
func Start(t testing.TB, build func(context.Context) (http.Handler, error), opts ...framework.Option) *Server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		client: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()},
		stop:   stop,
		addrs:  map[string]net.Addr{},
		ended:  make(chan struct{}),
	}
	built := make(chan *tls.Config, 1)
	first := true
	configured := func(srv *http.Server) {
		if first { // that of "default"; it is called once build has succeeded
			built <- srv.TLSConfig
		}
		first = false
	}
	all := append([]framework.Option{
		framework.IdleGrace(100 * time.Millisecond),
		framework.Logger(slog.New(slog.NewTextHandler(t.Output(), nil))),
		framework.Listen("tcp", "127.0.0.1:0", listener.Name("default")),
	}, opts...)
	all = append(all, framework.SingleProcess(), framework.StopOn(ctx), framework.OnListen(s.listens), framework.HTTPServer(configured))
	go func() {
		defer close(s.ended)
		s.err = framework.RunFunc(build, all...)
	}()
	var secure *tls.Config
	select {
	case secure = <-built:
	case <-s.ended:
		stop()
		t.Fatalf("frameworktest: the application did not start: %v", s.err)
	case <-time.After(startTimeout):
		stop() // build's context ends only if ReadyTimeout is up as well
		t.Fatalf("frameworktest: the application was not built within %v", startTimeout)
	}
	t.Cleanup(func() {
		byTest := ctx.Err() != nil // which has seen the error
		if err := s.Drain(); err != nil && !byTest {
			t.Errorf("frameworktest: %v", err)
		}
	})
	s.URL = "http://" + s.Addr("default").String()
	if secure != nil {
		s.URL = "https://" + s.Addr("default").String()
		s.trust(secure)
	}
	return s
}

// trust makes the client take the server's certificate, whoever it is for.
func (s *Server) trust(server *tls.Config) {
	if len(server.Certificates) == 0 {
		return // a function has it
	}
	cert, err := x509.ParseCertificate(server.Certificates[0].Certificate[0])
	if err != nil {
		return // no client can take that
	}
	client := &tls.Config{RootCAs: x509.NewCertPool()}
	client.RootCAs.AddCert(cert)
	if cert.VerifyHostname("127.0.0.1") != nil && len(cert.DNSNames) > 0 {
		client.ServerName = cert.DNSNames[0]
	}
	s.client.Transport.(*http.Transport).TLSClientConfig = client
}

func (s *Server) listens(name string, a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs[name] = a
}

// Addr returns the address of a listener, nil if there is none of that name.
func (s *Server) Addr(name string) net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs[name]
}

// Client returns a client for this server. It trusts the certificate that the
// option TLS names, or the first in the config of TLSConfig. Drain closes its
// idle connections, so that there is no grace to wait for.
func (s *Server) Client() *http.Client { return s.client }

// BeginDrain begins the drain, as TERM does, and does not wait.
func (s *Server) BeginDrain() {
	s.stop()
	s.client.CloseIdleConnections()
}

// Drain begins the drain and waits for its end: requests in flight are
// answered, OnStop functions called. It returns what Run returned. Later calls
// return the same.
func (s *Server) Drain() error {
	s.BeginDrain()
	<-s.ended
	s.client.CloseIdleConnections()
	return s.err
}
