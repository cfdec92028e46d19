//go:build linux

package integration

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

func (s *service) waitWorkers(n int) control.Status {
	s.t.Helper()
	st := s.waitStatus(fmt.Sprintf("%d workers serve", n), func(st control.Status) bool {
		g := serving(st)
		return st.State == control.StateServing && len(st.Generations) == 1 && complete(st) && g.Workers == n
	})
	s.waitProcesses(1 + n)
	return st
}

func TestTtinAndTtouChangeTheNumberOfWorkersForGood(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	s.signal(syscall.SIGTTIN)
	s.waitWorkers(3)
	s.signal(syscall.SIGTTIN)
	s.waitWorkers(4)
	s.signal(syscall.SIGTTOU)
	before := s.waitWorkers(3)

	s.signal(syscall.SIGHUP)
	number := before.Generations[0].Number
	s.waitStatus("the next generation serves", func(st control.Status) bool { g := serving(st); return g != nil && g.Number > number })
	s.waitWorkers(3)
	s.signal(syscall.SIGUSR2)
	s.waitStatus("another master answers", func(st control.Status) bool { return st.Master.PID != before.Master.PID })
	s.waitWorkers(3)
	s.signal(syscall.SIGTTOU)
	s.waitWorkers(2)
	s.signal(syscall.SIGHUP)
	s.waitStatus("the next generation serves", func(st control.Status) bool { g := serving(st); return g != nil && g.Number > number+2 })
	s.waitWorkers(2)
	s.signal(syscall.SIGTTOU)
	s.waitWorkers(1)
	s.signal(syscall.SIGTTOU) // the last one stays
	s.waitLog("scale refused")
	s.waitWorkers(1)
}

func TestUsr1ReachesTheWorkers(t *testing.T) {
	s := newService(t, appConfig{Workers: 3})
	pids := pidsOf(s.workers())
	s.signal(syscall.SIGUSR1)
	for slot := 1; slot <= 3; slot++ {
		s.waitLog(fmt.Sprintf("testapp: worker 1.%d got USR1", slot))
	}
	s.get("/")
	if n := s.countLog("got USR1"); n != 3 {
		t.Errorf("%d workers got it", n)
	}
	if now := pidsOf(s.workers()); fmt.Sprint(now) != fmt.Sprint(pids) {
		t.Errorf("workers %v, were %v", now, pids)
	}
}

func TestTermToAWorkerDrainsAndReplacesIt(t *testing.T) {
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			s := newService(t, appConfig{Workers: workers})
			finish := s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 2}}})
			slow := s.openRequests(1, "/slow?d="+tier("1s", "2s"))[0]
			s.waitStatus("the slow request is taken", func(st control.Status) bool {
				g := serving(st)
				return g != nil && g.Ledger.Pending == 0 && g.Ledger.Acknowledged > 0
			})
			// One after the other, so that the slow one's worker is among them.
			for _, w := range s.workers() {
				signalPID(t, w.PID, syscall.SIGTERM)
				s.waitStatus("its successor serves", func(st control.Status) bool {
					g := serving(st)
					if g == nil {
						return false
					}
					for _, now := range g.Processes {
						if now.Slot == w.Slot && now.PID != w.PID && now.State == control.WorkerServing {
							return true
						}
					}
					return false
				})
			}
			if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
				t.Errorf("the slow request: %+v, %v", a, err)
			}
			slow.c.Close()
			requireNothingLost(s, finish())
			st := s.waitWorkers(workers)
			for _, w := range st.Generations[0].Processes {
				if w.LastExit != "exit status 0 (asked to by a signal)" {
					t.Errorf("worker %s: last exit %q", w.ID, w.LastExit)
				}
			}
			checkLedger(t, st)
			if n := s.countLog("worker died"); n > 0 {
				t.Errorf("%d workers are said to have died", n)
			}
		})
	}
}

