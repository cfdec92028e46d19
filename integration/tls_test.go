//go:build linux

package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/testcert"
)

// withTLS adds a listener "secure" behind the plain "main", and a certificate.
func withTLS(t *testing.T, cfg appConfig) (appConfig, testcert.Cert) {
	t.Helper()
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(t.TempDir())
	cfg.Listeners = []config.Listener{
		{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"},
		{Network: "tcp", Addr: "127.0.0.1:0", Name: "secure"},
	}
	cfg.TLS = &config.TLS{Cert: certFile, Key: keyFile, Listeners: []string{"secure"}}
	return cfg, cert
}

// secured is what came of one connection with TLS.
type secured struct {
	answer
	serial  int64 // of the certificate
	resumed bool
}

// askTLS sends one request on a connection of its own.
func askTLS(addr string, c *tls.Config) (secured, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: waitTime}, "tcp", addr, c)
	if err != nil {
		return secured{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(waitTime))
	if _, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return secured{}, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return secured{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	st := conn.ConnectionState()
	return secured{
		answer: answer{res.StatusCode, res.Header.Get("X-Worker"), res.Header.Get("X-Version"), string(body)},
		serial: st.PeerCertificates[0].SerialNumber.Int64(), resumed: st.DidResume,
	}, err
}

// sessionClient makes one connection after the other, and resumes the session
// of the one before.
type sessionClient struct {
	addr   string
	config *tls.Config
	got    time.Time // when the connection began that gave the session; zero: there is none
}

var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func newSessionClient(addr string, cert testcert.Cert, version uint16) *sessionClient {
	return &sessionClient{addr: addr, config: &tls.Config{
		RootCAs: cert.Pool(), ServerName: "localhost", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}}
}

func (c *sessionClient) String() string { return tls.VersionName(c.config.MaxVersion) }

// ask fails if the session is not resumed although it is not older than bound;
// 0 is as old as sessions get.
func (c *sessionClient) ask(bound time.Duration) (secured, error) {
	began := time.Now()
	a, err := askTLS(c.addr, c.config)
	if err != nil {
		return a, fmt.Errorf("%s: %w", c, err)
	}
	age := time.Since(c.got)
	if !c.got.IsZero() && !a.resumed && (bound == 0 || age < bound) {
		return a, fmt.Errorf("%s: worker %s did not resume a session that was %v old", c, a.worker, age)
	}
	c.got = began
	return a, nil
}

// requireResumed requires that each worker of the generation resumes the
// sessions, which come from all of them. Others may have their turns, too.
func requireResumed(s *service, clients []*sessionClient, workers int) {
	s.t.Helper()
	generation := fmt.Sprintf("%d.", s.serving().Number)
	for _, c := range clients {
		seen := map[string]int{}
		for n := 0; n < 3*workers || len(seen) < workers && n < 100*workers; n++ {
			a, err := c.ask(0)
			if err != nil {
				s.t.Fatal(err)
			}
			if !strings.HasPrefix(a.worker, generation) {
				s.t.Errorf("worker %s answers, want one of generation %s", a.worker, generation)
			}
			seen[a.worker]++
		}
		if len(seen) != workers {
			s.t.Errorf("%v answered, want %d workers", seen, workers)
		}
	}
}

// resuming makes connections until stop is called, which requires that there
// were some and that each one resumed its session.
func resuming(s *service, clients []*sessionClient, bound time.Duration) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var resumed atomic.Int64
	failed := make(chan error, len(clients))
	for _, c := range clients {
		go func() {
			for ctx.Err() == nil {
				a, err := c.ask(bound)
				if err != nil {
					failed <- err
					return
				}
				if a.resumed {
					resumed.Add(1)
				}
			}
			failed <- nil
		}()
	}
	finish := func() {
		cancel()
		for range clients {
			if err := <-failed; err != nil {
				s.t.Error(err)
			}
		}
		s.t.Logf("%d connections resumed their session", resumed.Load())
		if int(resumed.Load()) < 10*len(clients) {
			s.t.Errorf("only %d connections were made", resumed.Load())
		}
	}
	done := false
	s.t.Cleanup(func() {
		if cancel(); !done {
			for range clients {
				<-failed
			}
		}
	})
	return func() { done = true; finish() }
}

func sessionClients(s *service, cert testcert.Cert) (clients []*sessionClient) {
	for _, version := range tlsVersions {
		clients = append(clients, newSessionClient(s.addrOf("secure"), cert, version))
	}
	return clients
}

// requireWhole waits until all workers of the serving generation serve.
func requireWhole(s *service, n int) {
	s.t.Helper()
	s.waitStatus("all workers serve", func(st control.Status) bool {
		g := serving(st)
		return g != nil && len(g.Processes) == n && !slices.ContainsFunc(g.Processes, func(w control.Worker) bool {
			return w.State != control.WorkerServing
		})
	})
}

