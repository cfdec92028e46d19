//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// A master that is killed under load, and whoever starts it again.

// supervised makes workers outlive their master.
const supervised = "BATON_ORPHAN_TIMEOUT=1m"

// supervisorPause is from the death of a master until somebody starts another.
const supervisorPause = 200 * time.Millisecond

// killMaster kills the master and waits until it is gone, as a supervisor does.
func (s *service) killMaster() {
	s.t.Helper()
	master := s.masterProcess()
	mustSignal(s.t, master, syscall.SIGKILL)
	waitCollected(s.t, master)
}

// waitCollected waits for the end of all of p: of a process that is a zombie
// already some threads may still have to go, and they have its files.
func waitCollected(t *testing.T, p process) {
	t.Helper()
	eventually(t, waitTime, fmt.Sprintf("process %d is gone", p.PID), func() bool {
		now, err := readProcess(p.PID)
		return err != nil || now.Start != p.Start
	})
}

// restart starts the service as before, until it serves. Another master that
// lives is no reason to give up: a supervisor does not know of it.
func (s *service) restart() {
	s.t.Helper()
	for end := time.Now().Add(startTime); ; {
		s.launch()
		serves, ended := false, false
		eventually(s.t, startTime, "the service serves again", func() bool {
			select {
			case <-s.exited:
				ended = true
			default:
			}
			st, err := s.tryStatus()
			serves = err == nil && st.State == control.StateServing
			return serves || ended
		})
		if serves {
			return
		}
		if ws, err := reaper.status(s.session, waitTime); err != nil || ws.ExitStatus() != 75 || time.Now().After(end) {
			s.t.Fatalf("the new master ended with %#x, %v", ws, err)
		}
	}
}

// crash kills the master, and starts another after a pause.
func (s *service) crash() {
	s.t.Helper()
	s.killMaster()
	<-time.After(supervisorPause)
	s.restart()
}

// acceptBatch is how many connections a master takes from the kernel at once.
const acceptBatch = 16

// requireOnlyUnsent requires that nothing was lost but connections that a master
// had accepted and not sent on when it was killed: new ones, and of each kill a
// few at most.
func requireOnlyUnsent(s *service, r load.Report, kills int) {
	s.t.Helper()
	s.t.Logf("%d kills\n%s", kills, r)
	for class, tally := range r.Classes {
		if tally.OK == 0 {
			s.t.Errorf("no request of class %s was answered", class)
		}
		if tally.Timeouts+tally.Refused > 0 {
			s.t.Errorf("%s: %d timed out, %d refused", class, tally.Timeouts, tally.Refused)
		}
		for _, f := range tally.Errors {
			if f.Nth != f.Requests || f.Bytes > 0 { // not the first of its connection
				s.t.Errorf("an established connection: %v", f)
			}
		}
	}
	if n := r.Lost(); n > kills*acceptBatch {
		s.t.Errorf("%d requests lost by %d kills", n, kills)
	}
}

func TestKilledMasterLosesNoEstablishedConnection(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, withPIDFile(t, appConfig{Version: "v0", Workers: 2}), withEnv(supervised))
	cfg := allClasses()
	cfg.Plans = append(cfg.Plans, load.Plan{Class: load.Idle, Clients: 8, Think: 400 * time.Millisecond})
	finish := s.start(cfg)
	kills := 0
	tick := time.NewTicker(tier(1200*time.Millisecond, 3*time.Second))
	defer tick.Stop()
	for end := time.Now().Add(tier(4*time.Second, time.Minute)); time.Now().Before(end); kills++ {
		<-tick.C
		version := fmt.Sprintf("v%d", kills+1)
		installVersion(s, version)
		s.crash()
		eventually(t, waitTime, version+" answers", func() bool { return s.get("/version").version == version })
		checkLedger(t, s.status())
	}
	<-tick.C
	requireOnlyUnsent(s, finish(), kills)
	if st := requireCoherent(s, fmt.Sprintf("v%d", kills), 2); st.Generations[0].Number != kills+1 {
		t.Errorf("generation %d after %d kills", st.Generations[0].Number, kills)
	}
	requireStops(s)
}

// Clients that keep their connections do not even notice.
func TestKilledMasterMovesIdleConnections(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised))
	finish := s.start(load.Config{Plans: kept()})
	for range tier(2, 10) {
		<-time.After(500 * time.Millisecond)
		s.crash()
		s.waitStatus("only the new generation", oneGeneration)
	}
	requireConnectionsUnnoticed(t, finish())
	requireCoherent(s, "v1", 2)
	requireStops(s)
}

