//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
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

// Two masters share a service for the time of an upgrade. Whatever happens to
// either of them, one is left.

// candidate waits for the new master that old, which is no new one itself, has
// started, and returns it. Workers have process groups of their own, but for
// the moment before they exec; then they have the environment of old.
func candidate(s *service, old process) process {
	s.t.Helper()
	var found []process
	eventually(s.t, waitTime, "there is a new master", func() bool {
		found = candidates(s, old)
		return len(found) == 1
	})
	return found[0]
}

// waitWorkersOf waits until a master has started n workers.
func waitWorkersOf(s *service, master process, n int) {
	s.t.Helper()
	eventually(s.t, waitTime, "the new master has started its workers", func() bool {
		return len(findProcesses(func(p process) bool { return p.PPID == master.PID && p.State != "Z" })) == n
	})
}

func candidates(s *service, old process) []process {
	return findProcesses(func(p process) bool {
		if p.Session != s.session || p.PPID != old.PID || p.Group != old.Group {
			return false
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		return strings.Contains(string(env), "TABLEFLIP_HAS_PARENT_")
	})
}

// gone says whether a process has ended, collected or not.
func gone(p process) bool {
	now, err := readProcess(p.PID)
	return err != nil || now.Start != p.Start || now.State == "Z"
}

func TestUpgradeWhoseNewMasterEndsIsRefused(t *testing.T) {
	for _, c := range []struct {
		sig    syscall.Signal
		reason string
	}{
		{syscall.SIGTERM, "the service is told to stop"},
		{syscall.SIGKILL, "signal: killed"},
	} {
		t.Run(c.sig.String(), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "app.sock")
			s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2, Listeners: []config.Listener{
				{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"},
				{Network: "unix", Addr: socket, Name: "local"},
			}}))
			before, err := os.Lstat(socket)
			if err != nil {
				t.Fatal(err)
			}
			old := s.masterProcess()
			finish := s.start(lightLoad())
			local := s.start(load.Config{Network: "unix", Addr: socket,
				Plans: []load.Plan{{Class: load.PerConn, Clients: 1}, {Class: load.KeepAlive, Clients: 1}}})
			installSlow(s, "v2", time.Minute)
			verdict := begin(s, control.StateUpgrading, s.client.Upgrade)
			next := candidate(s, old)
			waitWorkersOf(s, next, 2) // it has come so far
			if err := next.signal(c.sig); err != nil {
				t.Fatal(err)
			}
			v := <-verdict
			if v.OK {
				t.Fatalf("the upgrade was taken: %+v", v)
			}
			requireParts(t, "the reason", v.Reason, c.reason)
			requireCoherent(s, "v1", 2)
			if now := s.masterPID(); now != old.PID {
				t.Errorf("master %d, was %d", now, old.PID)
			}
			if after, err := os.Lstat(socket); err != nil || !os.SameFile(before, after) {
				t.Errorf("the socket file is another: %v, %v", after, err)
			}
			if a, err := ask(socket, "/version", waitTime); err != nil || a.version != "v1" {
				t.Errorf("by way of the unix socket: %+v, %v", a, err)
			}
			requireUnnoticed(s, finish())
			requireUnnoticed(s, local())
			requireDeploys(s)
			requireStops(s)
			if _, err := os.Lstat(socket); err == nil {
				t.Error("the socket file is left")
			}
		})
	}
}

// takeoverLoad is of clients that wait, and keep nothing.
func takeoverLoad(s *service) (finish func() load.Report) {
	return s.start(load.Config{SlowFor: 300 * time.Millisecond, RequestTimeout: 30 * time.Second,
		Plans: []load.Plan{{Class: load.PerConn, Clients: 2, Think: 10 * time.Millisecond}, {Class: load.Slow, Clients: 1}}})
}

// A master that is suspended, as by a virtual machine or a debugger, finds the
// upgrade decided or undecided when it wakes up, but never decided by itself.
func TestMasterStoppedAtAnyMomentOfAnUpgradeLeavesOneMaster(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v0", Workers: 2}))
	finish := takeoverLoad(s)
	stopped, during := 0, 0
	for i := range tier(6, 60) {
		version := fmt.Sprintf("v%d", i+1)
		takes := time.Duration(0) // most of an upgrade is the takeover then
		if i%3 == 0 {
			takes = 300 * time.Millisecond
		}
		installSlow(s, version, takes)
		old := s.masterProcess()
		mustSignal(t, old, syscall.SIGUSR2)
		<-time.After(rand.N(takes + 60*time.Millisecond))
		if old.signal(syscall.SIGSTOP) == nil {
			stopped++
			<-time.After(100*time.Millisecond + rand.N(tier(300*time.Millisecond, 3*time.Second)))
			if !gone(old) {
				during++
			}
			_ = old.signal(syscall.SIGCONT)
		}
		st := requireCoherent(s, version, 2)
		eventually(t, waitTime, "the old master is gone", func() bool { return gone(old) })
		if st.Master.PID == old.PID || st.Master.Upgrades != i+1 {
			t.Fatalf("master %d after %d upgrades, was %d", st.Master.PID, st.Master.Upgrades, old.PID)
		}
	}
	t.Logf("stopped %d times, %d of them for the whole time", stopped, during)
	requireNothingLost(s, finish())
	requireStops(s)
}

