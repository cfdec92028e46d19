//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// rolling makes generations replace each other worker by worker.
const rolling = "BATON_ROLLING=true"

// countWorkers watches how many workers there are until the returned function is
// called, which says how many there were at most.
func countWorkers(s *service) (most func() int) {
	quit, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			// As processes: a status may come too late.
			n = max(n, len(findProcesses(func(p process) bool {
				return p.Session == s.session && p.State != "Z" && strings.Contains(p.Args, ": worker ")
			})))
			select {
			case <-quit:
				done <- n
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int { close(quit); return <-done }
}

// slotsOf are the workers of each generation that serve, as a status has them.
func slotsOf(st control.Status) map[int]int {
	n := map[int]int{}
	for _, g := range st.Generations {
		for _, w := range g.Processes {
			if w.State == control.WorkerServing {
				n[g.Number]++
			}
		}
	}
	return n
}

func TestRollingDeployNeedsOneWorkerMoreAndLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	for name, deploy := range map[string]func(*service) control.Verdict{
		"reload": (*service).reload, "upgrade": (*service).upgrade,
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 3}, withEnv(rolling))
			cfg := allClasses()
			cfg.StreamFor = time.Second
			finish := s.start(cfg)
			most := countWorkers(s)
			for i := range tier(1, 10) {
				version := fmt.Sprintf("v%d", i+2)
				installVersion(s, version)
				v := deploy(s)
				if !v.OK {
					t.Fatalf("%+v", v)
				}
				st := s.status()
				if name == "reload" && (len(st.Generations) != 1 || !allServe(st.Generations[0])) {
					t.Errorf("with its verdict the reload is over: %+v", st.Generations)
				}
				s.waitLog(fmt.Sprintf("generation %d has replaced generation %d workers=3", v.Generation, v.Generation-1))
				requireCoherent(s, version, 3)
			}
			want := 4
			if name == "upgrade" { // it asks one that does not serve, which may take long to leave
				want++
			}
			if n := most(); n < 4 || n > want {
				t.Errorf("%d workers at a time, want 4", n)
			}
			requireNothingLost(s, finish())
			requireStops(s)
		})
	}
}

// While a generation rolls both serve, and what the new one cannot finish is
// undone.
func TestRollingReleaseThatFailsOnItsWayIsTakenBack(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 3}, withEnv(rolling))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
	bad := s.cfg
	bad.Version, bad.Fail, bad.FailIf = "v2", config.FailBuild, filepath.Join(t.TempDir(), "fail")
	s.install(bad)
	slow := s.openRequests(6, "/slow?d=1s") // so that the first drain takes a while
	verdict := begin(s, control.StateReloading, s.client.Reload)
	s.waitStatus("both generations serve", func(st control.Status) bool {
		n := slotsOf(st)
		return n[1] > 0 && n[2] > 0
	})
	versions := map[string]bool{}
	for range 50 {
		versions[s.get("/version").version] = true
	}
	if !versions["v1"] || !versions["v2"] {
		t.Errorf("%v answer, want both", versions)
	}
	if err := os.WriteFile(bad.FailIf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := <-verdict; v.OK || !strings.Contains(v.Reason, "build fails as told") {
		t.Errorf("%+v", v)
	}
	requireAnswers(t, slow, waitTime)
	requireCoherent(s, "v1", 3)
	if err := os.Remove(bad.FailIf); err != nil {
		t.Fatal(err)
	}
	if v := s.reload(); !v.OK { // the binary was good
		t.Fatalf("%+v", v)
	}
	requireCoherent(s, "v2", 3)
	requireNothingLost(s, finish())
	requireStops(s)
}

// killAtTheLastStep rolls, and kills a new worker when the last old one drains. It
// returns the generation that was refused for that, 0 if it was over before.
func killAtTheLastStep(s *service) (refused int) {
	s.t.Helper()
	verdict := begin(s, control.StateReloading, s.client.Reload)
	for {
		select {
		case v := <-verdict:
			if !v.OK {
				s.t.Fatalf("%+v", v)
			}
			return 0
		default:
		}
		st := s.status()
		if len(st.Generations) != 2 || len(slotsOf(st)) != 1 || slotsOf(st)[st.Generations[1].Number] != 3 {
			continue
		}
		signalPID(s.t, st.Generations[1].Processes[0].PID, syscall.SIGKILL)
		v := <-verdict
		if v.OK { // it served alone by then
			s.waitStatus("its worker is replaced", func(st control.Status) bool { return len(slotsOf(st)) == 1 && slotsOf(st)[v.Generation] == 3 })
			return 0
		}
		if !strings.Contains(v.Reason, "signal: killed") {
			s.t.Errorf("%+v", v)
		}
		return v.Generation
	}
}

