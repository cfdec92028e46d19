//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// What a container sees of a service that is its entry point. These tests need
// root, for a PID namespace; see inContainer.

// upgradeByInit sends USR2 to PID 1 and waits for another master.
func upgradeByInit(s *service) {
	s.t.Helper()
	before := s.masterPID()
	s.signalInit(syscall.SIGUSR2)
	s.waitStatusFor(verdictTime, "another master answers", func(st control.Status) bool {
		return st.Master.PID != before && st.Master.PID != 0 && st.State == control.StateServing
	})
}

// requireContainerEnds waits for the end of the container.
func requireContainerEnds(s *service, status int) {
	s.t.Helper()
	if code := s.exitCode(); code != status {
		s.t.Errorf("the container ends with %d, want %d", code, status)
	}
	s.waitProcesses(0)
}

// The whole of a container's life: upgrades, a killed master, somebody else's
// processes, and the end.
func TestContainerOutlivesItsMastersAndLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, appConfig{Version: "v0", Workers: 2}, inContainer)
	pid1 := s.initProcess()
	finish := s.start(allClasses())
	for n := range 10 {
		installVersion(s, fmt.Sprintf("v%d", n+1))
		upgradeByInit(s)
	}
	requireNothingLost(s, finish())
	st := requireCoherent(s, "v10", 2)
	if st.Master.Upgrades != 10 {
		t.Errorf("%d upgrades, want 10", st.Master.Upgrades)
	}
	if now := s.initProcess(); now.PID != pid1.PID || now.Start != pid1.Start {
		t.Errorf("PID 1 is %d, was %d", now.PID, pid1.PID)
	}
	if p := s.masterProcess(); p.PPID != pid1.PID {
		t.Errorf("the parent of the master is %d, want %d", p.PPID, pid1.PID)
	}

	finish = s.start(allClasses())
	kills := tier(2, 10)
	for range kills {
		<-time.After(300 * time.Millisecond) // or all of them connect when it is killed
		stray := strayOf(s, pid1)
		killInside(s)
		waitCollected(t, stray)
	}
	requireOnlyUnsent(s, finish(), kills)
	requireCoherent(s, "v10", 2)
	if now := s.initProcess(); now.PID != pid1.PID || now.Start != pid1.Start {
		t.Errorf("PID 1 is %d, was %d", now.PID, pid1.PID)
	}
	s.signalInit(syscall.SIGTERM)
	requireContainerEnds(s, 0)
	requireNothingLeft(s)
}

// killInside kills the master of a container, and waits until the next one serves.
func killInside(s *service) {
	s.t.Helper()
	old := s.masterProcess()
	mustSignal(s.t, old, syscall.SIGKILL)
	waitCollected(s.t, old)
	s.waitStatusFor(waitTime, "another master serves", func(st control.Status) bool {
		return st.Master.PID != old.PID && st.State == control.StateServing
	})
}

// strayOf leaves a process that ends after half a second without a parent other
// than init.
func strayOf(s *service, pid1 process) process {
	s.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(s.get("/stray?d=500ms").body))
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := readProcess(s.outsidePIDs()[pid])
	if err != nil || p.PPID != pid1.PID {
		s.t.Fatalf("the stray is %+v, %v: want it to be a child of %d", p, err, pid1.PID)
	}
	return p
}

// While there is no master the workers serve, and a stop is init's business.
func TestContainerStopsWhileItHasNoMaster(t *testing.T) {
	for name, c := range map[string]struct {
		missing bool // the binary: no master can be started
		status  int
	}{
		"before the next one":     {false, 128 + 9},
		"and none can be started": {true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits, mostly
			s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer)
			requireCoherent(s, "v1", 2)
			eventually(t, waitTime, "the workers are trusted", func() bool {
				return slices.Contains(runtimeDir(s), "workers.json")
			})
			slow := s.openRequests(2, "/slow?d=1s")
			s.waitStatus("the slow requests are taken", func(st control.Status) bool { return open(serving(st)) == 2 })
			if c.missing {
				s.uninstall()
			}
			master := s.masterProcess()
			pid1 := s.initProcess()
			mustSignal(t, master, syscall.SIGKILL)
			if c.missing {
				s.waitLog("no master could be started")
			}
			mustSignal(t, pid1, syscall.SIGTERM)
			requireAnswers(t, slow, waitTime)
			status := c.status
			if s.exitCode(); s.countLog("master started") > 1 {
				status = 0 // on a busy machine the next master was there first
			}
			requireContainerEnds(s, status)
			requireFreed(t, s.addr, soon)
			requireNothingLeft(s)
		})
	}
}

