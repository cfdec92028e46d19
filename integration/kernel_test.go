//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// Accept mode kernel: each slot has a queue of its own, and none is forgotten.

const byKernel = "BATON_ACCEPT=kernel"

// needKernel is for tests that attach a program to sockets.
func needKernel(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can have the kernel give out connections: run as root")
	}
}

// kernelService has n workers and accept mode kernel.
func kernelService(t *testing.T, n int, opts ...serviceOption) *service {
	t.Helper()
	needKernel(t)
	s := newService(t, appConfig{Version: "v1", Workers: n}, append(opts, withEnv(byKernel))...)
	requireTurns(s, 1, n)
	return s
}

// turns asks n times, a connection each, one after the other.
func turns(s *service, n int) (by []string) {
	s.t.Helper()
	for range n {
		by = append(by, s.get("/").worker)
	}
	return by
}

// inTurn says whether by is the workers of a generation in these slots, over and
// over.
func inTurn(by []string, generation int, slots ...int) bool {
	var want []string
	for _, slot := range slots {
		want = append(want, fmt.Sprintf("%d.%d", generation, slot))
	}
	first := slices.Index(want, by[0])
	if first < 0 {
		return false
	}
	for i, w := range by {
		if w != want[(first+i)%len(want)] {
			return false
		}
	}
	return true
}

// requireTurns waits until the slots 1 to n of a generation take strict turns:
// workers begin to accept a moment after they serve.
func requireTurns(s *service, generation, n int) {
	s.t.Helper()
	var slots []int
	for i := range n {
		slots = append(slots, i+1)
	}
	var by []string
	for end := time.Now().Add(waitTime); time.Now().Before(end); {
		if by = turns(s, 4*len(slots)); inTurn(by, generation, slots...) {
			return
		}
	}
	s.t.Fatalf("%v have answered, want slots %v of generation %d in turn", by, slots, generation)
}

func TestKernelGivesEachWorkerItsTurn(t *testing.T) {
	s := kernelService(t, 3)
	resume := stopProcess(t, s.masterPID()) // it has no part in it
	if by := turns(s, 30); !inTurn(by, 1, 1, 2, 3) {
		t.Errorf("without the master: %v", by)
	}
	resume()

	deploy := func(what string, f func() control.Verdict) {
		t.Helper()
		installVersion(s, what)
		if v := f(); !v.OK {
			t.Fatalf("%s: %+v", what, v)
		}
	}
	deploy("reload", s.reload)
	requireTurns(s, 2, 3)
	deploy("upgrade", s.upgrade)
	requireTurns(s, 3, 3)
	for _, n := range []int{5, 1, 2} {
		deploy("scale to "+strconv.Itoa(n), func() control.Verdict { return s.scale(n) })
		requireTurns(s, 3, n)
	}
	deploy("upgrade again", s.upgrade)
	requireTurns(s, 4, 2)
	if n := s.countLog("in place of the kernel"); n > 0 {
		t.Errorf("%d times the master said that it accepts itself", n)
	}
	requireStops(s)
}

func TestKernelLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := kernelService(t, 2)
	cfg := allClasses()
	cfg.SlowFor, cfg.StreamFor = 500*time.Millisecond, time.Second
	finish := s.start(cfg)
	for i := range tier(1, 10) {
		for _, step := range []struct {
			what string
			do   func() control.Verdict
		}{
			{"reload", s.reload},
			{"more workers", func() control.Verdict { return s.scale(4) }},
			{"upgrade", s.upgrade},
			{"fewer workers", func() control.Verdict { return s.scale(1) }},
			{"another reload", s.reload},
			{"two workers", func() control.Verdict { return s.scale(2) }},
			{"another upgrade", s.upgrade},
		} {
			installVersion(s, fmt.Sprintf("%s %d", step.what, i))
			if v := step.do(); !v.OK {
				t.Fatalf("%s: %+v", step.what, v)
			}
			s.waitStatus("all serve after "+step.what, complete)
			turns(s, 20)
		}
	}
	requireNothingLost(s, finish())
	requireCoherent(s, s.get("/version").version, 2)
	requireStops(s)
}

// What has come to the queue of a worker that dies, hangs or is not wanted any more
// is served by the others, by way of the master.
func TestKernelQueueOfAWorkerThatIsNoMoreIsServed(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(s *service, w control.Worker)
		left    int // how many workers take turns
	}{
		"it dies":  {func(s *service, w control.Worker) { signalPID(s.t, w.PID, syscall.SIGKILL) }, 3},
		"it hangs": {func(*service, control.Worker) {}, 2},
		"it retires": {func(s *service, _ control.Worker) {
			if v := s.scale(2); !v.OK {
				s.t.Fatalf("%+v", v)
			}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := kernelService(t, 3)
			victim := s.workers()[2]
			stopProcess(t, victim.PID)
			requests := s.openRequests(30, "/pid")
			c.happens(s, victim)
			for _, a := range requireAnswers(t, requests, waitTime) {
				if strings.TrimSpace(a.body) == strconv.Itoa(victim.PID) {
					t.Error("a worker that is stopped has answered")
				}
			}
			requireTurns(s, 1, c.left)
			if p, err := readProcess(victim.PID); err == nil {
				_ = p.signal(syscall.SIGCONT)
			}
			requireTurns(s, 1, s.serving().Workers)
			requireStops(s)
		})
	}
}

