//go:build linux

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// systemdHost is a systemd of the test's own, in namespaces for all but the
// network and the file system below /tmp.
type systemdHost struct {
	t    *testing.T
	pid  int // of its PID 1
	dir  string
	port int // of the application
}

const systemdPath = "/usr/lib/systemd/systemd"

// bootTime bounds the boot, which takes half a second on an idle machine.
const bootTime = 30 * time.Second

// newSystemdHost boots it, and kills it at the end of the test.
func newSystemdHost(t *testing.T) *systemdHost {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a systemd in namespaces of its own")
	}
	if _, err := os.Stat(systemdPath); err != nil {
		t.Skip("needs Debian's package systemd: ", err)
	}
	dir, err := os.MkdirTemp(rootDir, "systemd-")
	if err != nil {
		t.Fatal(err)
	}
	h := &systemdHost{t: t, dir: dir, port: freePort(t)}
	script, err := filepath.Abs("testdata/systemd.sh")
	if err != nil {
		t.Fatal(err)
	}
	group := filepath.Base(dir)
	cmd := exec.Command(script, group)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.journal())
		}
		h.halt(cmd)
		removeGroups(t, group)
		_ = os.RemoveAll(dir)
	})
	eventually(t, bootTime, "systemd runs", func() bool {
		ps := findProcesses(func(p process) bool { return p.PPID == cmd.Process.Pid && p.exe() == systemdPath })
		if len(ps) == 0 {
			return false
		}
		h.pid = ps[0].PID
		out, _ := h.run("systemctl", "is-active", "test.target")
		return out == "active"
	})
	return h
}

// halt kills systemd, which ignores TERM, and with it all that it started.
func (h *systemdHost) halt(cmd *exec.Cmd) {
	if h.pid > 0 {
		_ = syscall.Kill(h.pid, syscall.SIGKILL)
	} else {
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait()
}

// removeGroups removes the cgroups of a systemd that is gone.
func removeGroups(t *testing.T, group string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", "/sys/fs/cgroup/*/*/", "/sys/fs/cgroup/*/*/*/"} {
		roots, _ := filepath.Glob(pattern + group)
		for _, root := range roots {
			var dirs []string
			_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for i := len(dirs) - 1; i >= 0; i-- {
				eventually(t, 5*time.Second, "the cgroup "+dirs[i]+" is removed", func() bool {
					err := syscall.Rmdir(dirs[i])
					return err == nil || err == syscall.ENOENT
				})
			}
		}
	}
}

// run runs a command inside and returns what it wrote.
func (h *systemdHost) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), verdictTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(h.pid), "-p", "-m", "-C", "-i", "-u", "--"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// must is run for what has to succeed.
func (h *systemdHost) must(args ...string) string {
	h.t.Helper()
	out, err := h.run(args...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// show returns a property of a unit.
func (h *systemdHost) show(unit, property string) string {
	h.t.Helper()
	return h.must("systemctl", "show", "-P", property, unit)
}

func (h *systemdHost) waitFor(unit, property, want string) {
	h.t.Helper()
	got := ""
	for deadline := time.Now().Add(waitTime); got != want; time.Sleep(10 * time.Millisecond) {
		if got = h.show(unit, property); got != want && time.Now().After(deadline) {
			h.t.Fatalf("%s of %s is %q after %v, want %q", property, unit, got, waitTime, want)
		}
	}
}

// journal is what systemd and its units have written.
func (h *systemdHost) journal(args ...string) string {
	out, err := h.run(append([]string{"journalctl", "--no-pager", "-o", "short-precise", "-n", "120"}, args...)...)
	if err != nil {
		return fmt.Sprintf("no journal: %v\n%s", err, out)
	}
	return "journal:\n" + out
}

// writeUnit writes a unit, or a drop-in for one.
func (h *systemdHost) writeUnit(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.root(), "run/systemd/system", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// root is the root directory as systemd sees it.
func (h *systemdHost) root() string { return fmt.Sprintf("/proc/%d/root", h.pid) }

// app is a service of a systemdHost, from the files in examples/systemd.
type app struct {
	*service // not all of its methods: the processes are in a session of systemd's
	h        *systemdHost
	unit     string
}

// newApp installs units of examples/systemd, with the test's own paths, and a
// release for them. settings are lines for the service's own section beside.
func (h *systemdHost) newApp(cfg appConfig, settings string, units ...string) *app {
	h.t.Helper()
	s := &service{
		t: h.t, cfg: cfg, app: testapp, dir: h.dir, binary: filepath.Join(h.dir, "app"), log: newLogBuffer(),
		addr:   net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port)),
		client: control.NewClient(filepath.Join(h.root(), "run/app/control.sock")),
	}
	s.install(cfg)
	replace := strings.NewReplacer("/usr/local/bin/app", s.binary, "/usr/local/bin/batonctl", ctlPath(h.t),
		"127.0.0.1:8080", s.addr)
	for _, name := range units {
		text, err := os.ReadFile(filepath.Join("../examples/systemd", name))
		if err != nil {
			h.t.Fatal(err)
		}
		h.writeUnit(name, replace.Replace(string(text)))
		// What other units a machine has is not there.
		h.writeUnit(name+".d/test.conf", "[Unit]\nDefaultDependencies=no\n")
	}
	unit := units[0]
	h.writeUnit(unit+".d/settings.conf", "[Service]\nEnvironment=GORACE=atexit_sleep_ms=0\n"+settings)
	h.must("systemctl", "daemon-reload")
	return &app{service: s, h: h, unit: unit}
}

// mainPID is the master, as systemd knows it.
func (a *app) mainPID() int {
	a.t.Helper()
	pid, err := strconv.Atoi(a.h.show(a.unit, "MainPID"))
	if err != nil {
		a.t.Fatal(err)
	}
	return pid
}

// checkMainPID checks that systemd knows the master, right away.
func (a *app) checkMainPID() int {
	a.t.Helper()
	st := a.waitStatus("a master answers", func(control.Status) bool { return true })
	if pid := a.mainPID(); pid != st.Master.PID {
		a.t.Fatalf("MainPID is %d, but the master is %d", pid, st.Master.PID)
	}
	return st.Master.PID
}

// upgrade deploys with batonctl and waits until systemd waits for the new master
// as it does for a child, which it sees a moment later.
func (a *app) upgrade() {
	a.t.Helper()
	before := a.mainPID()
	count := func() int { return strings.Count(a.h.journal("-n", "all"), "which is not our child") }
	seen := count()
	out := a.h.must("env", "RUNTIME_DIRECTORY=/run/app", ctlPath(a.t), "upgrade")
	st := a.waitStatus("another master, after: "+out, func(st control.Status) bool { return st.Master.PID != before })
	// Once for the new master, once for the one that stood in for it.
	eventually(a.t, waitTime, "systemd has the new master for its child", func() bool {
		return count() >= seen+2 && a.mainPID() == st.Master.PID
	})
	if got := a.h.show(a.unit, "ActiveState"); got != "active" {
		a.t.Fatalf("the service is %s after an upgrade", got)
	}
}

// waitMaster waits for a master that is not the one before, and serves.
func (a *app) waitMaster(before int) {
	a.t.Helper()
	a.waitStatusFor(startTime, "another master serves", func(st control.Status) bool {
		return st.Master.PID != before && st.State == control.StateServing
	})
	a.h.waitFor(a.unit, "ActiveState", "active")
}

func ctlPath(t *testing.T) string {
	t.Helper()
	path, err := batonctl()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
