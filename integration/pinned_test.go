//go:build linux

package integration

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// requireRespawn kills each worker once and requires that all of those that
// take their places are of the same version.
func requireRespawn(s *service, version string) {
	s.t.Helper()
	st := s.waitStatus("all workers serve", complete)
	var dead []int
	for _, w := range serving(st).Processes {
		signalPID(s.t, w.PID, syscall.SIGKILL)
		s.waitDead(w.PID)
		dead = append(dead, w.PID)
	}
	st = s.waitStatus("all workers serve again", complete)
	for _, w := range serving(st).Processes {
		if slices.Contains(dead, w.PID) || w.Restarts == 0 {
			s.t.Errorf("worker %s is not a new one: %+v", w.ID, w)
		}
	}
	seen := map[string]bool{}
	for range 10 {
		a := s.get("/version")
		if seen[a.worker] = true; a.version != version || a.body != version {
			s.t.Fatalf("worker %s is of version %s, want %s", a.worker, a.version, version)
		}
	}
	if len(seen) != len(dead) {
		s.t.Errorf("workers %v answer, want %d", seen, len(dead))
	}
}

func TestRespawnRunsTheBinaryOfItsGeneration(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	pinned := s.serving().Binary

	s.install(appConfig{Version: "v2", Workers: 2})
	requireRespawn(s, "v1")

	// Nor does it matter what else becomes of the file.
	s.uninstall()
	requireRespawn(s, "v1")
	s.install(appConfig{Version: "v2", Workers: 2, Fail: config.FailExit1})
	if v := s.reload(); v.OK {
		t.Fatal("a release that cannot start was taken")
	}
	requireRespawn(s, "v1")
	if now := s.serving().Binary; now != pinned {
		t.Errorf("status says %+v, want %+v", now, pinned)
	}
}

func TestRespawnAfterUpgradeRunsTheBinaryOfItsGeneration(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	s.install(appConfig{Version: "v2", Workers: 2})
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	s.install(appConfig{Version: "v3", Workers: 2})
	requireRespawn(s, "v2")
	s.uninstall()
	requireRespawn(s, "v2")

	// The one that was pinned by a master which is gone.
	s.install(appConfig{Version: "v3", Workers: 2})
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	s.install(appConfig{Version: "v4", Workers: 2, Fail: config.Master + config.FailExit1})
	if v := s.upgrade(); v.OK {
		t.Fatal("a master that cannot start was taken")
	}
	requireRespawn(s, "v3")
}

// requireNames requires that ps shows every process under the name of the
// application, and each worker's id.
func requireNames(s *service, st control.Status) {
	s.t.Helper()
	ids := map[int]string{}
	for _, g := range st.Generations {
		for _, w := range g.Processes {
			ids[w.PID] = w.ID
		}
	}
	// ps itself, as a person would look.
	out, err := exec.Command("ps", "-s", strconv.Itoa(s.session), "-o", "pid=,comm=,args=").Output()
	if err != nil {
		s.t.Fatalf("ps: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	s.t.Logf("\n%s", out)
	if len(lines) != 1+len(ids) {
		s.t.Errorf("ps shows %d processes, want %d", len(lines), 1+len(ids))
	}
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 3 {
			s.t.Fatalf("ps: %q", line)
		}
		pid, _ := strconv.Atoi(f[0])
		want := s.binary
		if id := ids[pid]; id != "" {
			want = fmt.Sprintf("app: worker %s", id)
		} else if pid != st.Master.PID {
			s.t.Errorf("ps: %q is neither the master nor a worker", line)
		}
		if args := strings.Join(f[2:], " "); f[1] != "app" || args != want {
			s.t.Errorf("ps: %q, want comm app and args %q", line, want)
		}
	}
	out, err = exec.Command("pgrep", "-x", "-s", strconv.Itoa(s.session), "app").Output()
	if err != nil {
		s.t.Fatalf("pgrep: %v", err)
	}
	if n := len(strings.Fields(string(out))); n != 1+len(ids) {
		s.t.Errorf("pgrep -x app finds %d processes, want %d", n, 1+len(ids))
	}
}

func TestProcessesAreNamedAfterTheApplication(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	requireNames(s, s.status())

	requireRespawn(s, "v1")
	requireNames(s, s.status())

	s.install(appConfig{Version: "v2", Workers: 3})
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	requireSettled(s)
	requireNames(s, s.status())

	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	requireSettled(s)
	requireNames(s, s.status())
	requireRespawn(s, "v2")
	requireNames(s, s.status())
}
