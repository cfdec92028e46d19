//go:build linux

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

func TestControlSocketIsForItsOwnerAlone(t *testing.T) {
	s := newService(t, appConfig{Workers: 1})
	run := filepath.Join(s.dir, "run")
	check := func(path string, want os.FileMode) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	check(run, os.ModeDir|0o700)
	check(run+"/control.sock", os.ModeSocket|0o600)
	check(run+"/lock", 0o600)
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade: %+v", v)
	}
	check(run+"/control.sock", os.ModeSocket|0o600)
	s.stop()
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if left, err := os.ReadDir(run); err == nil {
		t.Errorf("the runtime directory is left, with %v", left)
	}
}

// Scripts read the document, so its fields are checked by their names.
func TestStatusTellsAll(t *testing.T) {
	s := newService(t, appConfig{Workers: 2})
	for range 4 {
		s.get("/")
	}
	s.waitStatus("no connection is open", func(st control.Status) bool { return open(serving(st)) == 0 })
	killed := s.workers()[0]
	signalPID(t, killed.PID, syscall.SIGKILL)
	waitReplaced(s, killed)

	ctx, cancel := deadline(waitTime)
	defer cancel()
	raw, err := s.client.StatusJSON(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.binary)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := field(doc, "listeners.0.address").(string)
	if host != s.addr {
		t.Errorf("listeners.0.address: %q, want %s", host, s.addr)
	}
	for path, want := range map[string]any{
		"schema":                               1.0,
		"state":                                "serving",
		"accepting":                            true,
		"pending":                              0.0,
		"master.pid":                           float64(s.session),
		"master.runtime_dir":                   filepath.Join(s.dir, "run"),
		"master.upgrades":                      0.0,
		"master.binary.path":                   s.binary,
		"master.binary.size":                   float64(info.Size()),
		"master.binary.mtime":                  stamp(info.ModTime()),
		"master.binary.module":                 "github.com/baton-go/baton",
		"listeners.0.name":                     "main",
		"listeners.0.network":                  "tcp",
		"listeners.0.accepted":                 4.0,
		"generations.0.number":                 1.0,
		"generations.0.state":                  "serving",
		"generations.0.workers":                2.0,
		"generations.0.binary.path":            s.binary,
		"generations.0.binary.size":            float64(info.Size()),
		"generations.0.binary.mtime":           stamp(info.ModTime()),
		"generations.0.ledger.accepted":        4.0,
		"generations.0.ledger.acknowledged":    4.0,
		"generations.0.ledger.pending":         0.0,
		"generations.0.ledger.redispatched":    0.0,
		"generations.0.ledger.cut":             0.0,
		"generations.0.processes.0.id":         "1.1",
		"generations.0.processes.0.slot":       1.0,
		"generations.0.processes.0.state":      "serving",
		"generations.0.processes.0.open":       0.0,
		"generations.0.processes.0.dispatched": 0.0,
		"generations.0.processes.0.unacked":    0.0,
		"generations.0.processes.0.restarts":   1.0,
		"generations.0.processes.0.last_exit":  "signal: killed",
		"generations.0.processes.1.dispatched": 2.0,
		"generations.0.processes.1.restarts":   0.0,
	} {
		if have := field(doc, path); have != want {
			t.Errorf("%s: %v, want %v", path, have, want)
		}
	}
	for _, path := range []string{
		"master.started", "master.fds", "master.goroutines", "master.binary.go_version", "master.binary.version",
		"generations.0.started", "generations.0.age_seconds", "generations.0.binary.go_version", "generations.0.ledger.refused",
		"generations.0.processes.0.pid", "generations.0.processes.0.started", "generations.0.processes.1.id",
	} {
		if have := field(doc, path); have == nil || have == 0.0 || have == "" {
			t.Errorf("%s: %v", path, have)
		}
	}
	if t.Failed() {
		t.Logf("%s", raw)
	}

	v := s.reload()
	last := s.status().LastDeploy
	if last == nil || !last.OK || last.Action != control.ActionReload || last.Generation != v.Generation {
		t.Errorf("last deploy %+v, after %+v", last, v)
	}
}

// field follows a path into a document.
func field(doc any, path string) any {
	for _, name := range strings.Split(path, ".") {
		switch d := doc.(type) {
		case map[string]any:
			doc = d[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(d) {
				return nil
			}
			doc = d[i]
		default:
			return nil
		}
	}
	return doc
}

// stamp is a time as JSON has it.
func stamp(t time.Time) string {
	text, _ := t.MarshalText()
	return string(text)
}

func TestReadinessFailsDuringStopDelayWhileRequestsAreServed(t *testing.T) {
	s := newService(t, appConfig{Workers: 2, Options: appOptions{StopDelay: new(tier(time.Second, 3*time.Second))}})
	if err := s.ready(); err != nil {
		t.Fatalf("not ready: %v", err)
	}
	began := time.Now()
	s.signal(syscall.SIGTERM)
	var why error
	eventually(t, waitTime, "readiness fails", func() bool { why = s.ready(); return why != nil })
	var se *control.StatusError
	if !errors.As(why, &se) || se.Code != 503 {
		t.Errorf("readiness fails with %v, want a 503", why)
	}
	served := 0
	for time.Since(began) < tier(700*time.Millisecond, 2*time.Second) {
		if a := s.get("/"); a.status != 200 {
			t.Fatalf("%+v", a)
		}
		served++
	}
	ctx, cancel := deadline(waitTime)
	defer cancel()
	if err := s.client.Healthy(ctx); err != nil {
		t.Errorf("not healthy: %v", err)
	}
	if st := s.status(); st.State != control.StateStopping {
		t.Errorf("state %s", st.State)
	}
	if code := s.exitCode(); code != 0 || served == 0 {
		t.Errorf("exit status %d, %d requests served", code, served)
	}
	if took := time.Since(began); took < *s.cfg.Options.StopDelay {
		t.Errorf("it ended after %v, before StopDelay was over", took)
	}
}

// batonctl is built once.
var batonctl = sync.OnceValues(func() (string, error) {
	path := filepath.Join(rootDir, "batonctl")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/batonctl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build batonctl: %w\n%s", err, out)
	}
	return path, nil
})

