//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// lightLoad is a load that leaves the processors to the deploys.
func lightLoad() load.Config {
	return load.Config{Plans: []load.Plan{
		{Class: load.PerConn, Clients: 1, Think: 10 * time.Millisecond},
		{Class: load.KeepAlive, Clients: 2, Think: 10 * time.Millisecond},
		{Class: load.Pipelined, Clients: 1, Think: 20 * time.Millisecond},
	}}
}

// requireUnnoticed requires that no client noticed anything: no connection
// that is kept was closed either.
func requireUnnoticed(s *service, r load.Report) {
	s.t.Helper()
	requireNothingLost(s, r)
	for class, tally := range r.Classes {
		if tally.Reconnects != 0 || tally.ServerClosedIdle != 0 || tally.ConnectionClose != 0 {
			s.t.Errorf("%s: %d reconnects, %d connections closed while idle, %d told to close",
				class, tally.Reconnects, tally.ServerClosedIdle, tally.ConnectionClose)
		}
	}
}

// requireParts requires that all parts are in the text.
func requireParts(t *testing.T, what, have string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(have, part) {
			t.Errorf("%s is\n\t%q\nwant %q in it", what, have, part)
		}
	}
}

// requireRefused deploys what is on disk, which must be refused for a reason
// with these parts and with this on stderr ("" for nothing at all), and must
// leave everything as it was.
func requireRefused(s *service, name string, deploy func() control.Verdict, stderr string, reason ...string) {
	s.t.Helper()
	before := s.status()
	logged := s.countLog(" ERROR ")
	began := time.Now()
	v := deploy()
	took := time.Since(began)
	if v.OK {
		s.t.Fatalf("%s was taken: %+v", name, v)
	}
	s.t.Logf("%s after %v: %s", name, took.Round(time.Millisecond), v.Reason)
	requireParts(s.t, name+": the reason", v.Reason, reason...)
	// What the reason says already is not said again.
	requireParts(s.t, name+": reason and stderr", v.Reason+"\n"+v.Stderr, stderr)
	if stderr == "" && v.Stderr != "" {
		s.t.Errorf("%s: stderr is %q, want none", name, v.Stderr)
	}
	s.waitProcesses(1 + len(before.Generations[0].Processes))
	after := s.waitStatus(name+": one generation serves", func(st control.Status) bool {
		return st.State == control.StateServing && len(st.Generations) == 1
	})
	if after.Master.PID != before.Master.PID || after.Generations[0].Number != before.Generations[0].Number {
		s.t.Errorf("%s: master %d and generation %d, were %d and %d", name, after.Master.PID,
			after.Generations[0].Number, before.Master.PID, before.Generations[0].Number)
	}
	for i, w := range after.Generations[0].Processes {
		if was := before.Generations[0].Processes[i]; w.PID != was.PID || w.Restarts != was.Restarts {
			s.t.Errorf("%s: worker %s is process %d after %d restarts, was %d after %d",
				name, w.ID, w.PID, w.Restarts, was.PID, was.Restarts)
		}
	}
	if d := after.LastDeploy; d == nil || d.OK || d.Reason != v.Reason {
		s.t.Errorf("%s: the status has the last deploy %+v, want %+v", name, d, v)
	}
	eventually(s.t, waitTime, name+": it is an error in the log", func() bool { return s.countLog(" ERROR ") > logged })
}

// requireDeploys requires that the service takes a good release still, by a
// reload and by an upgrade.
func requireDeploys(s *service) {
	s.t.Helper()
	for _, good := range []struct {
		version string
		deploy  func() control.Verdict
	}{{"good-reload", s.reload}, {"good-upgrade", s.upgrade}} {
		installVersion(s, good.version)
		if v := good.deploy(); !v.OK {
			s.t.Fatalf("%s is refused: %+v", good.version, v)
		}
		requireCoherent(s, good.version, s.cfg.Workers)
	}
}

