//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

func TestUnusableRuntimeDirectoryIsAClearError(t *testing.T) {
	s := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: takenPort(t), Name: "main"}}})
	file := filepath.Join(s.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(s.dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	tooLong := filepath.Join(s.dir, strings.Repeat("x", 100))
	for _, tt := range []struct{ name, dir, expected string }{
		{"too long", tooLong, "expected at most 107"},
		{"a file", file, "expected a directory"},
		{"open to all", open, "has mode 0777, expected at most 0755"},
		{"nobody can make it", "/proc/baton", "/proc/baton"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := s.runToEnd([]string{"BATON_RUNTIME_DIR=" + tt.dir})
			requireExit(t, o, 78, "baton: invalid configuration:\n", fmt.Sprintf("BATON_RUNTIME_DIR=%q: runtime directory", tt.dir), tt.dir, tt.expected)
			if n := strings.Count(o.output, "runtime directory"); n != 1 {
				t.Errorf("it is said %d times:\n%s", n, o.output)
			}
		})
	}
	if _, err := os.Stat(tooLong); err == nil {
		t.Error("the directory with the long name was made")
	}
	nobody := asNobody(t, s)
	t.Run("owned by another", func(t *testing.T) {
		dir := filepath.Join(s.dir, "theirs")
		if nobody == nil {
			dir = "/usr" // root's
		} else if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		o := s.runAs(nobody, []string{"BATON_RUNTIME_DIR=" + dir})
		requireExit(t, o, 78, "runtime directory "+dir, "is owned by uid 0, expected uid ")
	})
	t.Run("not writable", func(t *testing.T) {
		parent := filepath.Join(s.dir, "closed")
		if err := os.Mkdir(parent, 0o555); err != nil {
			t.Fatal(err)
		}
		o := s.runAs(nobody, []string{"BATON_RUNTIME_DIR=" + parent + "/run"})
		requireExit(t, o, 78, "runtime directory", parent+"/run", "permission denied")
	})
}

// asNobody lets another user run the binary of s, if this one can do anything
// that it likes; otherwise it returns nil.
func asNobody(t *testing.T, s *service) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, dir := range []string{rootDir, s.dir} {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(rootDir, 0o700) })
	if f, err := os.Create(filepath.Join(s.dir, "starts")); err == nil {
		_ = f.Chmod(0o666)
		f.Close()
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

func TestUnusablePIDFileIsRefusedBeforeAnythingIsDone(t *testing.T) {
	s := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: takenPort(t), Name: "main"}}})
	nobody := asNobody(t, s)
	closed := filepath.Join(s.dir, "closed")
	if err := os.Mkdir(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	const usable = "expected one that exists and that this process can write to"
	for name, c := range map[string]struct {
		path, reason string
		who          *syscall.Credential
	}{
		"no directory": {"/nowhere/app.pid", "directory /nowhere: no such file or directory: " + usable, nil},
		"not writable": {closed + "/app.pid", "directory " + closed + ": permission denied: " + usable, nobody},
		"in a file":    {s.binary + "/app.pid", "directory " + s.binary + ": not a directory: " + usable, nil},
		"a directory":  {closed, "it is a directory: expected a file", nil},
		"too deep":     {s.dir + "/run/more/app.pid", "directory " + s.dir + "/run/more: no such file or directory: " + usable, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.runAs(c.who, []string{"BATON_PID_FILE=" + c.path})
			requireExit(t, o, 78, "baton: invalid configuration:\n", fmt.Sprintf("BATON_PID_FILE=%q: %s", c.path, c.reason))
			requireExit(t, s.runAs(c.who, nil, "PIDFile="+c.path), 78, fmt.Sprintf("PIDFile(%q): %s", c.path, c.reason))
			requireNoRuntimeDir(t, s)
		})
	}
}

// Both are made by the same start.
func TestPIDFileMayBeInTheRuntimeDirectory(t *testing.T) {
	s := deployed(t, appConfig{Version: "v1", Workers: 2, Listeners: []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}})
	path := filepath.Join(s.dir, "run", "app.pid")
	s.env = append(s.env, "BATON_PID_FILE="+path)
	s.launch()
	s.waitServing()
	if b, err := os.ReadFile(path); err != nil || string(b) != fmt.Sprintln(s.masterPID()) {
		t.Errorf("the pid file: %q, %v", b, err)
	}
	requireStops(s)
}

// A release whose pid file cannot be written would be a new master, which refuses.
func TestReleaseWithAnUnusablePIDFileIsRefused(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	cfg := s.cfg
	cfg.Version, cfg.Options.PIDFile = "v2", "/nowhere/app.pid"
	s.install(cfg)
	requireRefused(s, "reload", s.reload, "baton: invalid configuration", `PIDFile("/nowhere/app.pid"): directory /nowhere: no such file or directory`)
	requireCoherent(s, "v1", 2)
}

func TestVariableWithASlipIsWarnedOfOnce(t *testing.T) {
	for mode, n := range map[string]int{"master": 2, "single": 1} {
		t.Run(mode, func(t *testing.T) {
			env := []string{"BATON_MODE=" + mode, "BATON_WORKER=3", "BATON_DATABASE_URL=x", "BATON_USER=nobody"}
			if mode == "master" {
				env[3] = "X="
			}
			s := startService(t, appConfig{Version: "v1", Workers: 2}, withEnv(env...))
			if mode == "master" {
				s.waitServing()
				if v := s.reload(); !v.OK {
					t.Fatalf("%+v", v)
				}
				s.waitStatus("as many workers as the code says", func(st control.Status) bool { return len(serving(st).Processes) == n })
			} else {
				s.waitLog(fmt.Sprintf(`BATON_USER="nobody" has no effect in a single process, which runs as uid %d`, os.Geteuid()))
				s.waitLog("serving")
			}
			s.waitLog("BATON_WORKER is no variable of Baton's and has no effect: is BATON_WORKERS meant?")
			if n := s.countLog("is no variable"); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, strings.Join(s.log.all(), "\n"))
			}
		})
	}
}