// While there is no master the workers serve, those who come as well.
func TestOrphansAccept(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "app.sock")
	s := newService(t, appConfig{Version: "v1", Workers: 2, Listeners: []config.Listener{
		{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"},
		{Network: "unix", Addr: socket, Name: "local"},
	}}, withEnv(supervised))
	slow := askSlowly(s, 1500*time.Millisecond)
	idle := dialKept(t, s.addr)
	s.killMaster()
	workers := map[string]int{}
	for range 40 {
		workers[s.get("/").worker]++
		if a, err := ask(socket, "/version", waitTime); err != nil || a.version != "v1" {
			t.Fatalf("by way of the unix socket: %+v, %v", a, err)
		}
	}
	t.Logf("answers by worker: %v", workers)
	if code, _, said := ctl(t, "--runtime-dir", filepath.Join(s.dir, "run"), "status"); code != 3 || !strings.Contains(said, "no master; 2 workers go on") {
		t.Errorf("batonctl status: exit status %d: %s", code, said)
	}
	if err := <-slow; err != nil {
		t.Errorf("the slow request: %v", err)
	}
	s.restart()
	s.waitStatus("only the new generation", oneGeneration)
	if err := idle.send("/version"); err != nil {
		t.Fatal(err)
	}
	if a, err := idle.answer(waitTime); err != nil || !strings.HasPrefix(a.worker, "2.") {
		t.Errorf("the idle connection: %+v, %v; want it served by generation 2", a, err)
	}
	if a, err := ask(socket, "/version", waitTime); err != nil || !strings.HasPrefix(a.worker, "2.") {
		t.Errorf("by way of the unix socket: %+v, %v", a, err)
	}
	idle.c.Close() // a stop waits for it
	requireCoherent(s, "v1", 2)
	requireStops(s)
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket file is left")
	}
}

// Whatever the master is busy with when it is killed, what follows is one whole
// service, and clients that had a connection have lost nothing.
func TestMasterKilledAtAnyMomentOfADeployLosesNothing(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"reload": syscall.SIGHUP, "upgrade": syscall.SIGUSR2} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
			finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
			kills, rounds := 0, tier(6, 60)
			for i := range rounds {
				old := s.masterProcess()
				mustSignal(t, old, sig)
				<-time.After(time.Duration(i%6)*8*time.Millisecond + rand.N(8*time.Millisecond))
				victim := old
				if i%2 == 1 {
					victim = s.masterProcess() // it may be the new one
				}
				if victim.signal(syscall.SIGKILL) == nil {
					kills++
				}
				waitCollected(t, victim)
				s.restart()
				requireCoherent(s, "v1", 2)
			}
			requireOnlyUnsent(s, finish(), kills)
			requireStops(s)
		})
	}
}

// A new master that is killed in its turn leaves everything as it was.
func TestMasterKilledWhileItAdoptsLosesNothing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
	<-time.After(200 * time.Millisecond) // or all of them connect when it is killed
	s.killMaster()
	kills, rounds := 1, tier(8, 80)
	for i := range rounds {
		s.launch()
		<-time.After(time.Duration(i%8)*8*time.Millisecond + rand.N(8*time.Millisecond))
		if p, err := readProcess(s.session); err == nil && p.signal(syscall.SIGKILL) == nil {
			kills++
		}
		<-s.exited
	}
	s.restart()
	<-time.After(500 * time.Millisecond)
	requireOnlyUnsent(s, finish(), kills)
	requireCoherent(s, "v1", 2)
	requireStops(s)
}

// Of two masters that are started at once, one finds the lock taken.
func TestSecondMasterEndsAndHarmsNothing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
	for range tier(2, 10) {
		<-time.After(200 * time.Millisecond)
		s.killMaster()
		s.launch()
		first := s.exited
		s.launch()
		select { // either of them
		case <-first:
		case <-s.exited:
			s.session, s.before[len(s.before)-1] = s.before[len(s.before)-1], s.session
			s.exited = first
		}
		loser := s.before[len(s.before)-1]
		if ws, err := reaper.status(loser, waitTime); err != nil || ws.ExitStatus() != 75 {
			t.Errorf("the second master ended with %#x, %v; want 75", ws, err)
		}
		s.waitLog(fmt.Sprintf("held by pid %d", s.session))
		s.waitServing()
		requireCoherent(s, "v1", 2)
	}
	requireOnlyUnsent(s, finish(), tier(2, 10))
	requireStops(s)
}

