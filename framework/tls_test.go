package framework

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/internal/testcert"
	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
)

func TestBadTLSOptionsAreNamed(t *testing.T) {
	cert := testcert.New(t, 1)
	good := &tls.Config{Certificates: []tls.Certificate{cert.TLS()}}
	ab := both(Listen("tcp", ":0", listener.Name("a")), Listen("tcp", ":1", listener.Name("b")))
	for _, tt := range []struct {
		opt  Option
		want string
	}{
		{TLS("", "k"), `TLS("", "k"): expected a file with the certificate and one with its key`},
		{TLS("c", ""), `TLS("c", ""): expected a file with the certificate and one with its key`},
		{TLS("c\x00", "k"), `TLS("c\x00", "k"): ` + "expected " + expectedPath},
		{TLS("c", "k\x00", "x"), `TLS("c", "k\x00", "x"): ` + "expected " + expectedPath},
		{TLS("c", "k", "x"), `TLS("c", "k", "x"): no listener is called "x": expected one of ["default"]`},
		{TLS("c", "k", ""), `TLS("c", "k", ""): no listener is called "": expected one of ["default"]`},
		{TLS("c", "k", "default", "default"),
			`TLS("c", "k", "default", "default"): listener "default" has TLS("c", "k", "default", "default"): expected one option for a listener`},
		{both(TLS("c", "k"), TLS("d", "l")), `TLS("d", "l"): listener "default" has TLS("c", "k"): expected one option for a listener`},
		{both(ab, both(TLS("c", "k", "b"), TLSConfig(good))),
			`TLSConfig(config): listener "b" has TLS("c", "k", "b"): expected one option for a listener`},
		{TLSConfig(nil), "TLSConfig(nil): expected a config"},
		{TLSConfig(&tls.Config{}, "x"), `TLSConfig(config, "x"): expected a config with Certificates, GetCertificate or GetConfigForClient`},
		{TLSConfig(good, "x"), `TLSConfig(config, "x"): no listener is called "x": expected one of ["default"]`},
	} {
		t.Run(tt.want, func(t *testing.T) {
			_, err := resolve([]Option{tt.opt}, nil)
			if diff := cmp.Diff([]string{tt.want}, problemsOf(t, err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTLSCountsForTheListenersThatItNames(t *testing.T) {
	abc := both(both(Listen("tcp", ":0", listener.Name("a")), Listen("tcp", ":1", listener.Name("b"))), Listen("unix", "/c", listener.Name("c")))
	given := func(o *options) (names []string) {
		for _, name := range o.listenerNames() {
			if o.tls[name] != nil {
				names = append(names, name)
			}
		}
		return names
	}
	for _, tt := range []struct {
		opt  Option
		want []string
	}{
		{TLS("c", "k"), []string{"a", "b", "c"}},
		{TLS("c", "k", "b"), []string{"b"}},
		{both(TLS("c", "k", "c", "a"), TLS("d", "l", "b")), []string{"a", "b", "c"}},
	} {
		// Whatever the order of the options.
		for _, opts := range [][]Option{{abc, tt.opt}, {tt.opt, abc}} {
			if diff := cmp.Diff(tt.want, given(mustResolve(t, nil, opts...))); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestCertificateFilesCountFromTheFirstWorkingDirectory(t *testing.T) {
	defer func(was string) { workingDir = was }(workingDir)
	workingDir = t.TempDir()
	testcert.New(t, 1).Write(workingDir)
	configs, err := mustResolve(t, nil, TLS("cert.pem", "./key.pem")).loadTLS()
	if err != nil || configs["default"] == nil {
		t.Errorf("%v, %v", configs, err)
	}
	workingDir = ""
	if _, err := resolve([]Option{TLS("cert.pem", "/key.pem")}, nil); err == nil {
		t.Error("a relative path was taken without a working directory")
	}
}

func TestBadCertificateEndsTheStartAndIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, cert, key string)
		want  []string // beside both files
	}{
		{"no certificate", func(t *testing.T, cert, _ string) { _ = os.Remove(cert) }, []string{"open", "cert.pem: "}},
		{"no key", func(t *testing.T, _, key string) { _ = os.Remove(key) }, []string{"open", "key.pem: "}},
		{"broken", func(t *testing.T, cert, _ string) { _ = os.WriteFile(cert, []byte("no PEM"), 0o600) }, []string{"failed to find any PEM data"}},
		{"not a pair", func(t *testing.T, cert, key string) {
			old, _ := os.ReadFile(key)
			testcert.New(t, 2).Write(filepath.Dir(key))
			_ = os.WriteFile(key, old, 0o600)
		}, []string{"private key does not match public key"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, key := testcert.New(t, 1).Write(t.TempDir())
			tt.spoil(t, cert, key)
			built := false
			s := launch(t, func(opts ...Option) error {
				return RunFunc(func(context.Context) (http.Handler, error) {
					built = true
					return http.NotFoundHandler(), nil
				}, opts...)
			}, TLS(cert, key))
			err := s.wait()
			if err == nil || ExitCode(err) != 1 || built {
				t.Fatalf("Run: %v, built: %v", err, built)
			}
			for _, part := range append(tt.want, "listener default", cert, key) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

// dialTLS makes a connection that negotiates one of protos.
func dialTLS(t *testing.T, addr string, c *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestTLSIsServedBesideWhatIsPlain(t *testing.T) {
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(t.TempDir())
	s := launch(t, handler(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			io.WriteString(w, "plain "+r.Proto)
			return
		}
		io.WriteString(w, "TLS "+r.Proto)
	}), Listen("tcp", "127.0.0.1:0", listener.Name("secure")), TLS(certFile, keyFile, "secure"))
	plain, secure := s.addr(), s.addr()

	for _, tt := range []struct {
		url, want string
		http2     bool
	}{
		{"http://" + plain, "plain HTTP/1.1", false},
		{"https://" + secure, "TLS HTTP/1.1", false},
		{"https://" + secure, "TLS HTTP/2.0", true},
	} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.Pool()}, ForceAttemptHTTP2: tt.http2}
		resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		tr.CloseIdleConnections()
		if string(body) != tt.want {
			t.Errorf("%s: %q, want %q", tt.url, body, tt.want)
		}
	}
	// net/http answers with 400, and closes before it has read all: the answer
	// may be lost.
	c := dial(t, secure)
	c.send(get)
	if answer, _ := io.ReadAll(c); len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") {
		t.Errorf("without TLS on the TLS listener: %q", answer)
	}
	s.running()
}

// TestProtocolsAreThoseOfNetHTTP: what a client that speaks everything is given,
// here and by ServeTLS.
func TestProtocolsAreThoseOfNetHTTP(t *testing.T) {
	cert := testcert.New(t, 1)
	quiet := log.New(io.Discard, "", 0)
	protocols := func(set func(*http.Protocols)) func(*http.Server) {
		return func(s *http.Server) {
			s.Protocols = new(http.Protocols)
			set(s.Protocols)
		}
	}
	for _, tt := range []struct {
		name      string
		configure func(*http.Server)
		own       []string // NextProtos
		godebug   string
	}{
		{name: "by default"},
		{name: "HTTP/1", configure: protocols(func(p *http.Protocols) { p.SetHTTP1(true) })},
		{name: "HTTP/2", configure: protocols(func(p *http.Protocols) { p.SetHTTP2(true) })},
		{name: "both", configure: protocols(func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) })},
		{name: "HTTP/2 without TLS", configure: protocols(func(p *http.Protocols) { p.SetHTTP1(true); p.SetUnencryptedHTTP2(true) })},
		{name: "TLSNextProto", configure: func(s *http.Server) { s.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} }},
		{name: "another protocol", own: []string{"acme-tls/1"}},
		{name: "HTTP/1 first", own: []string{"http/1.1"}},
		{name: "GODEBUG", godebug: "http2server=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.godebug != "" {
				t.Setenv("GODEBUG", tt.godebug)
			}
			ours := launch(t, handler(func(http.ResponseWriter, *http.Request) {}), HTTPServer(func(s *http.Server) {
				s.ErrorLog = quiet
				if tt.configure != nil {
					tt.configure(s)
				}
			}), TLSConfig(&tls.Config{Certificates: []tls.Certificate{cert.TLS()}, NextProtos: tt.own}))

			theirs := &http.Server{ErrorLog: quiet, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS()}, NextProtos: tt.own}}
			if tt.configure != nil {
				tt.configure(theirs)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); _ = theirs.ServeTLS(ln, "", "") }()
			defer func() { theirs.Close(); <-done }()

			addr := ours.addr()
			for _, offered := range [][]string{{"h2", "http/1.1"}, {"http/1.1", "h2"}, {"h2"}, {"http/1.1"}, {"acme-tls/1"}, nil} {
				negotiate := func(addr string) string {
					c := &tls.Config{RootCAs: cert.Pool(), ServerName: "localhost", NextProtos: offered}
					conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, c)
					if err != nil {
						return "none"
					}
					defer conn.Close()
					return conn.ConnectionState().NegotiatedProtocol
				}
				if got, want := negotiate(addr), negotiate(ln.Addr().String()); got != want {
					t.Errorf("offered %q: %q, net/http gives %q", offered, got, want)
				}
			}
		})
	}
}

