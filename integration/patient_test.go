//go:build linux

package integration

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnlyMastersArePatient: a master, also one that another has started, gives
// way to everybody; workers of either are scheduled as any process.
func TestOnlyMastersArePatient(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	requirePolicies(s)
	if v := s.upgrade(); !v.OK {
		t.Fatalf("%+v", v)
	}
	requirePolicies(s)
	pid := s.workers()[0].PID
	signalPID(t, pid, syscall.SIGKILL)
	s.waitDead(pid)
	requirePolicies(s)
}

func requirePolicies(s *service) {
	s.t.Helper()
	st := s.waitStatus("all workers serve", complete)
	requirePolicy(s.t, "master", st.Master.PID, unix.SCHED_BATCH)
	for _, w := range serving(st).Processes {
		requirePolicy(s.t, "worker "+w.ID, w.PID, unix.SCHED_NORMAL)
	}
}

func requirePolicy(t *testing.T, who string, pid int, want uint32) {
	t.Helper()
	a, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a.Policy != want {
		t.Errorf("%s has policy %d, want %d", who, a.Policy, want)
	}
}