func TestBadReleaseIsRefusedAndNobodyNotices(t *testing.T) {
	readyTimeout := 500 * time.Millisecond
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails := func(how string) func(*service) {
		return func(s *service) {
			cfg := s.cfg
			cfg.Version, cfg.Fail = how, how
			if how == config.FailNeverReady {
				cfg.Options.ReadyTimeout = &readyTimeout
			}
			s.install(cfg)
		}
	}
	for _, c := range []struct {
		name   string
		spoil  func(*service)
		stderr string
		reason []string
	}{
		{"exits 0", fails(config.FailExit0), "",
			[]string{"worker ", ".1: exit status 0 before it was ready"}},
		{"exits 1", fails(config.FailExit1), "testapp: exits as told",
			[]string{"worker ", ".1: exit status 1 before it was ready"}},
		{"panics at start", fails(config.FailPanic), "panic: testapp: panics as told",
			[]string{"worker ", ".1: exit status 2 before it was ready"}},
		{"build returns an error", fails(config.FailBuild), "testapp: build fails as told",
			[]string{"worker ", ": testapp: build fails as told"}},
		{"build panics", fails(config.FailBuildPanic), "panic: testapp: build panics as told",
			[]string{"worker ", ": exit status 2 before it was ready"}},
		{"answers 500 to the ready check", func(s *service) {
			cfg := s.cfg
			cfg.Fail, cfg.Options.ReadyCheck = config.FailRequests, "/version"
			s.install(cfg)
		}, "testapp: fails as told", []string{"worker ", ": ready check /version: status 500: testapp: fails as told"}},
		{"never ready", fails(config.FailNeverReady), "testapp: waits as told",
			[]string{"ready within 500ms"}},
		{"not executable", func(s *service) { s.installFile(testapp, 0o644) }, "",
			[]string{"new binary ", "/app is not executable (mode -rw-r--r--)"}},
		{"missing", func(s *service) { s.uninstall() }, "",
			[]string{"new binary: open ", "/app: no such file or directory"}},
		{"a text file", func(s *service) { s.installFile(text, 0o755) }, "",
			[]string{"start ", "/app: exec format error"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2})
			finish := s.start(lightLoad())
			c.spoil(s)
			requireRefused(s, "reload", s.reload, c.stderr, c.reason...)
			requireRefused(s, "upgrade", s.upgrade, c.stderr, c.reason...)
			requireUnnoticed(s, finish())
			requireDeploys(s)
		})
	}
}

func TestReleaseThatHangsBeforeRunIsRefused(t *testing.T) {
	readyTimeout, killTimeout := 1500*time.Millisecond, 300*time.Millisecond
	s := newService(t, appConfig{Version: "v1", Workers: 2,
		Options: appOptions{ReadyTimeout: &readyTimeout, KillTimeout: &killTimeout}})
	s.cfg.Options.ReadyTimeout = nil // good releases ask for the default
	finish := s.start(lightLoad())
	cfg := s.cfg
	cfg.Fail = config.FailHang
	s.install(cfg)
	requireRefused(s, "reload", s.reload, "testapp: hangs as told", "ready within 1.5s")
	requireRefused(s, "upgrade", s.upgrade, "testapp: hangs as told", "ready within 1.5s")
	requireUnnoticed(s, finish())
	requireDeploys(s)
}

// Its workers are well, so that it is up to the new master to fail.
func TestNewMasterThatFailsIsRefused(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	finish := s.start(lightLoad())
	for _, c := range []struct{ how, stderr, reason string }{
		{config.FailExit0, "", "exited"},
		{config.FailExit1, "testapp: exits as told", "exit status 1"},
		{config.FailPanic, "panic: testapp: panics as told", "exit status 2"},
	} {
		cfg := s.cfg
		cfg.Version, cfg.Fail = c.how, config.Master+c.how
		s.install(cfg)
		requireRefused(s, cfg.Fail, s.upgrade, c.stderr, c.reason)
	}
	requireUnnoticed(s, finish())
	requireDeploys(s)
}

// It costs ReadyTimeout and the 10 s that a new master gets beyond that, so
// the short tier leaves it to TestTermEndsAnUpgradeThatHangs.
func TestNewMasterThatHangsIsKilled(t *testing.T) {
	if !*long {
		t.Skip("takes 11 s: -long")
	}
	readyTimeout := time.Second
	s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{ReadyTimeout: &readyTimeout}})
	s.cfg.Options.ReadyTimeout = nil
	finish := s.start(lightLoad())
	cfg := s.cfg
	cfg.Fail = config.Master + config.FailHang
	s.install(cfg)
	requireRefused(s, "upgrade", s.upgrade, "testapp: hangs as told", "timed out")
	requireUnnoticed(s, finish())
	requireDeploys(s)
}
