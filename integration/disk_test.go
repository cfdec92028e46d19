//go:build linux

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inMountNamespace runs the test in a process that has mounts of its own, and says
// whether this is the one.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	const env = "BATON_TEST_MOUNTS"
	if os.Getenv(env) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system: run as root")
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), env+"="+t.Name(), testappEnv+"="+testapp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a mount namespace: %v", err)
	}
	return false
}

// onSmallDisk puts the runtime directory and the pid file on a file system of
// their own.
func onSmallDisk(s *service) {
	s.t.Helper()
	disk := s.disk("")
	err := os.Mkdir(disk, 0o700)
	if err == nil {
		err = unix.Mount("tmpfs", disk, "tmpfs", 0, "size=128k,mode=0700")
	}
	if err == nil {
		err = os.Mkdir(s.disk("run"), 0o700)
	}
	if err == nil {
		err = os.Symlink(s.disk("run"), s.run(""))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	s.cfg.Options.PIDFile = s.disk("app.pid")
	s.env = append(s.env, "BATON_PID_FILE="+s.disk("app.pid"))
}

func (s *service) disk(name string) string { return filepath.Join(s.dir, "disk", name) }

// fill leaves no room on the disk, until free is called.
func (s *service) fill() (free func()) {
	s.t.Helper()
	f, err := os.Create(s.disk("ballast"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := os.Remove(s.disk("ballast")); err != nil {
			s.t.Fatal(err)
		}
	}
}

// A disk that is full keeps no deploy from happening: nothing that a deploy needs
// is written. What is not written is said, and written when there is room.
func TestServiceGoesOnWithAFullDisk(t *testing.T) {
	t.Parallel() // it waits more than it works
	if !inMountNamespace(t) {
		return
	}
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised), onSmallDisk)
	requireAllFiles(s, "v1")
	finish := s.start(keptConnections())
	free := s.fill()
	if v := s.reload(); !v.OK {
		t.Errorf("reload: %+v", v)
	}
	s.waitCount(unrecorded, 1)
	old := s.masterPID()
	if v := s.upgrade(); !v.OK {
		t.Errorf("upgrade: %+v", v)
	}
	s.waitCount(unrecorded, 2) // by the new master
	s.waitCount("the pid file "+notPutRight, 1)
	w := workerCalled(s, s.get("/").worker)
	signalPID(t, w.PID, syscall.SIGTERM)
	waitReplaced(s, w)
	if err := os.Remove(s.run("lock")); err != nil { // nor can it be put back with a name in it
		t.Fatal(err)
	}
	s.waitCount("the lock "+notPutRight, 1)
	if a := s.get("/version"); a.version != "v1" || s.masterPID() == old {
		t.Errorf("%+v by master %d", a, s.masterPID())
	}
	free()
	s.waitCount(recorded, 1)
	requireAllFiles(s, "v1")
	s.requireCount(unrecorded, 2)
	s.requireCount("the pid file "+notPutRight, 1)
	s.requireCount("the pid file "+wellAgain, 1)
	s.requireCount("the lock "+notPutRight, 1)
	s.requireCount("the lock "+wellAgain, 1)
	s.crash() // it has a record again
	requireAllFiles(s, "v1")
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}

// A killed master is survived with a full disk, by the workers that were written
// down before.
func TestKilledMasterIsSurvivedWithAFullDisk(t *testing.T) {
	t.Parallel() // it waits more than it works
	if !inMountNamespace(t) {
		return
	}
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised), onSmallDisk)
	requireAllFiles(s, "v1")
	finish := s.start(keptConnections())
	free := s.fill()
	s.crash()
	s.waitStatus("only the new generation", oneGeneration)
	if a := s.get("/version"); a.version != "v1" {
		t.Errorf("%+v", a)
	}
	free()
	requireAllFiles(s, "v1")
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}

// A file system that turns read-only is no reason to stop, nor for an upgrade that
// would leave a wrong pid file.
func TestServiceGoesOnWithAReadOnlyFileSystem(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised), onSmallDisk)
	requireAllFiles(s, "v1")
	finish := s.start(keptConnections())
	// Over it, since one with files that are open for writing, as that of a disk that
	// fails, is made so by the kernel alone.
	if err := unix.Mount(s.disk(""), s.disk(""), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", s.disk(""), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	writable := func() {
		t.Helper()
		if err := unix.Unmount(s.disk(""), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Create(s.disk("x")); !errors.Is(err, unix.EROFS) {
		t.Fatalf("it is not read-only: %v", err)
	}
	if v := s.reload(); !v.OK {
		t.Errorf("reload: %+v", v)
	}
	s.waitCount(unrecorded, 1)
	master := s.masterPID()
	if v := s.upgrade(); v.OK || !strings.Contains(v.Reason, "read-only file system") {
		t.Errorf("upgrade: %+v; want it refused, since the pid file cannot be written", v)
	}
	if pid := s.masterPID(); pid != master {
		t.Errorf("master %d, was %d", pid, master)
	}
	w := workerCalled(s, s.get("/").worker)
	signalPID(t, w.PID, syscall.SIGTERM)
	waitReplaced(s, w)
	writable()
	s.waitCount(recorded, 1)
	requireAllFiles(s, "v1")
	s.requireCount(unrecorded, 1)
	if v := s.upgrade(); !v.OK {
		t.Errorf("upgrade: %+v", v)
	}
	requireAllFiles(s, "v1")
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}
