//go:build linux

package integration

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

// complete says whether the serving generation has all its workers.
func complete(st control.Status) bool {
	g := serving(st)
	if g == nil || len(g.Processes) != g.Workers {
		return false
	}
	return !slices.ContainsFunc(g.Processes, func(w control.Worker) bool { return w.State != control.WorkerServing })
}

// killOne kills a worker that serves and waits until its master knows.
func killOne(s *service) {
	s.t.Helper()
	st := s.waitStatus("somebody serves", func(st control.Status) bool {
		g := serving(st)
		return g != nil && slices.ContainsFunc(g.Processes, func(w control.Worker) bool { return w.State == control.WorkerServing })
	})
	ps := slices.DeleteFunc(slices.Clone(serving(st).Processes), func(w control.Worker) bool { return w.State != control.WorkerServing })
	victim := ps[rand.IntN(len(ps))]
	signalPID(s.t, victim.PID, syscall.SIGKILL)
	s.waitDead(victim.PID)
}

// waitDead waits until the master has settled the death of a worker.
func (s *service) waitDead(pid int) control.Status {
	s.t.Helper()
	return s.waitStatus("worker "+strconv.Itoa(pid)+" is gone", func(st control.Status) bool {
		return !slices.ContainsFunc(st.Generations, func(g control.Generation) bool {
			return slices.ContainsFunc(g.Processes, func(w control.Worker) bool { return w.PID == pid })
		})
	})
}

// waitState waits until a process is in a state as ps has it, such as T.
func waitState(t *testing.T, pid int, state string) {
	t.Helper()
	eventually(t, waitTime, "process "+strconv.Itoa(pid)+" is in state "+state, func() bool {
		p, err := readProcess(pid)
		return err == nil && p.State == state
	})
}

func TestKilledWorkerCostsOnlyWhatItHadAcknowledged(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 3})
	// One request at a time on each connection, so that requests lost and
	// connections cut can be compared.
	finish := s.start(load.Config{
		Plans: []load.Plan{
			{Class: load.PerConn, Clients: 4},
			{Class: load.KeepAlive, Clients: 4},
			{Class: load.Slow, Clients: 4},
			{Class: load.Stream, Clients: 2},
		},
		SlowFor:   tier(400*time.Millisecond, 2*time.Second),
		StreamFor: tier(time.Second, 5*time.Second),
	})
	kills := 0
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(tier(4*time.Second, 20*time.Second)); time.Now().Before(end); kills++ {
		<-tick.C
		killOne(s)
		checkLedger(t, s.status())
	}
	r := finish()
	t.Logf("%d workers killed\n%s", kills, r)
	st := s.waitStatus("all workers serve again", func(st control.Status) bool {
		return complete(st) && serving(st).Ledger.Pending == 0
	})
	checkLedger(t, st)
	l := serving(st).Ledger
	t.Logf("ledger: %+v", l)
	if uint64(r.Lost()) > l.Cut {
		t.Errorf("%d requests lost, but only %d connections were open in workers that died", r.Lost(), l.Cut)
	}
	if l.Cut == 0 {
		t.Error("no connection was open in any of the workers: the test shows nothing")
	}
	if l.RefusedTotal() > 0 {
		t.Errorf("ledger: %+v", l)
	}
	for class, tally := range r.Classes {
		if tally.Timeouts > 0 || tally.Refused > 0 || tally.OK == 0 {
			t.Errorf("%s: %d timed out, %d refused, %d answered", class, tally.Timeouts, tally.Refused, tally.OK)
		}
		for _, f := range tally.Errors {
			if f.Stage == load.StageBadStatus || f.Stage == load.StageBadBody || f.Stage == load.StageUnsolicited {
				t.Errorf("a connection that is cut says nothing wrong: %v", f)
			}
		}
	}
	for _, w := range s.workers() {
		if w.Restarts > 0 && w.LastExit != "signal: killed" {
			t.Errorf("worker %s: last exit %q", w.ID, w.LastExit)
		}
	}
	s.waitProcesses(1 + 3)
}

func TestUnacknowledgedConnectionsOutliveTheirWorker(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 3})
	for range tier(3, 20) {
		outlive(s)
	}
}

func outlive(s *service) {
	t := s.t
	t.Helper()
	st := s.waitStatus("all workers serve", complete)
	before := serving(st).Ledger
	victim := serving(st).Processes[rand.IntN(3)]
	kept := s.connectTo(victim.ID)
	// What was asked before ends in its workers too; nothing else is open.
	st = s.waitStatus("one connection is open", func(st control.Status) bool {
		var open int64
		for _, w := range serving(st).Processes {
			open += w.Open
		}
		return open == 1
	})
	ready := serving(st).Ledger

	signalPID(t, victim.PID, syscall.SIGSTOP)
	waitState(t, victim.PID, "T")
	const n = 30
	requests := s.openRequests(n, "/pid")
	// Some clients do not wait for what becomes of them.
	gone := s.openRequests(3, "/pid")
	for _, f := range gone {
		f.vanish()
	}
	left := s.openRequests(3, "/pid")
	for _, f := range left {
		f.c.Close()
	}
	st = s.waitStatus("all that is not with the stopped worker is served", func(st control.Status) bool {
		for _, w := range serving(st).Processes {
			if w.ID != victim.ID && w.Unacked > 0 {
				return false
			}
		}
		// Linux hands out those that were reset in its queue, too.
		return serving(st).Ledger.Accepted == ready.Accepted+n+uint64(len(gone)+len(left))
	})
	unacked := 0
	for _, w := range serving(st).Processes {
		if w.ID == victim.ID {
			unacked = w.Unacked
		}
	}
	if unacked == 0 {
		t.Fatal("the stopped worker holds no unacknowledged connection")
	}
	signalPID(t, victim.PID, syscall.SIGKILL)

	for _, a := range requireAnswers(t, requests, waitTime) {
		if strings.TrimSpace(a.body) == strconv.Itoa(victim.PID) {
			t.Errorf("the dead worker has answered")
		}
	}
	// Its own connection is the only one that is lost, and its end is told.
	err := kept.send("/")
	if err == nil {
		_, err = kept.answer(waitTime)
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection of the dead worker: %v, want its end", err)
	}
	st = s.waitStatus("all workers serve again", func(st control.Status) bool {
		return complete(st) && serving(st).Ledger.Pending == 0
	})
	checkLedger(t, st)
	l := serving(st).Ledger
	if got := l.Redispatched - before.Redispatched; got != uint64(unacked) {
		t.Errorf("%d connections were given to others, the dead worker held %d", got, unacked)
	}
	if l.Cut-before.Cut != 1 || l.RefusedTotal() != 0 {
		t.Errorf("ledger %+v, before %+v: want 1 more cut, none refused", l, before)
	}
	if a := s.get("/"); a.status != http.StatusOK {
		t.Errorf("status %d", a.status)
	}
}