// One that fails at its last step has all of the service by then. It gives it back
// step by step: the clients of its other workers are not told to close.
func TestRollingReleaseThatFailsLateIsTakenBackStepByStep(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 3}, withEnv(rolling))
	slow := load.Plan{Class: load.Slow, Clients: 9} // so that drains take a while
	finish := s.start(load.Config{Plans: append(kept(), slow), SlowFor: 500 * time.Millisecond})
	most := countWorkers(s)
	refused, attempts := 0, 0
	for end := time.Now().Add(time.Minute); refused == 0; attempts++ {
		if time.Now().After(end) {
			t.Fatalf("in %d attempts no worker died while the last old one drained", attempts)
		}
		refused = killAtTheLastStep(s)
	}
	s.waitStatus("only the old generation", oneGeneration)
	requireCoherent(s, "v1", 3)
	if n := most(); n > 4 {
		t.Errorf("%d workers at a time, want 4 at most", n)
	}
	died := 0
	for _, line := range s.log.all() {
		if strings.Contains(line, fmt.Sprintf("worker died worker=%d.", refused)) {
			died++
		}
	}
	if died != 1 {
		t.Errorf("%d workers of the release that failed have died: it is not to be started again", died)
	}
	r := finish()
	t.Logf("\n%s", r)
	for class, tally := range r.Classes {
		if tally.ConnectionClose > 0 || tally.Timeouts+tally.Refused > 0 {
			t.Errorf("%s: %d were told to close, %d timed out, %d refused", class, tally.ConnectionClose, tally.Timeouts, tally.Refused)
		}
	}
	requireStops(s)
}

// What comes while a release is taken back, which may be the remedy, does not wait
// for that.
func TestDeployWhileAReleaseIsTakenBack(t *testing.T) {
	for name, deploy := range map[string]func(*service) control.Verdict{
		"reload": (*service).reload, "upgrade": (*service).upgrade,
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(rolling))
			finish := s.start(load.Config{Plans: kept()})
			bad := s.cfg
			bad.Version, bad.Fail, bad.FailIf = "v2", config.FailBuild, filepath.Join(t.TempDir(), "fail")
			s.install(bad)
			lasting := s.openRequests(2, "/slow?d=1s")
			verdict := begin(s, control.StateReloading, s.client.Reload)
			s.waitStatus("both generations serve", func(st control.Status) bool { return len(slotsOf(st)) == 2 })
			if err := os.WriteFile(bad.FailIf, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if v := <-verdict; v.OK {
				t.Errorf("%+v", v)
			}
			installVersion(s, "v3")
			if v := deploy(s); !v.OK {
				t.Fatalf("%+v", v)
			}
			requireAnswers(t, lasting, waitTime)
			s.waitStatus("only the new generation", oneGeneration)
			requireCoherent(s, "v3", 2)
			requireConnectionsUnnoticed(t, finish())
			requireStops(s)
		})
	}
}

// A generation that rolls can be scaled, its master be killed, and the service be
// stopped.
func TestWhatComesWhileAGenerationRolls(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 3}, withEnv(rolling, supervised))
	halfway := func(n int) (<-chan control.Verdict, []*inFlight) {
		slow := s.openRequests(2*n, "/slow?d=1s")
		verdict := begin(s, control.StateReloading, s.client.Reload)
		s.waitStatus("both generations serve", func(st control.Status) bool { return len(slotsOf(st)) == 2 })
		return verdict, slow
	}
	installVersion(s, "v2")
	verdict, slow := halfway(3)
	if v := s.scale(5); !v.OK {
		t.Fatalf("%+v", v)
	}
	if v := <-verdict; !v.OK {
		t.Fatalf("%+v", v)
	}
	requireAnswers(t, slow, waitTime)
	requireCoherent(s, "v2", 5)

	installVersion(s, "v3")
	_, slow = halfway(5)
	s.crash()
	requireAnswers(t, slow, waitTime)
	requireCoherent(s, "v3", 5)

	_, slow = halfway(5)
	s.signal(syscall.SIGTERM)
	requireAnswers(t, slow, waitTime)
	requireStopped(s)
}
