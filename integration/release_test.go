//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// What a release may change with one HUP: listeners, workers, environment.

func TestHupTakesListenersAndWorkersOfTheRelease(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	main := s.cfg.Listeners
	extra := filepath.Join(s.dir, "extra.sock")
	first := s.masterPID()
	finish := s.start(load.Config{SlowFor: 300 * time.Millisecond,
		Plans: []load.Plan{{Class: load.PerConn, Clients: 2}, {Class: load.Slow, Clients: 2}}})

	cfg := s.cfg
	cfg.Version, cfg.Workers = "v2", 3
	cfg.Listeners = append(main[:1:1],
		config.Listener{Network: "unix", Addr: extra, Name: "extra"},
		config.Listener{Network: "tcp", Addr: "127.0.0.1:0", Name: "second"})
	s.install(cfg)
	s.signal(syscall.SIGHUP)
	st := requireCoherent(s, "v2", 3)
	if st.Master.PID == first || st.Master.Upgrades != 1 {
		t.Errorf("master %d after %d upgrades, was %d: want one upgrade", st.Master.PID, st.Master.Upgrades, first)
	}
	s.waitLog("the reload becomes an upgrade")
	for _, name := range []string{"main", "extra", "second"} {
		addr := s.addrOf(name)
		for range 2 * cfg.Workers {
			if a, err := ask(addr, "/version", waitTime); err != nil || a.version != "v2" {
				t.Fatalf("listener %s at %s: %+v, %v", name, addr, a, err)
			}
		}
	}
	if addr := s.addrOf("main"); addr != s.addr {
		t.Errorf("main is at %s, was at %s", addr, s.addr)
	}
	second := s.addrOf("second")

	cfg.Version, cfg.Workers, cfg.Listeners = "v3", 1, main
	s.install(cfg)
	s.signal(syscall.SIGHUP)
	last := requireCoherent(s, "v3", 1)
	if last.Master.PID == st.Master.PID || last.Master.Upgrades != 2 {
		t.Errorf("master %d after %d upgrades, was %d", last.Master.PID, last.Master.Upgrades, st.Master.PID)
	}
	if len(last.Listeners) != 1 || last.Listeners[0].Name != "main" {
		t.Errorf("listeners %+v, want main alone", last.Listeners)
	}
	if _, err := os.Lstat(extra); err == nil {
		t.Errorf("%s is left", extra)
	}
	if a, err := ask(second, "/version", time.Second); err == nil {
		t.Errorf("the removed listener answers %+v", a)
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

func TestWorkersAloneNeedNoUpgrade(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv("GOMAXPROCS=8"))
	master := s.masterPID()
	requireShares(s, 4)
	finish := s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 2}}})
	for _, n := range []int{4, 1, 3} {
		cfg := s.cfg
		cfg.Version, cfg.Workers = fmt.Sprintf("with-%d", n), n
		s.install(cfg)
		s.signal(syscall.SIGHUP)
		if st := requireCoherent(s, cfg.Version, n); st.Master.PID != master {
			t.Errorf("%d workers: master %d, was %d", n, st.Master.PID, master)
		}
		requireShares(s, 8/n)
	}
	requireNothingLost(s, finish())
}

// Without GOMAXPROCS the processors of the machine are shared out.
func TestWorkersShareTheProcessors(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 1})
	all, _ := strconv.Atoi(variable(t, s.workers()[0].PID, "GOMAXPROCS"))
	if all < 1 || all > runtime.NumCPU() {
		t.Fatalf("a single worker has GOMAXPROCS=%d, of %d CPUs", all, runtime.NumCPU())
	}
	cfg := s.cfg
	cfg.Version, cfg.Workers = "v2", 2
	s.install(cfg)
	s.signal(syscall.SIGHUP)
	requireCoherent(s, "v2", 2)
	requireShares(s, max(1, all/2))
}

// requireShares requires that every worker was started with GOMAXPROCS=n.
func requireShares(s *service, n int) {
	s.t.Helper()
	for _, w := range s.workers() {
		if have := variable(s.t, w.PID, "GOMAXPROCS"); have != strconv.Itoa(n) {
			s.t.Errorf("worker %s has GOMAXPROCS=%s, want %d", w.ID, have, n)
		}
	}
}

// variable reads the environment that a process was started with.
func variable(t *testing.T, pid int, name string) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for kv := range strings.SplitSeq(string(raw), "\x00") {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// envFile is a service with an EnvFile that sets GREETING.
type envFile struct {
	*service
	path string
}

func newEnvFile(t *testing.T, text string) envFile {
	t.Helper()
	f := envFile{path: filepath.Join(t.TempDir(), "app.env")}
	f.write(t, text)
	f.service = newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{EnvFile: f.path}},
		withEnv("GREETING=inherited"))
	return f
}

func (f envFile) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// requireGreeting asks every worker.
func (f envFile) requireGreeting(want string) {
	f.t.Helper()
	for range f.serving().Workers {
		if a := f.get("/env?name=GREETING"); a.body != want {
			f.t.Errorf("worker %s sees %q, want %q", a.worker, a.body, want)
		}
	}
}

func TestEnvFileIsReadByEachGeneration(t *testing.T) {
	s := newEnvFile(t, "GREETING=first\n")
	s.requireGreeting("first")
	s.write(t, "GREETING=second\n")
	s.requireGreeting("first") // nobody asked for a deploy
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	s.requireGreeting("second")
	s.write(t, "GREETING=third\n")
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	s.requireGreeting("third")

	s.write(t, "GREETING=fourth\nBATON_WORKERS=3\n") // wins over the release
	s.signal(syscall.SIGHUP)
	requireCoherent(s.service, "v1", 3)
	s.requireGreeting("fourth")
}

func TestBadEnvFileIsRefusedAndNobodyNotices(t *testing.T) {
	s := newEnvFile(t, "GREETING=good\n")
	finish := s.start(lightLoad())
	for _, c := range []struct {
		name, text, stderr string
		reason             []string
	}{
		{"no assignment", "GREETING=bad\nno assignment at all\n", "", []string{s.path, "line 2"}},
		{"bad value", "BATON_WORKERS=many\n", `BATON_WORKERS="many": expected a whole number`, []string{"exit status 78"}},
	} {
		s.write(t, c.text)
		requireRefused(s.service, c.name+", reload", s.reload, c.stderr, c.reason...)
		requireRefused(s.service, c.name+", upgrade", s.upgrade, c.stderr, c.reason...)
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	requireRefused(s.service, "missing, reload", s.reload, "", s.path, "no such file or directory")
	requireRefused(s.service, "missing, upgrade", s.upgrade, "", s.path, "no such file or directory")
	requireUnnoticed(s.service, finish())
	s.requireGreeting("good")
}

// A respawn is of its generation: a file that is changed, bad or gone since is
// none of its business.
func TestRespawnHasTheEnvironmentOfItsGeneration(t *testing.T) {
	s := newEnvFile(t, "GREETING=first\n")
	for i, spoil := range []func() error{
		func() error { return os.WriteFile(s.path, []byte("GREETING=second\n"), 0o600) },
		func() error { return os.WriteFile(s.path, []byte("BATON_WORKERS=many\n"), 0o600) },
		func() error { return os.Remove(s.path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		signalPID(t, s.workers()[0].PID, syscall.SIGKILL)
		s.waitStatus("the worker is replaced", func(st control.Status) bool {
			g := serving(st)
			return g != nil && allServe(*g) && g.Processes[0].Restarts+g.Processes[1].Restarts == i+1
		})
		s.requireGreeting("first")
	}
}
