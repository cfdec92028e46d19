//go:build linux

package integration

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A master, also one that another has started, gives way to everybody, and so do
// its workers, unless they are told not to.
func TestMastersArePatientAndWorkersAsTheyAreTold(t *testing.T) {
	for env, policy := range map[string]uint32{"BATON_PREEMPT=false": unix.SCHED_BATCH, "BATON_PREEMPT=true": unix.SCHED_NORMAL} {
		t.Run(env, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(env))
			requirePolicies(s, policy)
			if v := s.upgrade(); !v.OK {
				t.Fatalf("%+v", v)
			}
			requirePolicies(s, policy)
			pid := s.workers()[0].PID
			signalPID(t, pid, syscall.SIGKILL)
			s.waitDead(pid)
			requirePolicies(s, policy)
		})
	}
}

func requirePolicies(s *service, ofWorkers uint32) {
	s.t.Helper()
	st := s.waitStatus("all workers serve", complete)
	requirePolicy(s.t, "master", st.Master.PID, unix.SCHED_BATCH)
	for _, w := range serving(st).Processes {
		requirePolicy(s.t, "worker "+w.ID, w.PID, ofWorkers)
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