func TestTLSSessionsAreResumedByEveryWorker(t *testing.T) {
	const workers = 4
	cfg, cert := withTLS(t, appConfig{Version: "v1", Workers: workers})
	s := newService(t, cfg)
	clients := sessionClients(s, cert)
	requireResumed(s, clients, workers)

	stop := resuming(s, sessionClients(s, cert), 0)
	for i, deploy := range []func() control.Verdict{s.reload, s.reload, s.upgrade, s.reload, s.upgrade, s.upgrade} {
		installVersion(s, fmt.Sprintf("v%d", i+2))
		if v := deploy(); !v.OK {
			t.Fatalf("deploy %d: %+v", i+1, v)
		}
		requireResumed(s, clients, workers)
	}
	stop()

	killOne(s)
	requireWhole(s, workers)
	requireResumed(s, clients, workers)
	requireStops(s)
}

// stale is a session cache that keeps the first session for ever.
type stale struct{ tls.ClientSessionCache }

func (c stale) Put(key string, s *tls.ClientSessionState) {
	if _, ok := c.Get(key); !ok && s != nil {
		c.ClientSessionCache.Put(key, s)
	}
}

// requireForgotten makes a session and waits until no worker resumes it.
func requireForgotten(s *service, cert testcert.Cert, workers int) {
	s.t.Helper()
	c := newSessionClient(s.addrOf("secure"), cert, tls.VersionTLS13)
	c.config.ClientSessionCache = stale{c.config.ClientSessionCache}
	if _, err := c.ask(0); err != nil {
		s.t.Fatal(err)
	}
	forgotten := 0 // times in a row
	eventually(s.t, 2*waitTime, "the session is forgotten", func() bool {
		a, err := askTLS(c.addr, c.config)
		if err != nil {
			s.t.Fatal(err)
		}
		if forgotten++; a.resumed {
			forgotten = 0
		}
		return forgotten == workers
	})
}

// Keys come and go while sessions are resumed: at workers that run, at those of
// new generations, under new masters, and at one that was started in the place
// of another.
func TestTicketKeysAreRenewedAndNoSessionIsLost(t *testing.T) {
	t.Parallel() // its load leaves room for others
	const (
		workers  = 4
		rotation = 300 * time.Millisecond
		lives    = 6 * rotation // a session, at least
	)
	cfg, cert := withTLS(t, appConfig{Version: "v1", Workers: workers, TicketRotation: rotation})
	s := newService(t, cfg)
	clients := sessionClients(s, cert)
	for _, step := range []struct {
		name           string
		before, during func()
	}{
		{"in the first generation", func() {}, func() {}},
		{"in another", func() { killOne(s); requireWhole(s, workers) }, func() { requireOK(t, s.reload()) }},
		{"under another master", func() { installSlow(s, "v2", 4*rotation) }, func() { requireOK(t, s.upgrade()) }},
	} {
		step.before()
		for _, c := range clients {
			c.got = time.Time{} // it may have been long
		}
		stop := resuming(s, clients, lives)
		step.during()
		requireForgotten(s, cert, workers)
		stop()
		if t.Failed() {
			t.Fatal(step.name)
		}
	}
	requireStops(s)
}

func requireOK(t *testing.T, v control.Verdict) {
	t.Helper()
	if !v.OK {
		t.Fatalf("refused: %+v", v)
	}
}

