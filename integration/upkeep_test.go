//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

const (
	putBack     = "files of the running service had been removed, they are put back"
	notPutRight = "is not as it should be and cannot be put right, the service goes on"
	wellAgain   = "is well again"
	unrecorded  = "the record of the workers cannot be written"
	recorded    = "the record of the workers is written again"
)

// run is a path in the runtime directory.
func (s *service) run(name string) string { return filepath.Join(s.dir, "run", name) }

// waitCount waits until a line with part in it has been logged n times.
func (s *service) waitCount(part string, n int) {
	s.t.Helper()
	eventually(s.t, waitTime, strconv.Itoa(n)+" lines with "+strconv.Quote(part), func() bool { return s.countLog(part) >= n })
}

// requireCount requires that it has been logged so often, and no oftener.
func (s *service) requireCount(part string, n int) {
	s.t.Helper()
	if have := s.countLog(part); have != n {
		s.t.Errorf("%q is said %d times, want %d", part, have, n)
	}
}

// requirePIDFile requires that the pid file names the master.
func requirePIDFile(s *service) {
	s.t.Helper()
	eventually(s.t, waitTime, "the pid file names the master", func() bool {
		b, err := os.ReadFile(s.cfg.Options.PIDFile)
		return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(s.masterPID())
	})
}

// requireAllFiles requires a service that has all of its files, of which somebody can
// ask anything.
func requireAllFiles(s *service, version string) {
	s.t.Helper()
	requireCoherent(s, version, 2)
	requirePIDFile(s)
	// A second master is kept out, as by the lock of old.
	f, err := os.OpenFile(s.run("lock"), os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK {
		s.t.Errorf("the lock is free: %v", err)
	}
	if b, err := os.ReadFile(s.run("lock")); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(s.masterPID()) {
		s.t.Errorf("the lock names %q, %v; want %d", b, err, s.masterPID())
	}
}

// keptConnections is a load of which nothing may be lost even when the master is
// killed.
func keptConnections() load.Config { return load.Config{Plans: kept()} }

// Whatever is removed from under a service that runs comes back, and works as
// before: for a reload, an upgrade, the next master's file too, and when the master
// is killed.
func TestRemovedFilesComeBack(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	finish := s.start(keptConnections())
	n := 0
	remove := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
		n++
		s.waitCount(putBack, n)
		requireAllFiles(s, "v1")
	}
	requireAllFiles(s, "v1")
	remove(s.run("lock"))
	remove(s.run("control.sock"), s.run("workers.json"), s.cfg.Options.PIDFile)
	remove(s.run(""))
	if v := s.reload(); !v.OK {
		t.Errorf("reload: %+v", v)
	}
	requireAllFiles(s, "v1")
	if v := s.upgrade(); !v.OK {
		t.Errorf("upgrade: %+v", v)
	}
	requireAllFiles(s, "v1")
	remove(s.run(""), s.cfg.Options.PIDFile) // by the new master, too
	s.requireCount(putBack, n)
	s.requireCount(notPutRight, 0)
	if v := s.upgrade(); !v.OK {
		t.Errorf("upgrade: %+v", v)
	}
	requireAllFiles(s, "v1")
	s.crash()
	s.waitLog("the last master has died, its workers are waited for")
	requireAllFiles(s, "v1")
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}

// A deploy does not wait for somebody to look: what is gone is put back first.
func TestUpgradeRightAfterTheDirectoryWasRemoved(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	requireAllFiles(s, "v1")
	finish := s.start(keptConnections())
	before := s.masterPID()
	if err := os.RemoveAll(s.run("")); err != nil {
		t.Fatal(err)
	}
	signalPID(t, before, syscall.SIGUSR2)
	s.waitStatus("the new master answers", func(st control.Status) bool { return st.Master.PID != before && st.State == control.StateServing })
	requireAllFiles(s, "v1")
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}

// What cannot be put back is said once, and once that it is well again. Meanwhile
// there is somebody who serves.
func TestDirectoryThatCannotComeBackIsReportedOnce(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	requireAllFiles(s, "v1")
	finish := s.start(keptConnections())
	master := s.masterPID()
	if err := os.RemoveAll(s.run("")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.run(""), nil, 0o600); err != nil { // it may have come back already
		t.Logf("%v", err)
		_ = os.RemoveAll(s.run(""))
		if err := os.WriteFile(s.run(""), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.waitCount(notPutRight, 1)
	for i, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} { // each is decided, one way or the other
		signalPID(t, master, sig)
		eventually(t, startTime, sig.String()+" is decided", func() bool {
			return s.countLog(" serving workers=")+s.countLog(" refused reason=") >= i+2
		})
	}
	if a := s.get("/version"); a.version != "v1" {
		t.Errorf("%+v", a)
	}
	if n := s.countLog("the runtime directory " + notPutRight); n != 1 {
		t.Errorf("the directory is reported %d times", n)
	}
	if err := os.Remove(s.run("")); err != nil {
		t.Fatal(err)
	}
	s.waitCount("the runtime directory "+wellAgain, 1)
	requireAllFiles(s, "v1")
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}
