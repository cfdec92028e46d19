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
