//go:build linux

package integration

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// A release that was refused may take its time to die. The next one may have
// its number, and is not mistaken for it.

// freezeNewcomers waits until somebody says that it hangs, and stops every
// process that was not known: it dies of SIGKILL only, after KillTimeout.
func freezeNewcomers(s *service, known []process) []process {
	s.t.Helper()
	s.waitLog("testapp: hangs as told")
	newcomers := slices.DeleteFunc(s.processes(), func(p process) bool {
		return slices.ContainsFunc(known, func(k process) bool { return k.PID == p.PID })
	})
	if len(newcomers) == 0 {
		s.t.Fatal("nobody hangs")
	}
	for _, p := range newcomers {
		if err := p.signal(syscall.SIGSTOP); err != nil {
			s.t.Fatal(err)
		}
		waitStopped(s.t, p)
	}
	return newcomers
}

// requireAlive requires that the processes of the refused release are there
// still, or the test shows nothing.
func requireAlive(t *testing.T, ps []process) {
	t.Helper()
	for _, p := range ps {
		if now, err := readProcess(p.PID); err != nil || now.Start != p.Start || now.State == "Z" {
			t.Fatalf("process %d of the refused release is gone: %+v, %v", p.PID, now, err)
		}
	}
}

func TestReleaseAfterOneThatDiesSlowlyIsTaken(t *testing.T) {
	readyTimeout, killTimeout := time.Second, 4*time.Second
	deploys := map[string]struct {
		sig   syscall.Signal
		state string
	}{
		"a reload":   {syscall.SIGHUP, control.ActionReload},
		"an upgrade": {syscall.SIGUSR2, control.ActionUpgrade},
	}
	for _, names := range [][2]string{
		{"an upgrade", "a reload"}, {"an upgrade", "an upgrade"}, {"a reload", "a reload"}, {"a reload", "an upgrade"},
	} {
		t.Run(names[1]+" after "+names[0], func(t *testing.T) {
			t.Parallel() // they wait, mostly
			s := newService(t, appConfig{Version: "v1", Workers: 2,
				Options: appOptions{ReadyTimeout: &readyTimeout, KillTimeout: &killTimeout}})
			first, second := deploys[names[0]], deploys[names[1]]
			known := s.processes()
			cfg := s.cfg
			cfg.Version, cfg.Fail = "bad", config.FailHang
			s.install(cfg)
			s.signal(first.sig)
			hung := freezeNewcomers(s, known)
			s.waitStatus("it is refused", func(st control.Status) bool {
				d := st.LastDeploy
				return st.State == control.StateServing && d != nil && d.Action == first.state && !d.OK && strings.Contains(d.Reason, "ready within 1s")
			})
			// A worker that is late by the time of its generation may leave in
			// KillTimeout, one that is late by its own is killed. The two run out
			// within a millisecond, and where the machine is busy either may be first.
			slowly := !strings.Contains(s.status().LastDeploy.Reason, "was not ready")
			if slowly {
				requireAlive(t, hung)
			} else {
				t.Log("the refused worker was killed at once: this run shows less")
			}
			cfg = s.cfg
			cfg.Version, cfg.Options.ReadyTimeout = "v2", nil
			s.install(cfg)
			s.signal(second.sig)
			s.waitStatus("the good release serves", func(st control.Status) bool {
				d := st.LastDeploy
				return d != nil && d.OK && d.Action == second.state || second.state == control.ActionUpgrade && st.Master.Upgrades == 1
			})
			if slowly && second.state == control.ActionReload { // a new master leaves nobody
				requireAlive(t, hung)
			}
			st := requireCoherent(s, "v2", 2)
			requireNumbersAreNews(s, st)
			if v := s.reload(); !v.OK {
				t.Errorf("the next reload: %+v", v)
			}
			requireCoherent(s, "v2", 2)
			requireStops(s)
		})
	}
}

// requireNumbersAreNews requires that the generation which serves is not the
// first, and that its workers never had to be replaced.
func requireNumbersAreNews(s *service, st control.Status) {
	s.t.Helper()
	g := serving(st)
	if g == nil || g.Number < 2 {
		s.t.Fatalf("generations %+v", st.Generations)
	}
	for _, w := range g.Processes {
		if w.Restarts > 0 {
			s.t.Errorf("worker %s was started %d times again, after %s", w.ID, w.Restarts, w.LastExit)
		}
	}
}

// The same where one worker of a release fails while another is slow to leave.
func TestReloadAfterOneWithAFailingWorkerIsTaken(t *testing.T) {
	killTimeout := 4 * time.Second
	s := newService(t, appConfig{Version: "v1", Workers: 3, Options: appOptions{KillTimeout: &killTimeout}})
	known := s.processes()
	installSlow(s, "bad", time.Minute)
	verdict := begin(s, control.StateReloading, s.client.Reload)
	s.waitStatus("all its workers build", func(st control.Status) bool {
		return len(st.Generations) == 2 && len(st.Generations[1].Processes) == 3
	})
	newcomers := slices.DeleteFunc(s.processes(), func(p process) bool {
		return slices.ContainsFunc(known, func(k process) bool { return k.PID == p.PID })
	})
	if len(newcomers) != 3 {
		t.Fatalf("the new generation:\n%s", table(newcomers))
	}
	for _, p := range newcomers[1:] {
		signalPID(t, p.PID, syscall.SIGSTOP)
	}
	signalPID(t, newcomers[0].PID, syscall.SIGKILL)
	v := <-verdict
	if v.OK {
		t.Fatalf("it was taken: %+v", v)
	}
	requireParts(t, "the reason", v.Reason, "signal: killed before it was ready")
	installVersion(s, "v2")
	if v := s.reload(); !v.OK {
		t.Fatalf("the good release is refused: %+v", v)
	}
	requireAlive(t, newcomers[1:])
	requireNumbersAreNews(s, requireCoherent(s, "v2", 3))
	requireStops(s)
}

// A process that nobody will ever hear from again ends itself, wherever in main
// it hangs.
func TestNobodyWhoHangsBeforeRunOutlivesTheMaster(t *testing.T) {
	for _, c := range []struct {
		name, fail string
		sig        syscall.Signal
	}{
		{"a worker", config.FailHang, syscall.SIGHUP},
		{"a probe", config.FailHang, syscall.SIGUSR2},
		{"a new master", config.Master + config.FailHang, syscall.SIGUSR2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, appConfig{Version: "v1", Workers: 2})
			cfg := s.cfg
			cfg.Fail = c.fail
			s.install(cfg)
			s.signal(c.sig)
			s.waitLog("testapp: hangs as told")
			s.signal(syscall.SIGKILL)
			s.waitProcesses(0)
		})
	}
}