func TestHTTPServerMayChangeTheTLSConfig(t *testing.T) {
	cert, other := testcert.New(t, 1), testcert.New(t, 2)
	certFile, keyFile := cert.Write(t.TempDir())
	shared := &tls.Config{MinVersion: tls.VersionTLS13}
	for _, tt := range []struct {
		name   string
		change func(*http.Server)
		serial int64
		min13  bool
	}{
		{"not", func(*http.Server) {}, 1, false},
		{"a field", func(s *http.Server) { s.TLSConfig.MinVersion = tls.VersionTLS13 }, 1, true},
		{"without certificate", func(s *http.Server) { s.TLSConfig = shared }, 1, true},
		{"with certificate", func(s *http.Server) {
			s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{other.TLS()}}
		}, 2, false},
		{"to nothing", func(s *http.Server) { s.TLSConfig = nil }, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := launch(t, handler(func(http.ResponseWriter, *http.Request) {}), Listen("tcp", "127.0.0.1:0"),
				TLS(certFile, keyFile), HTTPServer(tt.change))
			for range 2 {
				addr := s.addr()
				c := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
				conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, c)
				if (err != nil) != tt.min13 {
					t.Errorf("a client of TLS 1.2: %v", err)
				}
				if err == nil {
					conn.Close()
				}
				conn = dialTLS(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				st := conn.ConnectionState()
				if serial := st.PeerCertificates[0].SerialNumber.Int64(); serial != tt.serial || st.NegotiatedProtocol != "h2" {
					t.Errorf("certificate %d, protocol %q", serial, st.NegotiatedProtocol)
				}
				conn.Close()
			}
			if len(shared.NextProtos) > 0 || len(shared.Certificates) > 0 {
				t.Error("the application's config was changed")
			}
		})
	}
}