// ctl runs batonctl.
func ctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path, err := batonctl()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := deadline(verdictTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("batonctl %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

func TestBatonctlExitsWithTheVerdict(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	run := filepath.Join(s.dir, "run")
	check := func(args string, code int, stdout, stderr string) {
		t.Helper()
		c, o, e := ctl(t, append([]string{"--runtime-dir", run}, strings.Fields(args)...)...)
		if c != code || !strings.Contains(o, stdout) || !strings.Contains(e, stderr) || (stderr == "") != (e == "") {
			t.Errorf("batonctl %s: exit status %d, want %d\nstdout: %s\nstderr: %s", args, c, code, o, e)
		}
	}
	check("status", 0, fmt.Sprintf("serving  master %d", s.session), "")
	check("status --json", 0, `"schema": 1`, "")
	check("reload", 0, "reload: done, generation 2", "")
	check("scale +1", 0, "workers=3", "")
	check("scale 0", 2, "", "expected 1 or more")

	bad := s.cfg
	bad.Fail = config.FailExit1
	s.install(bad)
	for _, action := range []string{"reload", "upgrade"} {
		check(action, 1, "", action+" refused: worker ")
		check(action, 1, "", "stderr of the candidate:\ntestapp: exits as told")
	}
	good := s.cfg
	good.Version = "v2"
	s.install(good)
	master := s.masterPID()
	check("upgrade", 0, "upgrade: done, generation", "")
	// It exits when the new master serves, and answers.
	if now := s.masterPID(); now == master {
		t.Errorf("the master is %d as before", now)
	}
	if a := s.get("/version"); a.version != "v2" || len(s.workers()) != 3 {
		t.Errorf("after the upgrade %+v, %d workers", a, len(s.workers()))
	}
	check("stop", 0, "stop: done", "")
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	check("status", 3, "", "no service reached")
	check("reload", 3, "", "no service reached")
}

// atOnce asks n times at the same time.
func atOnce(s *service, n int, ask func(context.Context) (control.Verdict, error)) []control.Verdict {
	s.t.Helper()
	ctx, cancel := deadline(verdictTime)
	defer cancel()
	verdicts, errs := make([]control.Verdict, n), make([]error, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() { verdicts[i], errs[i] = ask(ctx) })
	}
	clients.Wait()
	if err := errors.Join(errs...); err != nil {
		s.t.Errorf("not all got a verdict: %v", err)
	}
	return verdicts
}

func TestConcurrentReloadsAllGetAVerdict(t *testing.T) {
	const clients = 5
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	cfg := s.cfg
	cfg.Version = "v2"
	s.install(cfg)
	for _, v := range atOnce(s, clients, s.client.Reload) {
		if !v.OK || v.Action != control.ActionReload || v.Generation < 2 || v.Generation > 1+clients {
			t.Errorf("%+v", v)
		}
	}
	if a := s.get("/version"); a.version != "v2" {
		t.Errorf("%s serves", a.version)
	}
	n := s.serving().Number

	cfg.Fail = config.FailExit1
	s.install(cfg)
	for _, v := range atOnce(s, clients, s.client.Reload) {
		if v.OK || !strings.Contains(v.Reason, "exit status 1") || !strings.Contains(v.Stderr, "exits as told") {
			t.Errorf("%+v", v)
		}
	}
	if g := s.serving(); g.Number != n || s.get("/version").version != "v2" {
		t.Errorf("after refused reloads: %+v", g)
	}
}

func TestReloadsDuringAnUpgradeAllGetAVerdict(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	first := s.masterPID()
	cfg := s.cfg
	cfg.Version = "v2"
	s.install(cfg)
	ask := make(chan func(context.Context) (control.Verdict, error), 5)
	for _, f := range []func(context.Context) (control.Verdict, error){s.client.Upgrade, s.client.Reload, s.client.Reload, s.client.Upgrade, s.client.Reload} {
		ask <- f
	}
	for _, v := range atOnce(s, cap(ask), func(ctx context.Context) (control.Verdict, error) { return (<-ask)(ctx) }) {
		if !v.OK {
			t.Errorf("%+v", v)
		}
	}
	// A wish that was passed on is still being fulfilled.
	st := s.waitStatus("one generation serves", func(st control.Status) bool {
		return st.State == control.StateServing && len(st.Generations) == 1 && complete(st)
	})
	if st.Master.PID == first || s.get("/version").version != "v2" {
		t.Errorf("master %d, was %d; %s serves", st.Master.PID, first, s.get("/version").version)
	}
	checkLedger(t, st)
}
