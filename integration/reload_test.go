//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

// allClasses is a load of every class whose clients may lose nothing.
func allClasses() load.Config {
	return load.Config{
		Plans: []load.Plan{
			{Class: load.PerConn, Clients: 4},
			{Class: load.KeepAlive, Clients: 4},
			{Class: load.Slow, Clients: 4},
			{Class: load.Stream, Clients: 4},
			{Class: load.Pipelined, Clients: 2},
		},
		SlowFor:   tier(time.Second, 2*time.Second),
		StreamFor: tier(2*time.Second, 5*time.Second),
	}
}

// deployEvery deploys a new version each time, for as long as d, and requires
// that each is taken. It returns how many there were.
func deployEvery(s *service, every, d time.Duration, deploy func() control.Verdict) int {
	s.t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	n := 0
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		<-tick.C
		cfg := s.cfg
		cfg.Version = fmt.Sprintf("v%d", n+2)
		s.install(cfg)
		if v := deploy(); !v.OK {
			s.t.Fatalf("deploy %d: %+v", n+1, v)
		}
		if a := s.get("/version"); a.version != cfg.Version {
			s.t.Fatalf("after deploy %d %s answers, want %s", n+1, a.version, cfg.Version)
		}
		checkLedger(s.t, s.status())
	}
	return n
}

func requireNothingLost(s *service, r load.Report) {
	s.t.Helper()
	s.t.Logf("\n%s", r)
	if n := r.Lost(); n > 0 {
		s.t.Errorf("%d requests lost", n)
	}
	for class, tally := range r.Classes {
		if tally.OK == 0 {
			s.t.Errorf("no request of class %s was answered", class)
		}
	}
}

// requireSettled waits until one generation is left and checks its sums.
func requireSettled(s *service) {
	s.t.Helper()
	st := s.waitStatusFor(20*time.Second, "old generations are gone", func(st control.Status) bool {
		// A master is patient: the last answer may be there before it has read that
		// its worker has the connection.
		return len(st.Generations) == 1 && st.State == control.StateServing && st.Generations[0].Ledger.Pending == 0
	})
	checkLedger(s.t, st)
	if l := st.Generations[0].Ledger; l.RefusedTotal() != 0 || l.Cut != 0 {
		s.t.Errorf("ledger at the end: %+v", l)
	}
	// The master, and the workers of one generation: nobody else.
	s.waitProcesses(1 + st.Generations[0].Workers)
}

func TestReloadLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	finish := s.start(allClasses())
	n := deployEvery(s, time.Second, tier(4*time.Second, 30*time.Second), s.reload)
	requireNothingLost(s, finish())
	t.Logf("%d reloads", n)
	requireSettled(s)
	s.stop()
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestUpgradeLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	first := s.masterPID()
	finish := s.start(allClasses())
	n := deployEvery(s, 2*time.Second, tier(4*time.Second, 30*time.Second), s.upgrade)
	requireNothingLost(s, finish())
	t.Logf("%d upgrades", n)
	st := s.status()
	if st.Master.PID == first || st.Master.Upgrades != n {
		t.Errorf("master %d after %d upgrades, was %d; %d upgrades were made", st.Master.PID, st.Master.Upgrades, first, n)
	}
	requireSettled(s)
	s.stop()
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestRoundRobinIsExact(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 4})
	requireEqualShares(s, "1.", "v1")
	checkLedger(t, s.status())

	cfg := s.cfg
	cfg.Version = "v2"
	s.install(cfg)
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	requireEqualShares(s, "2.", "v2")
	checkLedger(t, s.status())
}

// requireEqualShares asks 100 times, a connection each, one after the other.
func requireEqualShares(s *service, generation, version string) {
	s.t.Helper()
	shares := map[string]int{}
	for range 100 {
		a := s.get("/")
		shares[a.worker]++
		if a.version != version || !strings.HasPrefix(a.worker, generation) {
			s.t.Fatalf("worker %s of %s answers, want one of generation %s and %s", a.worker, a.version, generation, version)
		}
	}
	for slot := 1; slot <= 4; slot++ {
		if n := shares[fmt.Sprintf("%s%d", generation, slot)]; n != 25 {
			s.t.Fatalf("shares %v, want 25 each", shares)
		}
	}
}