func TestQuitDumpsTheMasterAndItsWorkersLeave(t *testing.T) {
	s := newService(t, appConfig{Workers: 2})
	slow := s.openRequests(1, "/slow?d=1s")[0]
	s.waitStatus("the slow request is taken", func(st control.Status) bool { return serving(st).Ledger.Acknowledged == 1 })
	s.signal(syscall.SIGQUIT)
	s.waitLog("SIGQUIT: quit")
	s.waitLog("goroutine ")
	if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
		t.Errorf("the request under way: %+v, %v", a, err)
	}
	slow.c.Close() // or it would be kept for another request
	if code := s.exitCode(); code != 2 {
		t.Errorf("exit status %d", code)
	}
}

// again starts the release of s a second time: the same port and the same
// runtime directory.
func again(s *service, cfg appConfig) *service {
	cfg.Listeners = []config.Listener{{Network: "tcp", Addr: s.addr, Name: "main"}}
	run := filepath.Join(s.dir, "run")
	next := startService(s.t, cfg, withEnv("BATON_RUNTIME_DIR="+run), func(next *service) { next.client = s.client })
	next.waitServing()
	return next
}

func TestKilledMasterLeavesNoOrphanAndNothingInTheWay(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	slow := s.openRequests(2, "/slow?d=2s")
	s.waitStatus("the slow requests are taken", func(st control.Status) bool { return serving(st).Ledger.Acknowledged == 2 })
	s.signal(syscall.SIGKILL)
	select {
	case <-s.exited: // as a supervisor sees it: until then it may hold its lock
	case <-time.After(waitTime):
		t.Fatal("the master is not gone")
	}

	began := time.Now()
	next := again(s, appConfig{Version: "v2", Workers: 2})
	t.Logf("the next one served after %v", time.Since(began))
	if a := next.get("/version"); a.version != "v2" {
		t.Errorf("%s serves", a.version)
	}
	if left := s.processes(); len(left) != 2 {
		t.Errorf("the old workers, which have a request each:\n%s", table(left))
	}
	for _, a := range requireAnswers(t, slow, waitTime) {
		if a.version != "v1" {
			t.Errorf("a request of v1 is answered by %+v", a)
		}
	}
	s.waitProcesses(0)
	if v := next.reload(); !v.OK {
		t.Errorf("reload: %+v", v)
	}
	if v := next.upgrade(); !v.OK {
		t.Errorf("upgrade: %+v", v)
	}
}

// A stop has nothing to wait for when nobody serves and nobody waits.
func TestStopEndsAtOnceWhenNobodyServesAndNobodyWaits(t *testing.T) {
	t.Run("during the start", func(t *testing.T) {
		s := deployed(t, appConfig{Fail: config.FailNeverReady, Options: appOptions{KillTimeout: new(500 * time.Millisecond)}, Listeners: []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}})
		s.launch()
		eventually(t, startTime, "a worker is started", func() bool { return len(s.processes()) > 1 })
		requireQuickStop(s, s.session, 1)
	})
	t.Run("all workers dead", func(t *testing.T) {
		s, _ := newFailingService(t, "v1")
		requireQuickStop(s, s.masterPID(), 1)
	})
	// Who waits is waited for, until somebody means it.
	t.Run("all workers dead, twice", func(t *testing.T) {
		s, _ := newFailingService(t, "v1")
		s.openRequests(3, "/")
		requireQuickStop(s, s.masterPID(), 2)
	})
}

// requireQuickStop sends TERM, so many times, and requires that the service
// ends long before StopTimeout, which is 25 s.
func requireQuickStop(s *service, master, times int) {
	s.t.Helper()
	began := time.Now()
	signalPID(s.t, master, syscall.SIGTERM)
	for range times - 1 {
		s.waitLog("stopping") // or two signals could be taken for one
		signalPID(s.t, master, syscall.SIGTERM)
	}
	if code := s.exitCode(); code != 0 {
		s.t.Errorf("exit status %d", code)
	}
	if took := time.Since(began); took > 10*time.Second {
		s.t.Errorf("the stop took %v", took)
	}
}
