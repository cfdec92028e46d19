//go:build linux

package integration

import (
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// A release that is ready, serves, and then dies again and again is taken back,
// whichever way it came.
func TestReleaseThatCrashesIsRolledBack(t *testing.T) {
	t.Parallel() // its load leaves room for others
	for name, deploy := range map[string]func(*service) control.Verdict{
		"reload": (*service).reload, "upgrade": (*service).upgrade,
	} {
		t.Run(name, func(t *testing.T) {
			bake := 30 * time.Second
			s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{BakeTime: &bake}})
			cfg := s.cfg
			cfg.Version, cfg.Fail = "v2", config.FailLater
			s.install(cfg)
			v := deploy(s)
			if !v.OK {
				t.Fatalf("%+v", v)
			}
			st := s.waitStatusFor(time.Minute, "a rollback", func(st control.Status) bool {
				return st.LastDeploy != nil && st.LastDeploy.Action == control.ActionRollback
			})
			if d := st.LastDeploy; !d.OK || d.Generation != v.Generation+1 {
				t.Errorf("rollback: %+v, the deploy was %+v", d, v)
			}
			if r := s.get("/version"); r.version != "v1" {
				t.Errorf("version %q serves", r.version)
			}
			s.waitLog("fails crashes=3")
			s.waitLog("rolled back, the next reload takes the binary on disk again")
			s.waitStatus("only the release of before", oneGeneration)
			requireDeploys(s)
		})
	}
}

// A few deaths are no reason, and neither is any after BakeTime or when there is
// nothing to go back to.
func TestReleaseIsNotRolledBackWithoutReason(t *testing.T) {
	bake := time.Nanosecond
	s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{BakeTime: &bake}})
	killAll := func() {
		for _, w := range s.workers() {
			signalPID(t, w.PID, 9)
			waitReplaced(s, w)
		}
	}
	killAll() // the first generation: there is nothing before it
	killAll()
	cfg := s.cfg
	cfg.Version = "v2"
	s.install(cfg)
	if v := s.reload(); !v.OK {
		t.Fatalf("%+v", v)
	}
	killAll() // not young any more
	killAll()
	if r := s.get("/version"); r.version != "v2" {
		t.Errorf("version %q serves", r.version)
	}
	if n := s.countLog("rolled back"); n != 0 {
		t.Errorf("%d rollbacks", n)
	}
}

func TestOperatorRollsBack(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	rollback := func() control.Verdict {
		v, err := s.client.Rollback(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := rollback(); v.OK || v.Reason != "there is no earlier release to go back to" {
		t.Errorf("before any deploy: %+v", v)
	}
	finish := s.start(lightLoad())
	for _, c := range []struct {
		version string
		deploy  func() control.Verdict
	}{{"v2", s.reload}, {"v3", s.upgrade}} {
		cfg := s.cfg
		cfg.Version = c.version
		s.install(cfg)
		if v := c.deploy(); !v.OK {
			t.Fatalf("%+v", v)
		}
		s.uninstall() // what is on disk does not matter
		if v := rollback(); !v.OK {
			t.Fatalf("%+v", v)
		}
		if r := s.get("/version"); r.version != "v1" {
			t.Errorf("version %q serves", r.version)
		}
		if v := rollback(); v.OK {
			t.Errorf("a second time: %+v", v)
		}
	}
	s.install(s.cfg)
	requireUnnoticed(s, finish())
	requireDeploys(s)
	checkLedger(t, s.status())
}
