//go:build linux

package integration

import (
	"errors"
	"os"
	"os/exec"
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
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a mount namespace: %v", err)
	}
	return false
}

// onSmallDisk puts the runtime directory, with the pid file, on a file system of
// its own.
func onSmallDisk(s *service) {
	s.t.Helper()
	if err := os.Mkdir(s.run(""), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.run(""), "tmpfs", 0, "size=128k,mode=0700"); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = unix.Unmount(s.run(""), unix.MNT_DETACH) })
	s.cfg.Options.PIDFile = s.run("app.pid")
}

// fill leaves no room on the disk, until free is called.
func (s *service) fill() (free func()) {
	s.t.Helper()
	f, err := os.Create(s.run("ballast"))
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
		if err := os.Remove(s.run("ballast")); err != nil {
			s.t.Fatal(err)
		}
	}
}