// TestUselessTLSConfigEndsTheStart: what net/http refuses is no crash later.
func TestUselessTLSConfigEndsTheStart(t *testing.T) {
	s := launch(t, handler(func(http.ResponseWriter, *http.Request) {}), TLSConfig(&tls.Config{
		Certificates: []tls.Certificate{testcert.New(t, 1).TLS()},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	}))
	if err := s.wait(); err == nil || !strings.Contains(err.Error(), "listener default: http2: TLSConfig.CipherSuites") {
		t.Errorf("Run: %v", err)
	}
}

// askTLS asks for path over TLS and returns the answer.
func askTLS(t *testing.T, c *tls.Conn, path string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, strings.Replace(get, "/", path, 1)); err != nil {
		t.Fatal(err)
	}
	return response(t, c)
}

func response(t *testing.T, c *tls.Conn) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestRequestsOverTLSFinishInTheDrain(t *testing.T) {
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(t.TempDir())
	a := launchApp(t, TLS(certFile, keyFile), IdleGrace(time.Hour))
	held := dialTLS(t, a.address, &tls.Config{RootCAs: cert.Pool()})
	idle := dialTLS(t, a.address, &tls.Config{RootCAs: cert.Pool()})
	if _, body := askTLS(t, idle, "/"); body != "hello" {
		t.Errorf("body %q", body)
	}
	io.WriteString(held, strings.Replace(get, "/", "/hold", 1))
	await(t, a.entered, "the request")
	a.drain()
	if resp, body := askTLS(t, idle, "/"); body != "hello" || !resp.Close {
		t.Errorf("body %q, close %v", body, resp.Close)
	}
	a.running()
	a.release <- struct{}{}
	if _, body := response(t, held); body != "held" {
		t.Errorf("body %q", body)
	}
	held.Close()
	a.finish("cut=0")
}

