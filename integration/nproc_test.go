//go:build linux

package integration

import (
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/control"
)

const cannotFork = "resource temporarily unavailable"

// limitProcesses leaves the user of process pid no room for another process or
// thread that it starts, until lift is called.
func (s *service) limitProcesses(pid int) (lift func()) {
	s.t.Helper()
	var before unix.Rlimit
	if err := s.processLimit(pid, nil, &before); err != nil {
		s.t.Fatal(err)
	}
	if err := s.processLimit(pid, &unix.Rlimit{Cur: 1, Max: before.Max}, nil); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := s.processLimit(pid, &before, nil); err != nil {
			s.t.Fatal(err)
		}
	}
}

// processLimit works as the user of the service, for in a container root may not
// do it for another. The thread is never that of root again, and ends.
func (s *service) processLimit(pid int, set, was *unix.Rlimit) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if s.credential != nil {
			uid := uintptr(s.credential.Uid)
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uid, uid, uid); errno != 0 {
				result <- errno
				return
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
				result <- errno
				return
			}
		}
		result <- unix.Prlimit(pid, unix.RLIMIT_NPROC, set, was)
	}()
	return <-result
}

// asUser makes the whole service another user's, of whom there is nobody else.
func asUser(uid int) serviceOption {
	return func(s *service) {
		accessible(s)
		if err := os.Chown(s.dir, uid, uid); err != nil {
			s.t.Fatal(err)
		}
		s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
}

// A user who may start no more processes keeps the service as it is: a reload is
// refused, a respawn is tried again and again, and works once it can.
func TestServiceGoesOnWhenNothingCanBeForked(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root is exempt from the limit of another user: run as root")
	}
	for name, c := range map[string]struct {
		cfg appConfig
		opt serviceOption
	}{
		"workers of another user": {appConfig{Version: "v1", Workers: 2, Options: appOptions{User: "nobody"}}, accessible},
		"all of one user":         {appConfig{Version: "v1", Workers: 2}, asUser(60000 + os.Getpid()%5000)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, c.cfg, c.opt)
			finish := s.start(lightLoad())
			master := s.masterPID()
			lift := s.limitProcesses(master)
			for range 3 {
				if v := s.reload(); v.OK {
					t.Error("a reload worked")
				} else {
					requireParts(t, "the reason", v.Reason, cannotFork)
				}
			}
			if v := s.upgrade(); v.OK {
				t.Error("an upgrade worked")
			} else {
				requireParts(t, "the reason", v.Reason, cannotFork)
			}
			w := workerCalled(s, s.get("/").worker)
			r := finish() // what that one has goes with it
			requireUnnoticed(s, r)
			signalPID(t, w.PID, syscall.SIGKILL)
			finish = s.start(lightLoad())
			s.waitCount("worker not started", 3)
			requireParts(t, "the log", s.waitLog("worker not started"), cannotFork, "respawn=")
			st := s.waitStatus("the other serves", func(st control.Status) bool { return serving(st) != nil })
			if st.Master.PID != master {
				t.Errorf("master %d, was %d", st.Master.PID, master)
			}
			lift()
			waitReplaced(s, w)
			if v := s.reload(); !v.OK {
				t.Errorf("reload: %+v", v)
			}
			requireNothingLost(s, finish())
			requireSettled(s)
			requireStops(s)
		})
	}
}
