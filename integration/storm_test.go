//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// installVersion installs a release that differs in its version only.
func installVersion(s *service, version string) {
	s.t.Helper()
	cfg := s.cfg
	cfg.Version = version
	s.install(cfg)
}

// installSlow installs a release whose build takes so long.
func installSlow(s *service, version string, takes time.Duration) {
	s.t.Helper()
	cfg := s.cfg
	cfg.Version, cfg.BuildTakes = version, takes
	s.install(cfg)
}

// begin asks for a deploy and returns once it is under way; the verdict comes
// later.
func begin(s *service, state string, ask func(context.Context) (control.Verdict, error)) <-chan control.Verdict {
	s.t.Helper()
	c := make(chan control.Verdict, 1)
	go func() {
		ctx, cancel := deadline(verdictTime)
		defer cancel()
		v, err := ask(ctx)
		if err != nil {
			v.Reason = "no verdict: " + err.Error()
		}
		c <- v
	}()
	s.waitStatus("it is "+state, func(st control.Status) bool { return st.State == state })
	return c
}

// follow keeps track of who is the master until the test ends, for a test that
// asks for no status itself.
func follow(s *service) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_, _ = s.tryStatus()
			<-tick.C
		}
	}()
	s.t.Cleanup(func() { cancel(); <-done })
}

// masterProcess returns the process that is the master now: signals to it are not
// passed to a later one by the test.
func (s *service) masterProcess() process {
	s.t.Helper()
	var p process
	// One that has just been replaced may have answered, and ended since.
	eventually(s.t, waitTime, "there is a master", func() bool {
		var err error
		p, err = readProcess(s.masterPID())
		return err == nil
	})
	return p
}

func mustSignal(t *testing.T, p process, sig syscall.Signal) {
	t.Helper()
	if err := p.signal(sig); err != nil {
		t.Fatalf("%v to the master: %v", sig, err)
	}
}

func stormLoad(s *service) (finish func() load.Report) {
	return s.start(load.Config{SlowFor: 500 * time.Millisecond,
		Plans: []load.Plan{{Class: load.PerConn, Clients: 2}, {Class: load.Slow, Clients: 1}}})
}

func TestHupStormEndsInTheLastRelease(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	master := s.masterProcess()
	finish := s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 2}, {Class: load.KeepAlive, Clients: 2}}})
	tick := time.NewTicker(20 * time.Millisecond) // 50 a second
	defer tick.Stop()
	last := ""
	for i, end := 0, time.Now().Add(tier(1500*time.Millisecond, 5*time.Second)); time.Now().Before(end); i++ {
		<-tick.C
		if i%5 == 0 {
			last = fmt.Sprintf("storm-%d", i)
			installVersion(s, last)
		}
		mustSignal(t, master, syscall.SIGHUP)
	}
	report := finish()
	st := requireCoherent(s, last, 2)
	requireNothingLost(s, report)
	if st.Master.PID != master.PID {
		t.Errorf("master %d, was %d", st.Master.PID, master.PID)
	}
	t.Logf("%d generations", st.Generations[0].Number)
	requireStops(s)
}