func TestIdleTLSConnectionEndsAfterTheGrace(t *testing.T) {
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(t.TempDir())
	a := launchApp(t, TLS(certFile, keyFile), IdleGrace(100*time.Millisecond))
	idle := dialTLS(t, a.address, &tls.Config{RootCAs: cert.Pool()})
	askTLS(t, idle, "/")
	a.stop()
	if n, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // a close_notify, no reset
		t.Errorf("%d bytes, %v", n, err)
	}
	a.finish("cut=0")
}

func TestServeFunctionGetsTLSConnections(t *testing.T) {
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(t.TempDir())
	serve := func(ctx context.Context, ls Listeners) error {
		for name, ln := range ls.All() {
			if ln != ls.Get(name) || ln.Addr() == nil {
				t.Errorf("listener %s: %v", name, ln)
			}
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						line, _ := bufio.NewReader(c).ReadString('\n')
						_, secure := c.(*tls.Conn)
						if secure {
							line = "secure " + line
						}
						io.WriteString(c, line)
					}()
				}
			}()
		}
		<-ctx.Done()
		return nil
	}
	s := launch(t, func(opts ...Option) error { return Serve(serve, opts...) },
		Listen("tcp", "127.0.0.1:0", listener.Name("secure")), TLS(certFile, keyFile, "secure"))
	plain, secure := s.addr(), s.addr()
	for _, tt := range []struct {
		conn net.Conn
		want string
	}{
		{dial(t, plain), "hello\n"},
		{dialTLS(t, secure, &tls.Config{RootCAs: cert.Pool()}), "secure hello\n"},
	} {
		io.WriteString(tt.conn, "hello\n")
		if line, err := bufio.NewReader(tt.conn).ReadString('\n'); line != tt.want {
			t.Errorf("%q, %v; want %q", line, err, tt.want)
		}
	}
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
}

func TestServeFunctionIsNotCalledWithABadCertificate(t *testing.T) {
	var called atomic.Bool
	s := launch(t, func(opts ...Option) error {
		return Serve(func(context.Context, Listeners) error { called.Store(true); return nil }, opts...)
	}, TLS("/does/not/exist", "/nor/this"))
	if err := s.wait(); err == nil || !strings.Contains(err.Error(), "/does/not/exist") || called.Load() {
		t.Errorf("Run: %v, called: %v", err, called.Load())
	}
}

// movedConn is a connection that another worker has had.
type movedConn struct{ *net.TCPConn }

func (movedConn) Moved() (workers.Moved, bool) { return workers.Moved{}, true }

type oneConn struct {
	net.Listener
	c net.Conn
}

func (l oneConn) Accept() (net.Conn, error) { return l.c, nil }

// A release may turn TLS on while clients of the one before are connected.
func TestMovedConnectionStaysPlainOnATLSListener(t *testing.T) {
	cert := testcert.New(t, 1)
	srv := &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS()}}}
	accept := func(c net.Conn) net.Conn {
		got, err := parkListener{oneConn{c: c}, srv, newHTTPTLS(srv, srv.TLSConfig)}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := dial(t, ln.Addr().String())
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, ok := accept(c).(*tls.Conn); !ok {
		t.Errorf("a new one is a %T", got)
	}
	peer.send("GET")
	moved := accept(movedConn{c.(*net.TCPConn)})
	b := make([]byte, 3)
	if _, err := io.ReadFull(moved, b); err != nil || string(b) != "GET" {
		t.Errorf("read %q, %v from a %T", b, err, moved)
	}
}
