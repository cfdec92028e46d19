//go:build linux

package integration

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// What a stop does with the port, with those who queue at it, and with its
// time; and what becomes of a listener that a release does not have any more.

// requireFreed requires that a connection to addr is refused, within bound from
// now on, and that somebody else can have the address.
func requireFreed(t *testing.T, addr string, bound time.Duration) {
	t.Helper()
	eventually(t, bound, addr+" refuses connections", func() bool {
		c, err := net.DialTimeout("tcp", addr, dialTime)
		if err == nil {
			c.Close()
			return false
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("connect to %s: %v, want it refused", addr, err)
		}
		return true
	})
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("nobody else can have the address: %v", err)
	}
	ln.Close()
}

// soon is how soon a stop frees its port, on a machine that is busy. A client
// that comes in its last moment is ignored, and asks again after a second.
const soon = 3 * time.Second

func TestStopFreesThePortBeforeTheDrainIsOver(t *testing.T) {
	deploy := func(ask func(*service) control.Verdict) func(*service) {
		return func(s *service) {
			installVersion(s, "v2")
			if v := ask(s); !v.OK {
				s.t.Fatalf("%+v", v)
			}
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(*service)
	}{
		{"as started", func(*service) {}},
		{"after a reload", deploy((*service).reload)},
		{"after two upgrades", func(s *service) { deploy((*service).upgrade)(s); deploy((*service).upgrade)(s) }},
		{"during an upgrade", func(s *service) { // its new master has copies of the socket
			installSlow(s, "v2", time.Minute)
			begin(s, control.StateUpgrading, s.client.Upgrade)
			s.waitProcesses(3 + 3)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait, mostly
			s := newService(t, appConfig{Version: "v1", Workers: 2})
			c.prepare(s)
			slow := askSlowly(s, 2*time.Second)
			s.signal(syscall.SIGTERM)
			requireFreed(t, s.addr, soon)
			select {
			case err := <-slow:
				t.Fatalf("the slow request ended before the port was free: %v", err)
			default:
			}
			if err := <-slow; err != nil {
				t.Errorf("the slow request: %v", err)
			}
			requireStopped(s)
		})
	}
}

func TestStopServesThoseWhoQueueInTheKernel(t *testing.T) {
	const n = 300
	requireQueue(t, n)
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	ws := s.workers()
	for _, w := range ws {
		signalPID(t, w.PID, syscall.SIGSTOP)
		waitState(t, w.PID, "T")
	}
	requests := s.openRequests(n, "/version")
	if st := s.status(); serving(st).Ledger.Accepted >= n {
		t.Fatalf("the master has taken all %d connections: the test shows nothing", n)
	}
	s.signal(syscall.SIGTERM)
	s.waitStatus("it stops", func(st control.Status) bool { return st.State == control.StateStopping })
	for _, w := range ws {
		signalPID(t, w.PID, syscall.SIGCONT)
	}
	requireAnswers(t, requests, waitTime)
	requireStopped(s)
}

// newDeadService starts a service whose workers are all dead, and stay so. While
// it still has them, prepare is called.
func newDeadService(t *testing.T, stopTimeout time.Duration, prepare func(*service)) *service {
	t.Helper()
	flag := filepath.Join(t.TempDir(), "fail")
	s := newService(t, appConfig{Version: "v1", Workers: 2, Fail: config.FailExit1, FailIf: flag,
		Options: appOptions{StopTimeout: &stopTimeout}})
	prepare(s)
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, w := range s.workers() {
		signalPID(t, w.PID, syscall.SIGKILL)
		s.waitDead(w.PID)
	}
	s.waitStatus("nobody serves", func(st control.Status) bool { return !st.Accepting })
	return s
}

// requireTold requires that no client is left to wait: each is told by the end
// of its connection.
func requireTold(t *testing.T, requests []*inFlight) {
	t.Helper()
	for _, f := range requests {
		if a, err := f.answer(waitTime); err == nil {
			t.Errorf("it is answered by nobody: %+v", a)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("its client is not told: %v", err)
		}
	}
}

// stopMargin is for what a stop does beside waiting, on a machine that is busy.
const stopMargin = 1500 * time.Millisecond

// Who queues while nobody serves gets a quarter of the time of the stop: it may
// be that a worker comes back.
func TestStopWaitsAQuarterOfItsTimeForSomebodyToServe(t *testing.T) {
	for _, c := range []struct {
		name        string
		queued      int
		least, most time.Duration
	}{
		{"nobody waits", 0, 0, stopMargin},
		{"some wait", 3, 2 * time.Second, 2*time.Second + stopMargin},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newDeadService(t, 8*time.Second, func(*service) {})
			requests := s.openRequests(c.queued, "/")
			began := time.Now()
			s.signal(syscall.SIGTERM)
			requireStopped(s)
			if took := time.Since(began); took < c.least || took > c.most {
				t.Errorf("the stop took %v, want %v to %v", took, c.least, c.most)
			}
			requireTold(t, requests)
		})
	}
}