func TestContainerStartsAnotherMasterWhenOneIsKilled(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2, Listeners: fixedPort(t)}, inContainer)
	pid1 := s.initProcess()
	for n := range tier(2, 5) {
		old := s.masterProcess()
		mustSignal(t, old, syscall.SIGKILL)
		began := time.Now()
		eventually(t, waitTime, "it serves again", func() bool {
			if st, err := s.tryStatus(); err != nil || st.Master.PID == old.PID || st.State != control.StateServing {
				return false
			}
			a, err := s.tryGet("/version")
			return err == nil && a.version == "v1"
		})
		t.Logf("kill %d: it served after %v", n+1, time.Since(began))
		requireCoherent(s, "v1", 2)
	}
	installVersion(s, "v2")
	upgradeByInit(s)
	requireCoherent(s, "v2", 2)
	mustSignal(t, s.masterProcess(), syscall.SIGKILL) // one that init did not start
	s.waitStatusFor(waitTime, "a new master serves", func(st control.Status) bool {
		return st.Master.Upgrades == 0 && st.State == control.StateServing
	})
	requireCoherent(s, "v2", 2)
	if now := s.initProcess(); now.PID != pid1.PID {
		t.Errorf("PID 1 is %d, was %d", now.PID, pid1.PID)
	}
	s.signalInit(syscall.SIGTERM)
	requireContainerEnds(s, 0)
}

func TestContainerWaitsForABinaryThatIsMissing(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 1, Listeners: fixedPort(t)}, inContainer)
	s.uninstall()
	mustSignal(t, s.masterProcess(), syscall.SIGKILL)
	s.waitLog("no master could be started")
	installVersion(s, "v2")
	s.waitServing()
	requireCoherent(s, "v2", 1)
	s.signalInit(syscall.SIGTERM)
	requireContainerEnds(s, 0)
}

// Whichever of the two masters dies, and whenever: one is left or is started.
func TestContainerServesOnWhicheverMasterIsKilledDuringAnUpgrade(t *testing.T) {
	t.Parallel() // its load leaves room for others
	for who, takes := range map[string]time.Duration{
		"old": 50 * time.Millisecond,
		"new": 400 * time.Millisecond, // so that there is time to find it
	} {
		t.Run(who, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v0", Workers: 2, Listeners: fixedPort(t)}, inContainer)
			const steps = 6
			for i := range tier(1, 10) * steps {
				version := fmt.Sprintf("v%d", i+1)
				installSlow(s, version, takes)
				old := s.masterProcess()
				s.signalInit(syscall.SIGUSR2)
				victim := old
				if who == "new" {
					// On a busy machine it may be the master before it is found.
					eventually(t, waitTime, "there is a new master", func() bool {
						found := candidates(s, old)
						if len(found) == 1 {
							victim = found[0]
						}
						return victim != old || gone(old)
					})
				}
				step := (takes + 130*time.Millisecond) / steps
				<-time.After(time.Duration(i%steps)*step + rand.N(step))
				_ = victim.kill()
				if who == "new" {
					// It may have been refused; then the one before serves.
					eventually(t, settleTime, "somebody serves", func() bool {
						st, err := s.tryStatus()
						if err != nil || st.State != control.StateServing || len(st.Generations) != 1 || !complete(st) {
							return false
						}
						a, err := s.tryGet("/version")
						version = a.version
						return err == nil
					})
				}
				requireCoherent(s, version, 2)
			}
			s.signalInit(syscall.SIGTERM)
			requireContainerEnds(s, 0)
		})
	}
}

func TestContainerReapsStrangers(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer)
	pid1 := s.initProcess()
	var strays []process
	for range 3 {
		strays = append(strays, strayOf(s, pid1))
	}
	for _, p := range strays {
		waitCollected(t, p)
	}
	requireCoherent(s, "v1", 2) // and no zombie
}

