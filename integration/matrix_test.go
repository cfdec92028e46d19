//go:build linux

package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// Every way to deploy a release with every way of it to fail, by signals and under
// load. What became of each is logged as a table.

// badRelease is a release that fails.
type badRelease struct {
	failure string
	spoil   func(*appConfig)
	reason  string // a part of it
	taken   bool   // it is ready, and goes back later
}

var badReleases = []badRelease{
	{"exits before ready", func(c *appConfig) { c.Fail = config.FailExit1 },
		".1: exit status 1 before it was ready", false},
	{"hangs before ready", func(c *appConfig) { c.Fail = config.FailHang },
		"ready within 2s", false},
	{"takes longer than ReadyTimeout", func(c *appConfig) {
		c.BuildTakes, c.Options.ReadyTimeout = time.Minute, new(700*time.Millisecond)
	}, "ready within 700ms", false},
	{"answers 500 to the ready check", func(c *appConfig) {
		c.Fail, c.Options.ReadyCheck = config.FailRequests, "/version"
	}, ": ready check /version: status 500", false},
	{"crashes 2 s after it was ready", func(c *appConfig) { c.Fail = config.FailLater },
		"crashed again and again", true},
}

func TestEveryDeployOfEveryBadReleaseEndsWell(t *testing.T) {
	var mu sync.Mutex
	var rows []string
	var all sync.WaitGroup
	for name, sig := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR2": syscall.SIGUSR2} {
		for _, bad := range badReleases {
			all.Go(func() { // all at once, since they wait, mostly
				t.Run(name+" "+bad.failure, func(t *testing.T) {
					row := deployBad(t, sig, bad)
					mu.Lock()
					defer mu.Unlock()
					rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", name, bad.failure, row))
				})
			})
		}
	}
	all.Wait()
	slices.Sort(rows)
	t.Logf("\n| deploy | failure | outcome | reason given | serving afterwards | lost |\n|---|---|---|---|---|---|\n%s", strings.Join(rows, ""))
	if len(rows) != 2*len(badReleases) {
		t.Errorf("%d rows", len(rows))
	}
}

// deployBad returns the rest of the row.
func deployBad(t *testing.T, sig syscall.Signal, bad badRelease) string {
	s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{
		BakeTime: new(30 * time.Second), KillTimeout: new(500 * time.Millisecond),
		ReadyTimeout: new(2 * time.Second), // of who hangs before its own are known
	}})
	before := s.status()
	finish := s.start(lightLoad())
	cfg := s.cfg
	cfg.Version, cfg.Options.ReadyTimeout = "v2", nil
	bad.spoil(&cfg)
	s.install(cfg)
	s.signal(sig)

	action, outcome := control.ActionReload, "refused"
	switch {
	case bad.taken:
		action, outcome = control.ActionRollback, "taken, and rolled back"
	case sig == syscall.SIGUSR2:
		action = control.ActionUpgrade
	}
	st := s.waitStatusFor(time.Minute, "there is a verdict", func(st control.Status) bool {
		return st.State == control.StateServing && st.LastDeploy != nil && st.LastDeploy.Action == action
	})
	v := *st.LastDeploy
	if v.OK != bad.taken || !strings.Contains(v.Reason, bad.reason) {
		t.Errorf("verdict %+v, want %q in the reason", v, bad.reason)
	}
	st = requireCoherent(s, "v1", 2)
	g, was := serving(st), serving(before)
	if replaced := st.Master.PID != before.Master.PID; replaced != (bad.taken && sig == syscall.SIGUSR2) {
		t.Errorf("master %d, was %d", st.Master.PID, before.Master.PID)
	}
	report := finish()
	if bad.taken {
		if g.Number != was.Number+2 {
			t.Errorf("generation %d serves, want %d", g.Number, was.Number+2)
		}
		requireOnlyCut(s, report, was.Number+1)
	} else {
		if g.Number != was.Number || g.Processes[0].PID != was.Processes[0].PID || g.Processes[1].PID != was.Processes[1].PID {
			t.Errorf("serving %+v, were %+v", g, was)
		}
		requireUnnoticed(s, report)
	}
	requireStops(s)
	reason, _, _ := strings.Cut(v.Reason, "\n")
	return fmt.Sprintf("%s | %s | generation %d, %s | %d of %d", outcome, reason, g.Number, "v1", report.Lost(), report.Requests())
}

var (
	diedLine    = regexp.MustCompile(`worker died worker=(\d+)\.\d+ .* cut=(\d+) `)
	drainedLine = regexp.MustCompile(`generation (\d+) drained .* cut=(\d+) `)
)

// requireOnlyCut requires that nothing was lost but with the connections that
// workers of one generation had open when they died.
func requireOnlyCut(s *service, r load.Report, generation int) {
	s.t.Helper()
	cut := 0
	for _, line := range s.log.all() {
		for _, pattern := range []*regexp.Regexp{diedLine, drainedLine} {
			if m := pattern.FindStringSubmatch(line); m != nil {
				n, _ := strconv.Atoi(m[2])
				if m[1] != strconv.Itoa(generation) && n > 0 {
					s.t.Errorf("another generation has cut: %s", line)
				}
				cut += n
			}
		}
	}
	failures := 0
	for class, tally := range r.Classes {
		failures += len(tally.Errors)
		if tally.OK == 0 || tally.Timeouts+tally.Refused > 0 {
			s.t.Errorf("%s: %d answered, %d timed out, %d refused", class, tally.OK, tally.Timeouts, tally.Refused)
		}
	}
	if failures > cut {
		s.t.Errorf("%d connections lost requests, the workers that died had %d open\n%s", failures, cut, r)
	}
}