// A stop that is longer than any step of the handover.
func TestMasterStoppedForLongDuringAnUpgradeLeavesOneMaster(t *testing.T) {
	if !*long {
		t.Skip("takes half a minute: -long")
	}
	for _, after := range []time.Duration{0, 20, 30, 40, 50, 60} {
		s := newService(t, appConfig{Version: "v1", Workers: 2})
		finish := takeoverLoad(s)
		installVersion(s, "v2")
		old := s.masterProcess()
		mustSignal(t, old, syscall.SIGUSR2)
		<-time.After(after * time.Millisecond)
		if old.signal(syscall.SIGSTOP) == nil {
			<-time.After(12 * time.Second)
			_ = old.signal(syscall.SIGCONT)
		}
		// The new one may have given up; then the old one goes on.
		st := s.waitStatusFor(settleTime, "it serves", func(st control.Status) bool {
			return st.State == control.StateServing && len(st.Generations) == 1 && complete(st)
		})
		version := s.get("/version").version
		requireCoherent(s, version, 2)
		if (version == "v2") != (st.Master.PID != old.PID) {
			t.Errorf("%s serves, the master is %d, was %d", version, st.Master.PID, old.PID)
		}
		requireNothingLost(s, finish())
		requireStops(s)
	}
}

func TestMasterKilledWhileANewOneStartsLeavesTheWayFree(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	old := s.masterProcess()
	installSlow(s, "v2", time.Minute)
	begin(s, control.StateUpgrading, s.client.Upgrade)
	candidate(s, old)
	s.waitProcesses(3 + 3)
	mustSignal(t, old, syscall.SIGKILL)
	// The new one was never told to act, and what it would need is lost.
	s.waitProcesses(0)
	next := again(s, appConfig{Version: "v3", Workers: 2})
	requireServes(next, "v3")
}

// requireServes requires that a service which was started in the place of
// another serves, and takes both kinds of deploys.
func requireServes(s *service, version string) {
	s.t.Helper()
	if a := s.get("/version"); a.version != version {
		s.t.Errorf("%s serves, want %s", a.version, version)
	}
	if v := s.reload(); !v.OK {
		s.t.Errorf("reload: %+v", v)
	}
	if v := s.upgrade(); !v.OK {
		s.t.Errorf("upgrade: %+v", v)
	}
}

// requireOneOrNone waits until the service has come to rest after the death of
// one of its masters: one that serves with its workers, or no process at all.
// It says which.
func requireOneOrNone(s *service) (serves bool) {
	s.t.Helper()
	var last error
	eventually(s.t, settleTime, "one master is left, or nobody", func() bool {
		if len(s.processes()) == 0 {
			serves = false
			return true
		}
		var a answer
		if a, last = s.tryGet("/version"); last == nil {
			_, last = s.coherent(a.version, 2)
		}
		serves = last == nil
		return serves
	})
	return serves
}

func TestMasterKilledAtAnyMomentOfAnUpgradeLeavesOneOrNone(t *testing.T) {
	served := 0
	const steps = 6
	for i := range tier(1, 10) * steps {
		s := newService(t, appConfig{Version: "v1", Workers: 2})
		installVersion(s, "v2")
		old := s.masterProcess()
		mustSignal(t, old, syscall.SIGUSR2)
		<-time.After(time.Duration(i%steps)*10*time.Millisecond + rand.N(10*time.Millisecond))
		_ = old.signal(syscall.SIGKILL)
		if requireOneOrNone(s) {
			served++
			requireServes(s, "v2")
			requireStops(s)
		} else if i%3 == 0 {
			requireServes(again(s, appConfig{Version: "v3", Workers: 2}), "v3")
		}
	}
	t.Logf("served on after %d of %d", served, tier(1, 10)*steps)
}

func TestNewMasterKilledAtAnyMomentLeavesOneOrNone(t *testing.T) {
	old := 0
	const steps = 6
	for i := range tier(1, 10) * steps {
		s := newService(t, appConfig{Version: "v1", Workers: 2})
		installSlow(s, "v2", 100*time.Millisecond) // so that there is time to find it
		was := s.masterProcess()
		mustSignal(t, was, syscall.SIGUSR2)
		next := candidate(s, was)
		<-time.After(time.Duration(i%steps)*25*time.Millisecond + rand.N(25*time.Millisecond))
		if err := next.kill(); err != nil {
			t.Fatal(err)
		}
		if requireOneOrNone(s) {
			old++
			if st := s.status(); st.Master.PID != was.PID {
				t.Errorf("master %d, was %d", st.Master.PID, was.PID)
			}
			if v := s.reload(); !v.OK { // an upgrade it may have to refuse
				t.Errorf("reload: %+v", v)
			}
			requireStops(s)
		} else if !gone(was) {
			t.Errorf("the old master neither serves nor ends:\n%s", s.describe())
		}
	}
	t.Logf("the old master served on after %d of %d", old, tier(1, 10)*steps)
}

// What a service was started as counts from where it was started, wherever
// main goes before Run.
func TestServiceStartedByARelativePathThatChangesDirectoryIsDeployed(t *testing.T) {
	s := deployed(t, appConfig{Version: "v1", Workers: 2, Quirk: config.QuirkChdir,
		Listeners: []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}})
	launchAs(s, "./app", nil)
	s.waitServing()
	for i, deploy := range []func() control.Verdict{s.reload, s.upgrade, s.reload, s.upgrade} {
		version := fmt.Sprintf("v%d", i+2)
		installVersion(s, version)
		if v := deploy(); !v.OK {
			t.Fatalf("deploy of %s: %+v", version, v)
		}
		requireCoherent(s, version, 2)
	}
	killOne(s)
	requireCoherent(s, "v5", 2)
	requireStops(s)
}
