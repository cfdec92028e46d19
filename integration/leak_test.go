//go:build linux

package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

// footprint is what a master may not have more and more of.
type footprint struct {
	fds, goroutines, rss int // rss in KiB
	workerFDs            string
}

func (f footprint) String() string {
	return fmt.Sprintf("%d fds, %d goroutines, %d KiB; a worker %s fds", f.fds, f.goroutines, f.rss, f.workerFDs)
}

// measure waits until the service has settled, and takes the least of what it
// sees: a status is asked for on connections of its own, with goroutines that
// take a moment to end.
func measure(s *service, version string) footprint {
	s.t.Helper()
	f := footprint{}
	for i := range 5 {
		st := requireCoherent(s, version, 2)
		if i == 0 || st.Master.FDs < f.fds {
			f.fds = st.Master.FDs
		}
		if i == 0 || st.Master.Goroutines < f.goroutines {
			f.goroutines = st.Master.Goroutines
		}
		f.rss = residentKB(s.t, st.Master.PID)
	}
	f.workerFDs = s.get("/fds").body
	s.t.Logf("%s: %v", version, f)
	return f
}

func residentKB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return kb
		}
	}
	t.Fatalf("no VmRSS in the status of %d", pid)
	return 0
}

func requireSameFootprint(t *testing.T, before, after footprint) {
	t.Helper()
	if after.fds != before.fds || after.goroutines != before.goroutines || after.workerFDs != before.workerFDs {
		t.Errorf("have %v\nwas  %v", after, before)
	}
	// The collector gives memory back late: a quarter is no growth, but 4 MiB
	// are 40 KiB for each of 100 deploys.
	if limit := before.rss + max(before.rss/4, 4<<10); after.rss > limit {
		t.Errorf("%d KiB are resident, were %d", after.rss, before.rss)
	}
}

func TestReloadsLeakNothing(t *testing.T) {
	deploysLeakNothing(t, 20, tier(40, 200), (*service).reload)
}

// Each master is a new process, and inherits what the one before had: what that
// has too much of is passed on.
func TestUpgradesLeakNothing(t *testing.T) {
	const warmUp = 2
	upgrades := tier(10, 100)
	s := deploysLeakNothing(t, warmUp, upgrades, (*service).upgrade)
	if n := s.last.Master.Upgrades; n != warmUp+upgrades {
		t.Errorf("%d upgrades, want %d", n, warmUp+upgrades)
	}
}

// deploysLeakNothing compares the service after a warm-up with that after n more
// deploys under a light load, and stops it.
func deploysLeakNothing(t *testing.T, warmUp, n int, deploy func(*service) control.Verdict) *service {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	plans := []load.Plan{{Class: load.PerConn, Clients: 1}, {Class: load.KeepAlive, Clients: 1, Think: 5 * time.Millisecond}}
	finish := s.start(load.Config{Plans: plans})
	var before footprint
	for i := range warmUp + n {
		version := fmt.Sprintf("v%d", i+2)
		installVersion(s, version)
		if v := deploy(s); !v.OK {
			t.Fatalf("deploy %d: %+v", i+1, v)
		}
		switch i + 1 {
		case warmUp:
			finish()
			before = measure(s, version)
			finish = s.start(load.Config{Plans: plans})
		case warmUp + n:
			requireNothingLost(s, finish())
			requireSameFootprint(t, before, measure(s, version))
		}
	}
	requireStops(s)
	return s
}
