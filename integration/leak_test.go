//go:build linux

package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/baton-go/baton/integration/load"
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
}

func TestReloadsLeakNothing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	finish := s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 1}}})
	const warmUp = 20
	reloads := tier(40, 200)
	var before, after footprint
	for i := range warmUp + reloads {
		version := fmt.Sprintf("v%d", i+2)
		installVersion(s, version)
		if v := s.reload(); !v.OK {
			t.Fatalf("reload %d: %+v", i+1, v)
		}
		switch i + 1 {
		case warmUp:
			finish()
			before = measure(s, version)
			finish = s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 1}}})
		case warmUp + reloads:
			requireNothingLost(s, finish())
			after = measure(s, version)
		}
	}
	requireSameFootprint(t, before, after)
	// The collector gives memory back late: a quarter is no growth, but 4 MiB
	// are 20 KiB for each of 200 reloads.
	if limit := before.rss + max(before.rss/4, 4<<10); after.rss > limit {
		t.Errorf("%d KiB resident after %d reloads, were %d", after.rss, reloads, before.rss)
	}
	requireStops(s)
}

func TestUpgradesLeakNothing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}))
	const warmUp = 2
	upgrades := tier(8, 30)
	var before, after footprint
	for i := range upgrades {
		version := fmt.Sprintf("v%d", i+2)
		installVersion(s, version)
		if v := s.upgrade(); !v.OK {
			t.Fatalf("upgrade %d: %+v", i+1, v)
		}
		switch i + 1 {
		case warmUp:
			before = measure(s, version)
		case upgrades:
			after = measure(s, version)
		}
	}
	requireSameFootprint(t, before, after)
	if st := s.status(); st.Master.Upgrades != upgrades {
		t.Errorf("%d upgrades, want %d", st.Master.Upgrades, upgrades)
	}
	requireStops(s)
}
