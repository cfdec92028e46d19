//go:build linux

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// newFailingService starts a service whose workers cannot be started while
// there is a file at flag, and leaves it without any.
func newFailingService(t *testing.T, version string) (s *service, flag string) {
	t.Helper()
	flag = filepath.Join(t.TempDir(), "fail")
	s = newService(t, appConfig{Version: version, Workers: 2, Fail: config.FailExit1, FailIf: flag})
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, w := range s.workers() {
		signalPID(t, w.PID, syscall.SIGKILL)
	}
	s.waitStatus("nobody serves", func(st control.Status) bool {
		g := serving(st)
		for _, w := range g.Processes {
			if w.State == control.WorkerServing {
				return false
			}
		}
		return !st.Accepting
	})
	return s, flag
}

// requireQueue requires that the kernel queues n connections, and the test can
// have as many.
func requireQueue(t *testing.T, n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Fatal(err)
	}
	if most, _ := strconv.Atoi(strings.TrimSpace(string(b))); most < n {
		t.Skipf("net.core.somaxconn is %d, this test needs %d", most, n)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Cur < uint64(n)+100 {
		t.Skipf("RLIMIT_NOFILE is %d, this test needs %d", files.Cur, n+100)
	}
}

// requireAllAcknowledged waits for the master to read what its workers say of
// connections that they may have answered already.
func requireAllAcknowledged(s *service) {
	s.t.Helper()
	s.waitStatus("all connections are acknowledged", func(st control.Status) bool {
		g := serving(st)
		return g != nil && g.Ledger.Pending == 0
	})
}

func (s *service) probes() (healthy, ready error) {
	ctx, cancel := deadline(waitTime)
	defer cancel()
	return s.client.Healthy(ctx), s.client.Ready(ctx)
}

func TestConnectionsWaitInTheKernelWhileNobodyServes(t *testing.T) {
	n := tier(500, 3000)
	requireQueue(t, n)
	s, flag := newFailingService(t, "v1")
	before := s.status()

	most := before.Master.FDs
	var requests []*inFlight
	for len(requests) < n {
		requests = append(requests, s.openRequests(100, "/version")...)
		most = max(most, s.status().Master.FDs)
	}
	if healthy, ready := s.probes(); healthy != nil || ready == nil {
		t.Errorf("healthz: %v, readyz: %v; want a master that is well and not ready", healthy, ready)
	}
	s.waitStatus("a respawn fails", func(st control.Status) bool {
		most = max(most, st.Master.FDs)
		return s.countLog("testapp: exits as told") >= 8
	})
	st := s.status()
	checkLedger(t, st)
	if g := serving(st); g == nil || g.Ledger.Accepted != serving(before).Ledger.Accepted || st.Pending != 0 {
		t.Errorf("the master has taken connections that nobody can serve: %+v, before %+v", st, before)
	}
	// Starting a worker takes some, for as long as it lives.
	if extra := most - before.Master.FDs; extra > 30 {
		t.Errorf("%d descriptors of the master at most, %d before %d clients came", most, before.Master.FDs, n)
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	for _, a := range requireAnswers(t, requests, 30*time.Second) {
		if a.version != "v1" {
			t.Fatalf("%+v", a)
		}
	}
	requireAllAcknowledged(s)
	st = s.waitStatusFor(20*time.Second, "all workers serve again", complete)
	checkLedger(t, st)
	if l := serving(st).Ledger; l.RefusedTotal() != 0 || l.Accepted-serving(before).Ledger.Accepted < uint64(n) {
		t.Errorf("ledger %+v, before %+v", l, serving(before).Ledger)
	}
	if healthy, ready := s.probes(); healthy != nil || ready != nil {
		t.Errorf("healthz: %v, readyz: %v", healthy, ready)
	}
}

func TestReloadServesThoseWhoWaitForNobody(t *testing.T) {
	s, _ := newFailingService(t, "v1")
	requests := s.openRequests(50, "/version")
	s.install(appConfig{Version: "v2", Workers: 2})
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	for _, a := range requireAnswers(t, requests, waitTime) {
		if a.version != "v2" || a.status != http.StatusOK {
			t.Fatalf("%+v", a)
		}
	}
	requireAllAcknowledged(s)
	requireSettled(s)
}

func TestUpgradeServesThoseWhoWaitForNobody(t *testing.T) {
	s, _ := newFailingService(t, "v1")
	requests := s.openRequests(50, "/version")
	s.install(appConfig{Version: "v2", Workers: 2})
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	for _, a := range requireAnswers(t, requests, waitTime) {
		if a.version != "v2" || a.status != http.StatusOK {
			t.Fatalf("%+v", a)
		}
	}
	requireAllAcknowledged(s)
	requireSettled(s)
}