func TestSignalsToPID1ReachTheMaster(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer)
	master := s.masterPID()
	s.signalInit(syscall.SIGTTIN)
	s.waitWorkers(3)
	s.signalInit(syscall.SIGTTOU)
	s.waitWorkers(2)
	s.signalInit(syscall.SIGUSR1)
	for slot := 1; slot <= 2; slot++ {
		s.waitLog(fmt.Sprintf("testapp: worker 1.%d got USR1", slot))
	}
	s.waitLog("testapp: a master hears USR1") // what main has caught is a signal there, too
	installVersion(s, "v2")
	s.signalInit(syscall.SIGHUP)
	s.waitStatus("the next generation serves", func(st control.Status) bool { g := serving(st); return g != nil && g.Number == 2 })
	if st := requireCoherent(s, "v2", 2); st.Master.PID != master {
		t.Errorf("master %d, was %d", st.Master.PID, master)
	}
	s.signalInit(syscall.SIGQUIT)
	s.waitLog("SIGQUIT: quit")
	requireContainerEnds(s, 2)
	if n := s.countLog("master started"); n != 1 {
		t.Errorf("%d masters were started", n)
	}
}

func TestContainerStopsInOrder(t *testing.T) {
	t.Parallel() // its load leaves room for others
	for name, stop := range map[string]func(*service){
		"TERM":     func(s *service) { s.signalInit(syscall.SIGTERM) },
		"INT":      func(s *service) { s.signalInit(syscall.SIGINT) },
		"batonctl": func(s *service) { s.stop() },
		"master":   func(s *service) { s.signal(syscall.SIGTERM) },
		"upgraded": func(s *service) { upgradeByInit(s); s.signalInit(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer)
			slow := s.openRequests(1, "/slow?d=1s")[0]
			s.waitStatus("the slow request is taken", func(st control.Status) bool { return serving(st).Ledger.Acknowledged == 1 })
			stop(s)
			if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
				t.Errorf("the request under way: %+v, %v", a, err)
			}
			slow.c.Close()
			requireContainerEnds(s, 0)
			requireNothingLeft(s)
		})
	}
	t.Run("twice", func(t *testing.T) {
		s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer)
		slow := s.openRequests(1, "/slow?d=20s")[0]
		defer slow.c.Close()
		s.waitStatus("the slow request is taken", func(st control.Status) bool { return serving(st).Ledger.Acknowledged == 1 })
		began := time.Now()
		s.signalInit(syscall.SIGINT)
		s.waitLog("stopping")
		s.signalInit(syscall.SIGINT)
		requireContainerEnds(s, 0)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
	for name, stop := range map[string]func(*service){
		"killed after TERM":     func(s *service) { s.signalInit(syscall.SIGTERM) },
		"killed after batonctl": func(s *service) { s.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer)
			slow := s.openRequests(1, "/slow?d=1s")[0]
			defer slow.c.Close()
			s.waitStatus("the slow request is taken", func(st control.Status) bool { return serving(st).Ledger.Acknowledged == 1 })
			master := s.masterProcess()
			stop(s)
			s.waitLog("stopping")
			mustSignal(t, master, syscall.SIGKILL)
			// Its workers have the time to finish still.
			if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
				t.Errorf("the request under way: %+v, %v", a, err)
			}
			slow.c.Close()
			requireContainerEnds(s, 128+9)
		})
	}
}

func TestContainerEndsWithTheStatusOfTheService(t *testing.T) {
	quick := appOptions{KillTimeout: new(500 * time.Millisecond)}
	for _, c := range []struct {
		name   string
		cfg    appConfig
		env    string
		status int
		log    string
	}{
		{"bad configuration", appConfig{}, "BATON_WORKERS=-1", 78, `BATON_WORKERS="-1"`},
		{"build fails", appConfig{Fail: config.FailBuild, Options: quick}, "", 1, "testapp: build fails as told"},
		{"worker panics", appConfig{Fail: config.FailBuildPanic, Options: quick}, "", 1, "panic"},
		{"main exits", appConfig{Fail: config.Master + config.FailExit1}, "", 1, "testapp: exits as told"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startService(t, c.cfg, inContainer, withEnv(c.env))
			requireContainerEnds(s, c.status)
			s.waitLog(c.log)
			if n := s.countLog("master started"); n > 1 {
				t.Errorf("%d masters were started", n)
			}
		})
	}
	t.Run("gives up", func(t *testing.T) {
		s := newService(t, appConfig{Workers: 2, Fail: config.FailAfterReady,
			Options: appOptions{GiveUpAfter: new(100 * time.Millisecond)}}, inContainer)
		requireContainerEnds(s, 1)
		if n := s.countLog("master started"); n != 1 {
			t.Errorf("%d masters were started", n)
		}
	})
}