func TestKernelGoesOnWithoutAMaster(t *testing.T) {
	s := kernelService(t, 3, withEnv(supervised))
	requireCoherent(s, "v1", 3) // they are trusted
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
	for range tier(2, 10) {
		s.killMaster()
		turns(s, 20)
		s.restart()
		requireCoherent(s, "v1", 3)
	}
	requireNothingLost(s, finish())
	requireTurns(s, tier(2, 10)+1, 3)

	// Nobody but the others can serve the queue of one that dies now.
	ws := s.workers()
	s.killMaster()
	stopProcess(t, ws[0].PID)
	requests := s.openRequests(12, "/")
	signalPID(t, ws[0].PID, syscall.SIGKILL)
	for _, a := range requireAnswers(t, requests, waitTime) {
		if a.worker == ws[0].ID {
			t.Error("the dead worker has answered")
		}
	}
	more := s.openRequests(12, "/")
	s.restart()
	requireAnswers(t, more, waitTime)
	requireTurns(s, tier(2, 10)+2, 3)
	requireStops(s)
}

func TestKernelStopServesAllQueues(t *testing.T) {
	s := kernelService(t, 3)
	if v := s.scale(2); !v.OK { // one is retired, and not forgotten
		t.Fatalf("%+v", v)
	}
	requireTurns(s, 1, 2)
	requireCoherent(s, "v1", 2)
	master, ws := stopWorkers(s)
	requests := s.openRequests(60, "/version")
	signalPID(t, master, syscall.SIGTERM)
	s.waitLog("stopping")
	for _, w := range ws {
		signalPID(t, w.PID, syscall.SIGCONT)
	}
	requireAnswers(t, requests, waitTime)
	requireStopped(s)
	requireFreed(t, s.addr, soon)
}

// A stop under load: who is served is served in full, who is not is refused.
func TestKernelStopUnderLoadResetsNobody(t *testing.T) {
	s := kernelService(t, 3)
	var requests []*inFlight
	master := s.masterProcess()
	for {
		if len(requests) == 100 {
			mustSignal(t, master, syscall.SIGTERM)
		}
		f, err := dialService(s.addr)
		if err != nil {
			break // refused: the port is free
		}
		t.Cleanup(func() { f.c.Close() })
		if err := f.send("/"); err != nil {
			t.Fatalf("connection %d: %v", len(requests), err)
		}
		requests = append(requests, f)
	}
	t.Logf("%d requests before the first was refused", len(requests))
	requireAnswers(t, requests, waitTime)
	requireStopped(s)
}

// Each listener has what it can have.
func TestKernelLeavesUnixSocketsToTheMaster(t *testing.T) {
	needKernel(t)
	socket := filepath.Join(t.TempDir(), "app.sock")
	s := newService(t, appConfig{Version: "v1", Workers: 2, Listeners: []config.Listener{
		{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}, {Network: "unix", Addr: socket, Name: "local"},
		{Network: "tcp", Addr: "[::1]:0", Name: "six"},
	}}, withEnv(byKernel))
	requireTurns(s, 1, 2)
	for _, addr := range []string{socket, s.addrOf("six")} {
		var by []string
		eventually(t, waitTime, "turns at "+addr, func() bool {
			by = nil
			for range 8 {
				a, err := ask(addr, "/", waitTime)
				if err != nil {
					t.Fatal(err)
				}
				by = append(by, a.worker)
			}
			return inTurn(by, 1, 1, 2)
		})
	}
	line := s.waitLog("in place of the kernel")
	requireParts(t, "the reason", line, "listener=local", "unix socket")
	if n := s.countLog("in place of the kernel"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	requireStops(s)
}

// unprivileged starts the service as a user that may do nothing.
func unprivileged(s *service) {
	accessible(s)
	if err := os.Chown(s.dir, 65534, 65534); err != nil {
		s.t.Fatal(err)
	}
	s.credential = &syscall.Credential{Uid: 65534, Gid: 65534}
}

func TestWithoutTheKernelTheMasterAccepts(t *testing.T) {
	needKernel(t)
	s := newService(t, appConfig{Version: "v1", Workers: 3}, withEnv(byKernel), unprivileged)
	if by := turns(s, 12); !inTurn(by, 1, 1, 2, 3) {
		t.Errorf("%v have answered", by)
	}
	requireParts(t, "the reason", s.waitLog("in place of the kernel"), "CAP_BPF and CAP_NET_ADMIN", "user 65534", "Linux ")
	installVersion(s, "v2")
	if v := s.reload(); !v.OK {
		t.Fatalf("%+v", v)
	}
	if n := s.countLog("in place of the kernel"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	requireCoherent(s, "v2", 3)
	requireStops(s)
}

func TestKernelOrNothing(t *testing.T) {
	needKernel(t)
	s := startService(t, appConfig{Version: "v1", Workers: 2}, withEnv(byKernel+"!"), unprivileged)
	if code := s.exitCode(); code != 78 {
		t.Errorf("exit status %d, want 78", code)
	}
	requireParts(t, "the reason", s.waitLog(`BATON_ACCEPT="kernel!": `), "CAP_BPF and CAP_NET_ADMIN")

	root := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(byKernel+"!"))
	requireTurns(root, 1, 2)
	requireStops(root)
}