// requireSerial requires that every worker shows this certificate.
func requireSerial(s *service, serial int64, workers int) {
	s.t.Helper()
	seen := map[string]bool{}
	for range 2 * workers {
		a, err := askTLS(s.addrOf("secure"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			s.t.Fatal(err)
		}
		if a.serial != serial {
			s.t.Fatalf("worker %s shows certificate %d, want %d", a.worker, a.serial, serial)
		}
		seen[a.worker] = true
	}
	if len(seen) != workers {
		s.t.Errorf("%v answered, want %d workers", seen, workers)
	}
}

func TestRenewedCertificateIsServedAfterAReload(t *testing.T) {
	const workers = 2
	cfg, _ := withTLS(t, appConfig{Version: "v1", Workers: workers})
	dir, certFile, keyFile := strings.TrimSuffix(cfg.TLS.Cert, "/cert.pem"), cfg.TLS.Cert, cfg.TLS.Key
	s := newService(t, cfg)
	requireSerial(s, 1, workers)
	testcert.New(t, 2).Write(dir)
	requireSerial(s, 1, workers)
	requireOK(t, s.reload())
	requireSerial(s, 2, workers)
	requireSettled(s)

	for _, bad := range []struct {
		name   string
		spoil  func() error
		reason []string
	}{
		{"no key", func() error { return os.Remove(keyFile) }, []string{keyFile, "no such file or directory"}},
		{"no PEM", func() error { return os.WriteFile(certFile, []byte("?"), 0o600) }, []string{certFile, "failed to find any PEM data"}},
		{"not a pair", func() error {
			cert, err := os.ReadFile(certFile)
			testcert.New(t, 4).Write(dir)
			if err != nil {
				return err
			}
			return os.WriteFile(certFile, cert, 0o600)
		}, []string{certFile, keyFile, "private key does not match public key"}},
	} {
		testcert.New(t, 3).Write(dir)
		if err := bad.spoil(); err != nil {
			t.Fatal(err)
		}
		reason := append([]string{"listener secure: certificate"}, bad.reason...)
		requireRefused(s, bad.name+" at a reload", s.reload, certFile, reason...)
		requireRefused(s, bad.name+" at an upgrade", s.upgrade, certFile, reason...)
		requireSerial(s, 2, workers)
	}

	testcert.New(t, 5).Write(dir)
	requireOK(t, s.upgrade())
	requireSerial(s, 5, workers)
	requireStops(s)
}

func TestFirstStartWithABadCertificateSaysSo(t *testing.T) {
	cfg, _ := withTLS(t, appConfig{Workers: 2})
	if err := os.Remove(cfg.TLS.Key); err != nil {
		t.Fatal(err)
	}
	s := startService(t, cfg)
	if code := s.exitCode(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	requireParts(t, "the log", strings.Join(s.log.all(), "\n"), "baton: not ready", "listener secure: certificate "+cfg.TLS.Cert, "open "+cfg.TLS.Key)
	requireNothingLeft(s)
}

func TestBothVersionsOfHTTPAreServedOverTLS(t *testing.T) {
	cfg, cert := withTLS(t, appConfig{Version: "v1", Workers: 2})
	s := newService(t, cfg)
	requireBoth := func(version string) {
		t.Helper()
		for _, http2 := range []bool{false, true} {
			tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.Pool()}, ForceAttemptHTTP2: http2}
			res, err := (&http.Client{Transport: tr, Timeout: waitTime}).Get("https://" + s.addrOf("secure") + "/version")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			tr.CloseIdleConnections()
			if err != nil || string(body) != version || (res.ProtoMajor == 2) != http2 {
				t.Errorf("%q, %v by %s", body, err, res.Proto)
			}
		}
		if a := s.get("/version"); a.body != version {
			t.Errorf("without TLS: %+v", a)
		}
	}
	requireBoth("v1")
	installVersion(s, "v2")
	requireOK(t, s.reload())
	requireBoth("v2")
	requireStops(s)
}

// A connection that was idle when its listener got TLS goes to a worker that
// expects TLS of new ones.
func TestListenerGetsTLSByAReload(t *testing.T) {
	plain := appConfig{Version: "v1", Workers: 2}
	cfg, cert := withTLS(t, plain)
	s := newService(t, plain)
	idle, err := net.DialTimeout("tcp", s.addr, waitTime)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	_ = idle.SetDeadline(time.Now().Add(2 * waitTime))
	answers := bufio.NewReader(idle)
	version := func() string {
		if _, err := io.WriteString(idle, "GET /version HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if v := version(); v != "v1" {
		t.Errorf("%s answers", v)
	}
	cfg.Version, cfg.Listeners, cfg.TLS.Listeners = "v2", nil, nil
	s.install(cfg)
	requireOK(t, s.reload())
	requireSettled(s) // the idle connection has moved, or its worker would stay
	if v := version(); v != "v2" {
		t.Errorf("%s answers on the connection of before", v)
	}
	if a, err := askTLS(s.addr, &tls.Config{RootCAs: cert.Pool()}); err != nil || a.version != "v2" {
		t.Errorf("with TLS: %+v, %v", a, err)
	}
	// The answer may be lost: net/http has not read all when it closes.
	if a, err := s.tryGet("/version"); err == nil && a.status != http.StatusBadRequest {
		t.Errorf("without TLS: %+v, %v", a, err)
	}
	idle.Close()
	requireStops(s)
}

func TestServeFunctionGetsTLSConnectionsInWorkers(t *testing.T) {
	cfg, cert := withTLS(t, appConfig{Version: "v1", Workers: 2, Serve: true})
	s := newService(t, cfg)
	c := newSessionClient(s.addrOf("secure"), cert, tls.VersionTLS13)
	who := func() (version string, resumed bool) {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: waitTime}, "tcp", c.addr, c.config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(waitTime))
		io.WriteString(conn, "who\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(line)[1], conn.ConnectionState().DidResume
	}
	who()
	for i := range 4 {
		if version, resumed := who(); version != "v1" || !resumed {
			t.Errorf("connection %d: %s, resumed %v", i+2, version, resumed)
		}
	}
	installVersion(s, "v2")
	requireOK(t, s.reload())
	if version, resumed := who(); version != "v2" || !resumed {
		t.Errorf("after a reload: %s, resumed %v", version, resumed)
	}
	requireStops(s)
}
