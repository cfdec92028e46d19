//go:build linux

package integration

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// Idle connections on their way from one generation to the next, and what can
// happen to them there.

func TestThousandsOfIdleConnectionsMove(t *testing.T) {
	n := tier(2000, 10_000)
	for _, c := range []struct {
		name string
		sig  syscall.Signal
	}{{"reload", syscall.SIGHUP}, {"upgrade", syscall.SIGUSR2}} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2})
			h := gather(s, n)
			before := s.status()
			if got := open(serving(before)); got != n {
				t.Fatalf("the workers have %d connections, want %d", got, n)
			}
			s.install(appConfig{Version: "v2", Workers: 2})

			most := watchFiles(t, before.Master.PID)
			began := time.Now()
			s.signal(c.sig)
			s.waitLog("generation 2 serving")
			committed := time.Now()
			waitGone(t, serving(before).Processes)
			gone := time.Now()
			t.Logf("%d connections: the new generation served after %v, the old workers were gone %v later; the first master had %d descriptors at most, %d before",
				n, committed.Sub(began).Round(time.Millisecond), gone.Sub(committed).Round(time.Millisecond), most(), before.Master.FDs)
			t.Log(s.waitLog("finished=0 cut=0"))

			h.requireUnnoticed()
			st := s.waitStatus("only the new generation", oneGeneration)
			if got := open(serving(st)); got != n {
				t.Errorf("the new workers have %d connections, want %d", got, n)
			}
			checkLedger(t, st)
		})
	}
}

// signalAll stops processes, or lets them go on.
func signalAll(t *testing.T, ws []control.Worker, sig syscall.Signal) {
	t.Helper()
	for _, w := range ws {
		signalPID(t, w.PID, sig)
	}
}

// reloadStopped brings up a second generation while the workers of the first are
// stopped, so that they hear of their drain only when the test lets them.
func reloadStopped(s *service, next appConfig) (old, new []control.Worker) {
	s.t.Helper()
	old = s.workers()
	signalAll(s.t, old, syscall.SIGSTOP)
	s.install(next)
	requireTaken(s.t, s.reload())
	return old, s.workers()
}

// The new workers take nothing. The old ones keep what has no room there, and
// serve it, and so does the master its bounds.
func TestConnectionsWaitWhereTheyAreServed(t *testing.T) {
	const window, returns = 64, 32 // of each worker
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	n := tier(600, 4000)
	h := gather(s, n)
	old, next := reloadStopped(s, appConfig{Version: "v2", Workers: 2})
	signalAll(t, next, syscall.SIGSTOP)
	before := s.status()
	most := watchFiles(t, before.Master.PID)
	signalAll(t, old, syscall.SIGCONT)

	s.waitStatus("no more connections can go to the new workers", func(st control.Status) bool {
		g := serving(st)
		return unacked(g) == 2*window || !slices.ContainsFunc(g.Processes, func(w control.Worker) bool { return w.State != control.WorkerStalled })
	})
	stuck := unacked(serving(s.status()))
	t.Logf("%d of %d connections are on their way to stopped workers", stuck, n)
	h.request(h.fds)
	if served := h.collect(waitTime, func(served int) bool { return served == n-stuck }); served != n-stuck {
		t.Fatalf("%d of %d connections are served while the new workers are stopped", served, n)
	}
	waiting, replies := h.unanswered(), h.replies
	h.fds = h.answered()
	for end, rounds := time.Now().Add(tier(1500*time.Millisecond, 5*time.Second)), 0; ; rounds++ {
		for _, r := range h.replies {
			if r.done() && r.generation() != "1" {
				t.Fatalf("a stopped worker answers: %q", r.text)
			}
		}
		if time.Now().After(end) {
			t.Logf("the others were served %d times by the old workers", rounds)
			break
		}
		h.requireUnnoticed()
	}
	if got := most(); got > before.Master.FDs+2*(2*window+2*returns)+20 { // each has a token with it
		t.Errorf("the master had %d descriptors, %d before", got, before.Master.FDs)
	}
	signalAll(t, next, syscall.SIGCONT)
	h.fds, h.replies = append(h.fds, waiting...), replies
	h.collect(waitTime, nil)
	h.require(true)
	waitGone(t, old)
	h.requireUnnoticed()
	for _, r := range h.replies {
		if r.generation() != "2" {
			t.Fatalf("answered by an old worker: %q", r.text)
		}
	}
	st := s.waitStatus("only the new generation", oneGeneration)
	checkLedger(t, st)
	if l := serving(st).Ledger; l.RefusedTotal() != 0 || open(serving(st)) != n {
		t.Errorf("%d open, ledger %+v", open(serving(st)), l)
	}
}

