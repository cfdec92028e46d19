//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// statusOf reads fields of /proc/<pid>/status.
func statusOf(t *testing.T, pid int, fields ...string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		for _, f := range fields {
			if name == f {
				out = append(out, name+" "+strings.Join(strings.Fields(value), " "))
			}
		}
	}
	return strings.Join(out, ", ")
}

// accessible opens the test's directories, which are root's alone, to others.
func accessible(s *service) {
	for dir := s.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Workers are the user they are to be, in every way that they come about, and
// can be nothing else; the master stays root.
func TestWorkersRunAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start workers as another user: run as root")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := nobody.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("Uid %[1]s %[1]s %[1]s %[1]s, Gid %[2]s %[2]s %[2]s %[2]s, Groups %[3]s, NoNewPrivs 1",
		nobody.Uid, nobody.Gid, strings.Join(ids, " "))
	fields := []string{"Uid", "Gid", "Groups", "NoNewPrivs"}

	s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{User: "nobody"}}, accessible)
	finish := s.start(lightLoad())
	check := func(when string) {
		t.Helper()
		for _, w := range s.workers() {
			if have := statusOf(t, w.PID, fields...); have != want {
				t.Errorf("%s: worker %s: %s, want %s", when, w.ID, have, want)
			}
		}
		if have := statusOf(t, s.masterPID(), "Uid", "NoNewPrivs"); have != "Uid 0 0 0 0, NoNewPrivs 0" {
			t.Errorf("%s: master: %s", when, have)
		}
	}
	check("at start")
	for name, deploy := range map[string]func(*service) bool{
		"reload":  func(s *service) bool { return s.reload().OK },
		"upgrade": func(s *service) bool { return s.upgrade().OK },
	} {
		if !deploy(s) {
			t.Fatalf("%s refused", name)
		}
		check("after " + name)
	}
	w := s.workers()[0]
	requireUnnoticed(s, finish())
	signalPID(t, w.PID, 9)
	waitReplaced(s, w)
	check("after a death")
}

// holdsListener says whether the process has a descriptor of a socket that listens
// at addr.
func holdsListener(t *testing.T, pid int, addr string) bool {
	t.Helper()
	listening := listeningAt(t, addr)
	if len(listening) == 0 {
		t.Fatalf("nobody listens at %s", addr)
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		for _, l := range listening {
			if target == "socket:["+l[9]+"]" {
				return true
			}
		}
	}
	return false
}

// Workers of another user have no copy of a listener, which they could shut down
// for all, unless they may outlive their master.
func TestWorkersOfAnotherUserHaveNoListener(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start workers as another user: run as root")
	}
	cfg := appConfig{Version: "v1", Workers: 2, Options: appOptions{User: "nobody"}}
	s := newService(t, cfg, accessible, withEnv(supervised))
	t.Run("nor after a deploy", func(t *testing.T) {
		requireNone := func(when string) {
			t.Helper()
			if !holdsListener(t, s.masterPID(), s.addr) {
				t.Fatalf("%s: the master has no listener", when)
			}
			for _, w := range s.workers() {
				if holdsListener(t, w.PID, s.addr) {
					t.Errorf("%s: worker %s has a listener", when, w.ID)
				}
			}
		}
		requireNone("at start")
		for range 2 {
			if v := s.reload(); !v.OK {
				t.Fatalf("reload: %+v", v)
			}
			requireNone("after a reload")
		}
		if v := s.upgrade(); !v.OK {
			t.Fatalf("upgrade: %+v", v)
		}
		requireNone("after an upgrade")
	})
	s.killMaster()
	requireFreed(t, s.addr, soon)
	s.waitProcesses(0)
}

// With Orphans a killed master is survived under another user, too: the next one
// finds the workers, and they it.
func TestWorkersOfAnotherUserOutliveTheirMasterIfTheyMay(t *testing.T) {
	t.Parallel() // it waits more than it works
	if os.Getuid() != 0 {
		t.Skip("only root can start workers as another user: run as root")
	}
	cfg := appConfig{Version: "v1", Workers: 2, Options: appOptions{User: "nobody"}}
	s := newService(t, cfg, accessible, withEnv(supervised, "BATON_ORPHANS=true"))
	trusted := func(when string) {
		t.Helper()
		requireCoherent(s, "v1", 2)
		eventually(t, waitTime, when+": the workers have listeners", func() bool {
			for _, w := range s.workers() {
				if !holdsListener(t, w.PID, s.addr) {
					return false
				}
			}
			return true
		})
	}
	trusted("at start")
	finish := s.start(keptConnections())
	for range 2 {
		workers := s.workers()
		s.killMaster()
		if a := s.get("/version"); a.version != "v1" {
			t.Errorf("without a master: %+v", a)
		}
		s.restart()
		for _, w := range workers {
			s.waitLog(fmt.Sprintf("worker adopted worker=%s pid=%d", w.ID, w.PID))
		}
		trusted("after a kill")
	}
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	trusted("after an upgrade")
	if err := os.RemoveAll(s.run("")); err != nil { // and with a directory that was put back
		t.Fatal(err)
	}
	s.waitCount(putBack, 1)
	trusted("after a cleaner")
	s.crash()
	trusted("after a kill in a directory that was put back")
	for _, name := range []string{"lock", "control.sock", "workers.json"} {
		if info, err := os.Lstat(s.run(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	requireConnectionsUnnoticed(t, finish())
	requireStops(s)
}

// A runtime directory that the user cannot get through is no place for that.
func TestOrphansNeedADirectoryThatTheirUserCanSearch(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start workers as another user: run as root")
	}
	s := startService(t, appConfig{Workers: 1, Options: appOptions{User: "nobody"}}, withEnv("BATON_ORPHANS=1")) // in a directory of root's alone
	if code := s.exitCode(); code != 78 {
		t.Errorf("exit status %d", code)
	}
	requireParts(t, "the log", strings.Join(s.log.all(), "\n"), `BATON_ORPHANS="1"`, "expected one that user 65534 can search")
}