func TestContainerWhoseMasterPanicsAtTheStartIsGivenUp(t *testing.T) {
	s := startService(t, appConfig{Fail: config.Master + config.FailPanic}, inContainer)
	requireContainerEnds(s, 2)
	if n := s.countLog("master started"); n < 2 || n > 10 {
		t.Errorf("%d masters were started", n)
	}
}

func TestSignalsInTheFirstMillisecondsDoNoHarm(t *testing.T) {
	s := startService(t, appConfig{Version: "v1", Workers: 2, Quirk: config.QuirkSlow}, inContainer)
	s.waitLog("testapp: a slow init")
	s.signalInit(syscall.SIGHUP) // in main, before Run
	s.waitLog("testapp: a slow master")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		s.signalInit(sig)
	}
	s.waitServing()
	// What came in between was remembered.
	s.waitStatusFor(verdictTime, "another master answers", func(st control.Status) bool {
		return st.Master.Upgrades == 1 && st.State == control.StateServing
	})
	requireCoherent(s, "v1", 2)
	if n := s.countLog("master started"); n != 1 {
		t.Errorf("%d masters were started", n)
	}
	s.signalInit(syscall.SIGTERM)
	requireContainerEnds(s, 0)
}

func TestStopDuringTheStartOfAContainer(t *testing.T) {
	t.Parallel() // its load leaves room for others
	t.Run("while main runs", func(t *testing.T) {
		s := startService(t, appConfig{Workers: 2, Quirk: config.QuirkSlow}, inContainer)
		s.waitLog("testapp: a slow master")
		s.signalInit(syscall.SIGTERM)
		requireContainerEnds(s, 0)
	})
	t.Run("main hangs", func(t *testing.T) {
		s := startService(t, appConfig{Workers: 2, Fail: config.Master + config.FailHang}, inContainer)
		s.waitLog("testapp: hangs as told")
		began := time.Now()
		s.signalInit(syscall.SIGTERM)
		requireContainerEnds(s, 128+15)
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("it took %v, docker waits for 10s", took)
		}
	})
}

// Whichever master is told, one stops the service.
func TestStopAtAnyMomentOfAnUpgradeStopsTheContainer(t *testing.T) {
	const steps = 8
	for i := range tier(1, 10) * steps {
		s := newService(t, appConfig{Version: "v1", Workers: 1}, inContainer)
		s.signalInit(syscall.SIGUSR2)
		<-time.After(time.Duration(i%steps)*8*time.Millisecond + rand.N(8*time.Millisecond))
		began := time.Now()
		s.signalInit(syscall.SIGTERM)
		requireContainerEnds(s, 0)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if n := s.countLog("master started"); n != 1 {
			t.Errorf("%d masters were started", n)
		}
	}
}

func TestSingleProcessStaysSingleAsPID1(t *testing.T) {
	s := startService(t, appConfig{Workers: 2}, inContainer, withEnv("BATON_MODE=single"))
	s.waitLog("serving")
	if ps := s.processes(); len(ps) != aroundMaster {
		t.Errorf("want unshare and the service:\n%s", table(ps))
	}
	s.signalInit(syscall.SIGTERM)
	requireContainerEnds(s, 0)
}

// A Ctrl-C reaches the foreground process group, in which are init and not the
// master: one is one, and the service can still write to the terminal.
func TestCtrlCInATerminalStopsTheContainerOnce(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, inContainer, inTerminal)
	slow := s.openRequests(1, "/slow?d=1s")[0]
	s.waitStatus("the slow request is taken", func(st control.Status) bool { return serving(st).Ledger.Acknowledged == 1 })
	if _, err := s.terminal.Write([]byte{'C' - '@'}); err != nil {
		t.Fatal(err)
	}
	// A second one would have cut it.
	if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
		t.Errorf("the request under way: %+v, %v", a, err)
	}
	slow.c.Close()
	requireContainerEnds(s, 0)
	s.waitLog("stopping") // the master's, on the terminal
}