// The binary on disk may be bad when a new master has to be started: its workers
// do not come up, and those of the last master serve on.
func TestReleaseThatIsRefusedAfterACrashLeavesTheOldOneServing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
	cfg := s.cfg
	cfg.Version, cfg.Fail = "bad", config.FailBuild
	s.install(cfg)
	<-time.After(200 * time.Millisecond)
	s.crash()
	st := requireCoherent(s, "v1", 2)
	if g := st.Generations[0]; g.Number != 1 {
		t.Errorf("generation %d serves, want 1", g.Number)
	}
	if v := st.LastDeploy; v == nil || v.OK || !strings.Contains(v.Reason, "build fails as told") {
		t.Errorf("last deploy %+v", v)
	}
	requireOnlyUnsent(s, finish(), 1)
	// The new master accepts, in strict turn, and is in charge.
	shares := map[string]int{}
	for range 20 {
		shares[s.get("/").worker]++
	}
	if shares["1.1"] != 10 || shares["1.2"] != 10 {
		t.Errorf("shares %v, want 10 each", shares)
	}
	killOne(s) // its successor is of the old release, which is on disk no more
	requireCoherent(s, "v1", 2)
	s.crash() // they are the next one's, too
	requireCoherent(s, "v1", 2)
	installVersion(s, "v2")
	if v := s.reload(); !v.OK {
		t.Errorf("reload: %+v", v)
	}
	requireCoherent(s, "v2", 2)
	requireStops(s)
}

// A generation that drained when its master died is drained by the next one.
func TestDrainGoesOnUnderTheNextMaster(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised))
	slow := askSlowly(s, 3*time.Second)
	installVersion(s, "v2")
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	s.crash()
	st := s.waitStatus("the draining worker is adopted", func(st control.Status) bool {
		return slices.ContainsFunc(st.Generations, func(g control.Generation) bool { return g.Number == 1 })
	})
	if g := st.Generations[0]; g.Number != 1 || g.State != control.GenerationDraining || len(g.Processes) != 1 {
		t.Errorf("generations %+v", st.Generations)
	}
	if err := <-slow; err != nil {
		t.Errorf("the slow request: %v", err)
	}
	requireCoherent(s, "v2", 2)
	requireStops(s)
}

// A worker that could not come when it was waited for is adopted when it can.
func TestWorkerThatComesLateIsDrained(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised))
	kept := s.connectTo("1.1")
	var late control.Worker
	for _, w := range s.workers() {
		if w.ID == "1.1" {
			late = w
		}
	}
	s.killMaster()
	resume := stopProcess(t, late.PID) // not before: the kernel continues whom the death of a parent leaves stopped
	s.restart()
	s.waitLog("workers of the last master live and do not come")
	if a := s.get("/"); !strings.HasPrefix(a.worker, "2.") {
		t.Errorf("worker %s answers, want one of generation 2", a.worker)
	}
	s.crash() // the next master knows of it as well
	resume()
	s.waitLog("worker adopted worker=1.1")
	if err := kept.send("/"); err != nil {
		t.Fatal(err)
	}
	if a, err := kept.answer(waitTime); err != nil || a.status != 200 {
		t.Errorf("its connection: %+v, %v", a, err)
	}
	kept.c.Close() // a stop waits for it
	requireCoherent(s, "v1", 2)
	eventually(t, waitTime, "the socket for workers is gone", func() bool {
		return !slices.Contains(runtimeDir(s), "adopt.sock")
	})
	requireStops(s)
}

// The master is killed while connections are on their way from the old workers
// to the new ones: each has one owner, whatever the master had of it.
func TestKilledMasterLosesNoConnectionThatMoves(t *testing.T) {
	t.Parallel() // its load leaves room for others
	const n = 500
	s := newService(t, appConfig{Version: "v0", Workers: 2}, withEnv(supervised))
	h := gather(s, n)
	for i := range tier(4, 30) {
		old, _ := reloadStopped(s, appConfig{Version: fmt.Sprintf("v%d", i+1), Workers: 2})
		master := s.masterProcess()
		signalAll(t, old, syscall.SIGCONT)
		moved := rand.N(n / 2)
		s.waitStatus("connections are on their way", func(st control.Status) bool { return open(serving(st)) > moved })
		mustSignal(t, master, syscall.SIGKILL)
		waitCollected(t, master)
		s.restart()
		h.requireUnnoticed()
		s.waitStatusFor(settleTime, "only the last generation", oneGeneration)
		h.requireUnnoticed()
	}
	h.close()
	requireCoherent(s, fmt.Sprintf("v%d", tier(4, 30)), 2)
	requireStops(s)
}
