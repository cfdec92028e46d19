//go:build linux

package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

// kept are clients that hold their connections, and would notice anything that
// is done to them.
func kept() []load.Plan {
	return []load.Plan{
		{Class: load.Idle, Clients: 16, Think: 400 * time.Millisecond},
		{Class: load.KeepAlive, Clients: 8},
		{Class: load.Pipelined, Clients: 4},
	}
}

// requireConnectionsUnnoticed fails if a client lost a request, or noticed that its
// connection has another server now.
func requireConnectionsUnnoticed(t *testing.T, r load.Report) {
	t.Helper()
	for class, tally := range r.Classes {
		if tally.Requests == 0 {
			t.Errorf("%s: no requests", class)
		}
		if tally.Lost+tally.ServerClosedIdle+tally.Reconnects+tally.ConnectionClose+tally.Unanswered > 0 {
			t.Errorf("%s: a client noticed:\n%s", class, r)
			return
		}
	}
}

func TestReloadLosesNoIdleConnection(t *testing.T) {
	s := newService(t, appConfig{Workers: 2})
	finish := s.start(load.Config{Plans: kept()})
	for end := time.Now().Add(tier(3*time.Second, 30*time.Second)); time.Now().Before(end); {
		if v := s.reload(); !v.OK {
			t.Fatalf("reload: %+v", v)
		}
		s.waitStatus("only the new generation", oneGeneration)
	}
	requireConnectionsUnnoticed(t, finish())
	checkLedger(t, s.status())
}

func TestUpgradeLosesNoIdleConnection(t *testing.T) {
	s := newService(t, appConfig{Workers: 2})
	finish := s.start(load.Config{Plans: kept()})
	for end := time.Now().Add(tier(3*time.Second, 30*time.Second)); time.Now().Before(end); {
		if v := s.upgrade(); !v.OK {
			t.Fatalf("upgrade: %+v", v)
		}
		s.waitStatus("only the new generation", oneGeneration)
	}
	requireConnectionsUnnoticed(t, finish())
	checkLedger(t, s.status())
}

// A single worker that leaves gives its connections to those that stay.
func TestWorkerThatLeavesLosesNoIdleConnection(t *testing.T) {
	s := newService(t, appConfig{Workers: 3})
	finish := s.start(load.Config{Plans: kept()})
	for range tier(3, 10) {
		w := s.workers()[0]
		signalPID(t, w.PID, syscall.SIGTERM)
		waitReplaced(s, w)
		s.scale(2)
		s.waitProcesses(3)
		s.scale(3)
		s.waitProcesses(4)
	}
	requireConnectionsUnnoticed(t, finish())
}

// One connection goes through a hundred generations.
func TestConnectionOutlivesAHundredGenerations(t *testing.T) {
	s := newService(t, appConfig{Workers: 1})
	finish := s.start(load.Config{Plans: []load.Plan{{Class: load.KeepAlive, Clients: 1}}})
	for range tier(30, 100) {
		if v := s.reload(); !v.OK {
			t.Fatalf("reload: %+v", v)
		}
	}
	requireConnectionsUnnoticed(t, finish())
}

// The account of a drain: in the status, in the log, and through an upgrade.
func TestDrainIsAccountedFor(t *testing.T) {
	s := newService(t, appConfig{Workers: 1})
	idle, slow := dialKept(t, s.addr), dialKept(t, s.addr)
	if err := slow.send("/slow?d=" + tier("300ms", "2s")); err != nil {
		t.Fatal(err)
	}
	s.reload()
	if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
		t.Fatalf("the request under way: %+v, %v", a, err)
	}
	st := s.waitStatus("only the new generation", oneGeneration)
	if d := st.Drained; d.Moved["idle"] != 2 || len(d.Cut) != 0 {
		t.Errorf("after a reload: %+v", d)
	}
	s.upgrade()
	st = s.waitStatus("only the new generation", oneGeneration)
	if d := st.Drained; d.Moved["idle"] != 4 {
		t.Errorf("after an upgrade: %+v", d)
	}
	s.waitLog("drained moved=2 soft_drained=0 finished=0 cut=0")
	for _, f := range []*inFlight{idle, slow} {
		if err := f.send("/"); err != nil {
			t.Fatal(err)
		}
		if a, err := f.answer(waitTime); err != nil || a.status != 200 {
			t.Errorf("after both: %+v, %v", a, err)
		}
	}
}

// dialKept is a connection on which a request has been answered.
func dialKept(t *testing.T, addr string) *inFlight {
	t.Helper()
	f, err := dialService(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.c.Close() })
	if err := f.send("/"); err != nil {
		t.Fatal(err)
	}
	if a, err := f.answer(waitTime); err != nil || a.status != 200 {
		t.Fatalf("first request: %+v, %v", a, err)
	}
	return f
}

func oneGeneration(st control.Status) bool {
	return st.State == control.StateServing && len(st.Generations) == 1
}