func TestHupDuringAnUpgradeIsPassedOn(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	finish := stormLoad(s)
	first := s.masterProcess()
	installSlow(s, "v2", 300*time.Millisecond)
	verdict := begin(s, control.StateUpgrading, s.client.Upgrade)
	installVersion(s, "v3")
	mustSignal(t, first, syscall.SIGHUP)
	if v := <-verdict; !v.OK {
		t.Errorf("upgrade: %+v", v)
	}
	st := requireCoherent(s, "v3", 2)
	if st.Master.PID == first.PID || st.Master.Upgrades != 1 {
		t.Errorf("master %d after %d upgrades, was %d", st.Master.PID, st.Master.Upgrades, first.PID)
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

func TestUsr2DuringAReloadFollowsIt(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	finish := stormLoad(s)
	first := s.masterProcess()
	installSlow(s, "v2", 300*time.Millisecond)
	verdict := begin(s, control.StateReloading, s.client.Reload)
	mustSignal(t, first, syscall.SIGUSR2)
	if v := <-verdict; !v.OK || v.Generation != 2 {
		t.Errorf("reload: %+v", v)
	}
	s.waitStatus("there is a new master", func(st control.Status) bool { return st.Master.PID != first.PID })
	if st := requireCoherent(s, "v2", 2); st.Master.Upgrades != 1 {
		t.Errorf("%d upgrades", st.Master.Upgrades)
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

func TestTwoUsr2EndInOneMaster(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	finish := stormLoad(s)
	first := s.masterProcess()
	installSlow(s, "v2", 300*time.Millisecond)
	mustSignal(t, first, syscall.SIGUSR2)
	mustSignal(t, first, syscall.SIGUSR2)
	s.waitStatus("it is upgrading", func(st control.Status) bool { return st.State == control.StateUpgrading })
	installVersion(s, "v3")
	mustSignal(t, first, syscall.SIGUSR2) // the upgrade under way does not answer this one
	st := requireCoherent(s, "v3", 2)
	if n := st.Master.Upgrades; n < 1 || n > 3 {
		t.Errorf("%d upgrades", n)
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

// linger keeps a master busy for 2 s once it has been replaced: so long does it
// answer what has been asked of it, and here is a request without its end.
func linger(s *service) {
	s.t.Helper()
	c, err := net.Dial("unix", filepath.Join(s.dir, "run", "control.sock"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, "POST /scale HTTP/1.1\r\nHost: baton\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	if err != nil {
		s.t.Fatal(err)
	}
	s.status() // a later connection has been accepted, so this one has
}

// Who sends a signal goes by a pid that was right a moment ago.
func TestSignalsToAReplacedMasterReachTheNewOne(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	linger(s)
	old := s.masterProcess()
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	installVersion(s, "v2")
	mustSignal(t, old, syscall.SIGHUP)
	s.waitStatus("the new master has reloaded", func(st control.Status) bool {
		g := serving(st)
		return st.Master.Upgrades == 1 && g != nil && g.Number == 3
	})
	mustSignal(t, old, syscall.SIGTTIN)
	s.waitStatus("the new master has one worker more", func(st control.Status) bool {
		g := serving(st)
		return g != nil && g.Workers == 3 && allServe(*g)
	})
	mustSignal(t, old, syscall.SIGTERM)
	requireNothingLeft(s) // the old one has the exit status of the new, its child
	if ws, err := reaper.status(old.PID, waitTime); err != nil || !ws.Exited() || ws.ExitStatus() != 0 {
		t.Errorf("the old master ended with %#x, %v", ws, err)
	}
}

func TestUpgradeWaitsForTheMasterBefore(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	linger(s)
	old := s.masterProcess()
	for i := range 2 {
		if v := s.upgrade(); !v.OK {
			t.Fatalf("upgrade %d: %+v", i+1, v)
		}
		if _, err := readProcess(old.PID); i == 0 && err != nil {
			t.Fatalf("the old master does not linger: %v", err)
		}
	}
	requireCoherent(s, "v1", 2)
}

// The kernel drops a signal to a process that is exiting; an operator who sees
// nothing happen sends it again, and so does this test.
func TestHupAtAnyMomentOfAnUpgradeEndsCoherent(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	for i := range tier(20, 200) {
		old := s.masterProcess()
		mustSignal(t, old, syscall.SIGUSR2)
		<-time.After(time.Duration(i%20) * 3 * time.Millisecond) // some 40 ms are an upgrade
		last := fmt.Sprintf("late-%d", i)
		installVersion(s, last)
		_ = old.signal(syscall.SIGHUP)
		s.waitStatus("there is a new master", func(st control.Status) bool { return st.Master.PID != old.PID })
		s.signal(syscall.SIGHUP)
		requireCoherent(s, last, 2)
	}
	requireStops(s)
}

// askSlowly sends a request that takes d and returns once a worker has it.
func askSlowly(s *service, d time.Duration) <-chan error {
	s.t.Helper()
	open := func() (n int64) {
		for _, g := range s.status().Generations {
			for _, w := range g.Processes {
				n += w.Open
			}
		}
		return n
	}
	before := open()
	done := make(chan error, 1)
	go func() {
		a, err := ask(s.addr, "/slow?d="+d.String(), d+waitTime)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("status %d", a.status)
		}
		done <- err
	}()
	eventually(s.t, waitTime, "a worker has the slow request", func() bool { return open() > before })
	return done
}

func TestTermDuringADrainLosesNothing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	old := askSlowly(s, 2*time.Second)
	installVersion(s, "v2")
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	younger := askSlowly(s, time.Second)
	if st := s.status(); len(st.Generations) != 2 {
		t.Errorf("%d generations, want the old one to drain", len(st.Generations))
	}
	s.signal(syscall.SIGTERM)
	for name, c := range map[string]<-chan error{"old": old, "new": younger} {
		if err := <-c; err != nil {
			t.Errorf("the slow request to the %s generation: %v", name, err)
		}
	}
	requireStopped(s)
}

// requireTermEnds sends TERM during a deploy of a release that takes for ever:
// the deploy is given up, and the request in flight is answered.
func requireTermEnds(s *service, slow <-chan error, verdict <-chan control.Verdict) {
	s.t.Helper()
	began := time.Now()
	s.signal(syscall.SIGTERM)
	v := <-verdict
	if v.OK {
		s.t.Errorf("the deploy was taken: %+v", v)
	}
	requireParts(s.t, "the reason", v.Reason, "the service is told to stop")
	if err := <-slow; err != nil {
		s.t.Errorf("the slow request: %v", err)
	}
	requireStopped(s)
	if took := time.Since(began); took > 7*time.Second {
		s.t.Errorf("the stop took %v", took)
	}
}

func TestTermDuringAReloadEndsBoth(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	slow := askSlowly(s, time.Second)
	installSlow(s, "v2", time.Minute)
	verdict := begin(s, control.StateReloading, s.client.Reload)
	s.waitProcesses(3 + 2)
	requireTermEnds(s, slow, verdict)
}

func TestTermDuringAnUpgradeEndsBoth(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	slow := askSlowly(s, time.Second)
	installSlow(s, "v2", time.Minute)
	verdict := begin(s, control.StateUpgrading, s.client.Upgrade)
	s.waitProcesses(3 + 3) // the new master and its workers
	requireTermEnds(s, slow, verdict)
}

// The new master does not hear that it is not wanted any more.
func TestTermEndsAnUpgradeThatHangs(t *testing.T) {
	killTimeout := 300 * time.Millisecond
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{KillTimeout: &killTimeout}}))
	slow := askSlowly(s, time.Second)
	cfg := s.cfg
	cfg.Fail = config.Master + config.FailHang
	s.install(cfg)
	verdict := begin(s, control.StateUpgrading, s.client.Upgrade)
	s.waitLog("testapp: hangs as told")
	requireTermEnds(s, slow, verdict)
}

// Whichever moment of an upgrade TERM comes in, and whichever of the two
// masters gets it, the service stops.
func TestTermAtAnyMomentOfAnUpgradeStops(t *testing.T) {
	const steps = 10
	for i := range tier(1, 10) * steps {
		after := time.Duration(i%steps) * 8 * time.Millisecond // some 40 ms are an upgrade
		t.Run(fmt.Sprintf("%d-%v", i/steps, after), func(t *testing.T) {
			s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
			follow(s)
			old := s.masterProcess()
			installVersion(s, "v2")
			mustSignal(t, old, syscall.SIGUSR2)
			<-time.After(after)
			_ = old.signal(syscall.SIGTERM)
			eventually(t, exitTime, "the old master is gone", func() bool {
				p, err := readProcess(old.PID)
				return err != nil || p.State == "Z"
			})
			// It may have been exiting when the signal came.
			if st, err := s.tryStatus(); err == nil && st.State != control.StateStopping {
				signalPID(t, st.Master.PID, syscall.SIGTERM)
			}
			requireStopped(s)
		})
	}
}

// requireCut sends TERM again while a request of a minute is in flight.
func requireCut(s *service, slow <-chan error) {
	s.t.Helper()
	s.waitStatus("it stops", func(st control.Status) bool { return st.State == control.StateStopping })
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if err := <-slow; err == nil {
		s.t.Error("the slow request was answered")
	}
	requireStopped(s)
	if took := time.Since(began); took > 7*time.Second {
		s.t.Errorf("it took %v", took)
	}
	s.waitLog("cut=1")
}

func TestSecondTermCuts(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	slow := askSlowly(s, time.Minute)
	s.signal(syscall.SIGTERM)
	requireCut(s, slow)
}

func TestSecondTermDuringAReloadCuts(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	slow := askSlowly(s, time.Minute)
	installSlow(s, "v2", time.Minute)
	begin(s, control.StateReloading, s.client.Reload)
	s.signal(syscall.SIGTERM)
	requireCut(s, slow)
}