// Nobody can take them: those who drain go on, and move as soon as somebody can.
func TestConnectionsStayWhenNobodyCanTakeThem(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	n := tier(300, 2000)
	h := gather(s, n)
	flag := filepath.Join(t.TempDir(), "fail")
	old, next := reloadStopped(s, appConfig{Version: "v2", Workers: 2, Fail: config.FailExit1, FailIf: flag})
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	signalAll(t, next, syscall.SIGKILL)
	s.waitStatus("nobody serves", func(st control.Status) bool { return !st.Accepting })
	signalAll(t, old, syscall.SIGCONT)
	for range 3 {
		h.requireUnnoticed()
		for _, r := range h.replies {
			if r.generation() != "1" {
				t.Fatalf("answered by %q", r.text)
			}
		}
	}
	st := s.status()
	checkLedger(t, st)
	if st.Pending != 0 {
		t.Errorf("the master queues %d connections that nobody serves", st.Pending)
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	waitGone(t, old) // a respawn has been put off for some seconds
	h.requireUnnoticed()
	checkLedger(t, s.waitStatus("all workers serve", complete))
}

// The master is killed while a thousand connections are under way. The old
// workers have all that they have no receipt for, the new ones all that they
// were sent; the others are lost, and are no more than the master can hold.
func TestKilledMasterCostsOnlyWhatItHeld(t *testing.T) {
	const n = 1000
	for i := range tier(2, 10) {
		s := newService(t, appConfig{Version: "v1", Workers: 2})
		h := gather(s, n)
		old, next := reloadStopped(s, appConfig{Version: "v2", Workers: 2})
		master := s.masterPID()
		full := i == 0 // the new workers take nothing, so that the middle lasts
		if full {
			signalAll(t, next, syscall.SIGSTOP)
		}
		signalAll(t, old, syscall.SIGCONT)
		moved := rand.N(n / 2)
		s.waitStatus("connections are on their way", func(st control.Status) bool {
			return full && unacked(serving(st)) > 100 || open(serving(st)) > moved
		})
		signalPID(t, master, syscall.SIGKILL)
		if full {
			signalAll(t, next, syscall.SIGCONT)
		}
		h.request(h.fds)
		h.collect(waitTime, nil)
		lost := 0
		by := map[string]int{}
		for fd, r := range h.replies {
			if err := r.check(false); err != nil {
				if lost++; lost <= 3 {
					t.Logf("lost, descriptor %d: %v", fd, err)
				}
				continue
			}
			by[r.generation()]++
		}
		t.Logf("%d of %d connections were lost; by generation %v answered", lost, n, by)
		if most := 2 * 64; lost > most {
			t.Errorf("%d connections were lost, the master can have held %d", lost, most)
		}
		h.close()
		s.waitProcesses(0)
	}
}

// inTheMiddle leaves a service with half of its connections moved, about.
func inTheMiddle(t *testing.T, n int) (*service, *herd) {
	t.Helper()
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	h := gather(s, n)
	old, _ := reloadStopped(s, appConfig{Version: "v2", Workers: 2})
	signalAll(t, old, syscall.SIGCONT)
	moved := rand.N(n / 2)
	s.waitStatus("connections are on their way", func(st control.Status) bool { return open(serving(st)) > moved })
	return s, h
}

func TestStopInTheMiddleOfAMoveLosesNothing(t *testing.T) {
	for range tier(2, 10) {
		s, h := inTheMiddle(t, 1000)
		s.signal(syscall.SIGTERM)
		h.request(h.fds)
		h.collect(waitTime, nil)
		h.require(false)
		h.close()
		requireStopped(s)
	}
}

func TestDeploysInTheMiddleOfAMoveLoseNothing(t *testing.T) {
	for range tier(1, 5) {
		s, h := inTheMiddle(t, 1000)
		for i, deploy := range []func() control.Verdict{s.upgrade, s.reload, s.upgrade, s.upgrade, s.reload} {
			requireTaken(t, deploy())
			if i%2 == 0 {
				h.requireUnnoticed()
			}
		}
		st := s.waitStatus("only the new generation", func(st control.Status) bool { return oneGeneration(st) && serving(st).Ledger.Pending == 0 })
		h.requireUnnoticed()
		checkLedger(t, st)
		if l := serving(st).Ledger; l.RefusedTotal() != 0 || l.Cut != 0 || open(serving(st)) != len(h.fds) {
			t.Errorf("%d open, ledger %+v", open(serving(st)), l)
		}
	}
}