// The wait for somebody who serves the queue is not at the cost of those who
// are being served.
func TestStopLeavesTheOldGenerationItsTime(t *testing.T) {
	const stopTimeout = 4 * time.Second
	var old <-chan error
	s := newDeadService(t, stopTimeout, func(s *service) {
		old = askSlowly(s, 3500*time.Millisecond)
		if v := s.reload(); !v.OK {
			s.t.Fatalf("reload: %+v", v)
		}
	})
	requests := s.openRequests(3, "/")
	began := time.Now()
	s.signal(syscall.SIGTERM)
	err := <-old
	took := time.Since(began)
	if err != nil {
		t.Errorf("the request of the old generation, %v after TERM: %v", took, err)
	}
	if took < stopTimeout/sweepShare {
		t.Fatalf("the request of the old generation ended after %v: the test shows nothing", took)
	}
	requireStopped(s)
	requireTold(t, requests)
	if took := time.Since(began); took > stopTimeout+stopMargin {
		t.Errorf("the stop took %v", took)
	}
}

// sweepShare is the framework's.
const sweepShare = 4

// A release without a listener frees its address; who is served by way of it is
// served to the end.
func TestListenerThatAReleaseRemovedIsClosed(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "extra.sock")
	main := config.Listener{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}
	s := newService(t, appConfig{Version: "v1", Workers: 2, Listeners: []config.Listener{
		main,
		{Network: "tcp", Addr: "127.0.0.1:0", Name: "second"},
		{Network: "unix", Addr: socket, Name: "extra"},
	}})
	second := s.addrOf("second")
	finish := s.start(load.Config{SlowFor: 300 * time.Millisecond,
		Plans: []load.Plan{{Class: load.PerConn, Clients: 2}, {Class: load.KeepAlive, Clients: 1}, {Class: load.Slow, Clients: 1}}})
	taken := serving(s.status()).Ledger.Acknowledged
	var slow []<-chan error
	for _, addr := range []string{second, socket} {
		c := make(chan error, 1)
		go func() {
			_, err := ask(addr, "/slow?d=2s", waitTime)
			c <- err
		}()
		slow = append(slow, c)
	}
	s.waitStatus("the slow requests are taken", func(st control.Status) bool {
		var open int64
		for _, w := range serving(st).Processes {
			open += w.Open
		}
		return open >= 2 && serving(st).Ledger.Acknowledged >= taken+8 // the load's four, some twice
	})
	for _, name := range []string{"v2", "v3", "v4"} { // the first by a new master, the others are just to go on
		cfg := s.cfg
		cfg.Version, cfg.Listeners = name, []config.Listener{main}
		s.install(cfg)
		s.signal(syscall.SIGHUP)
		s.waitStatusFor(settleTime, name+" serves", func(st control.Status) bool {
			a, err := s.tryGet("/version")
			return err == nil && a.version == name && st.State == control.StateServing
		})
		requireFreed(t, second, soon)
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %s the socket file is left: %v", name, err)
		}
	}
	for _, c := range slow {
		if err := <-c; err != nil {
			t.Errorf("a request by way of a removed listener: %v", err)
		}
	}
	st := requireCoherent(s, "v4", 2)
	if st.Master.Upgrades != 1 {
		t.Errorf("%d upgrades, want one", st.Master.Upgrades)
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

// A server that closes its listener as soon as it is told to finish, and knows
// of nothing better, loses no connection that had been sent to it.
func TestServeThatClosesItsListenerLosesNothing(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2, Serve: true, Quirk: config.QuirkCloses})
	finish := startEchoes(s, 16)
	for i := range tier(10, 100) {
		if v := s.reload(); !v.OK {
			t.Fatalf("reload %d: %+v", i+1, v)
		}
	}
	n, errs := finish()
	t.Logf("%d requests", n)
	for _, err := range errs[:min(len(errs), 5)] {
		t.Error(err)
	}
	if len(errs) > 0 || n < 100 {
		t.Errorf("%d of %d requests lost", len(errs), n)
	}
	requireSettled(s)
}
