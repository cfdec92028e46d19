//go:build linux

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// Connections of any protocol go on in the serving generation, if the
// application hands them off there and adopts them here.

// sessionConfig is of a service of sessions, at "main" and "local".
func sessionConfig(t *testing.T) appConfig {
	t.Helper()
	return appConfig{
		Version: "v1", Workers: 2, Serve: true, Sessions: true, Adopt: true,
		Listeners: []config.Listener{
			{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"},
			{Network: "unix", Addr: filepath.Join(t.TempDir(), "s"), Name: "local"},
		},
		Options: appOptions{DrainTimeout: new(time.Minute)},
	}
}

// deployTimes deploys that many versions, and waits each time until the old
// generation is gone: until all of its connections are.
func deployTimes(s *service, n int, deploy func() control.Verdict) {
	s.t.Helper()
	for i := range n {
		if v := deploy(); !v.OK {
			s.t.Fatalf("deploy %d: %+v", i+1, v)
		}
		checkLedger(s.t, s.waitStatusFor(settleTime, "only the new generation", oneGeneration))
	}
}

// requireNoneCut requires that no drain has cut a connection.
func requireNoneCut(s *service) {
	s.t.Helper()
	for _, line := range s.log.all() {
		if strings.Contains(line, "drained") && !strings.Contains(line, "cut=0") {
			s.t.Errorf("connections were cut: %s", line)
		}
	}
}

func TestSessionsOutliveReloadsAndUpgrades(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, sessionConfig(t))
	reloads, upgrades := tier(10, 50), tier(5, 15)
	var ends []func() (map[string]int, error)
	for range 3 {
		for _, addr := range []string{s.addr, s.addrOf("local")} {
			ends = append(ends, talk(t, addr).chat())
		}
	}
	deployTimes(s, reloads, s.reload)
	deployTimes(s, upgrades, s.upgrade)
	for i, end := range ends {
		workers, err := end()
		if err != nil {
			t.Errorf("session %d: %v", i, err)
		}
		generations := map[string]bool{}
		for w := range workers {
			g, _, _ := strings.Cut(w, ".")
			generations[g] = true
		}
		if want := 1 + reloads + upgrades; len(generations) < want/2 {
			t.Errorf("session %d was in %d of %d generations: %v", i, len(generations), want, workers)
		}
	}
	checkLedger(t, s.status())
	requireNoneCut(s)
	requireStops(s)
}

// More sessions than can be on the way at a time, most of them silent.
func TestManySessionsMoveAtOnce(t *testing.T) {
	s := newService(t, sessionConfig(t))
	var all []*talker
	for i := range tier(300, 3000) {
		k := talk(t, s.addr)
		k.write(fmt.Sprintf("first\nhalf of the second, of %d ", i))
		if _, err := k.read(); err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	for round, deploy := range []func() control.Verdict{s.reload, s.upgrade} {
		deployTimes(s, 1, deploy)
		for i, k := range all {
			want := fmt.Sprintf("half of the second, of %d and the other", i)
			if round > 0 {
				want = fmt.Sprintf("and another, of %d", i)
			}
			k.write(strings.TrimPrefix(want, fmt.Sprintf("half of the second, of %d ", i)) + "\n")
			if a, err := k.read(); err != nil || a.text != want || !strings.HasPrefix(a.worker, fmt.Sprint(round+2, ".")) {
				t.Fatalf("session %d: %+v, %v; want %q", i, a, err, want)
			}
		}
	}
	requireNoneCut(s)
	for _, line := range s.log.all() {
		if strings.Contains(line, "drained") && !strings.Contains(line, "finished=0 cut=0") {
			t.Errorf("all should have moved: %s", line)
		}
	}
}

func TestHijackedConnectionsOutliveDeploys(t *testing.T) {
	cfg := sessionConfig(t)
	cfg.Serve, cfg.Sessions = false, false
	s := newService(t, cfg)
	silent := talkHTTP(t, s.addr, "early\nhalf ")
	if a, err := silent.read(); err != nil || a.text != "early" {
		t.Fatalf("%+v, %v", a, err)
	}
	local := talkHTTP(t, s.addrOf("local"), "")
	ends := []func() (map[string]int, error){talkHTTP(t, s.addr, "").chat(), talkHTTP(t, s.addrOf("local"), "").chat()}
	deployTimes(s, tier(5, 20), s.reload)
	deployTimes(s, 2, s.upgrade)
	for _, end := range ends {
		if workers, err := end(); err != nil || len(workers) < 4 {
			t.Errorf("answered by %v, %v", workers, err)
		}
	}
	if a := silent.say("and half"); a.text != "half and half" || a.n != 2 {
		t.Errorf("%+v", a)
	}
	local.say("still here")
	requireNoneCut(s)
}

// A release that has its listeners in another order, and others, takes the
// sessions of those that are left.
func TestSessionsOutliveAChangeOfListeners(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, sessionConfig(t))
	main, local := s.cfg.Listeners[0], s.cfg.Listeners[1]
	extra := config.Listener{Network: "unix", Addr: filepath.Join(t.TempDir(), "x"), Name: "extra"}
	cfg := s.cfg
	var ends []func() (map[string]int, error)
	for range 3 {
		ends = append(ends, talk(t, s.addr).chat(), talk(t, local.Addr).chat())
	}
	for i := range tier(6, 30) {
		cfg.Listeners = [][]config.Listener{{local, main}, {extra, local, main}, {main, extra, local}, {main, local}}[i%4]
		s.install(cfg)
		deployTimes(s, 1, s.reload)
	}
	if n := s.status().Master.Upgrades; n < tier(6, 30) {
		t.Errorf("%d upgrades", n)
	}
	for i, end := range ends {
		if workers, err := end(); err != nil || len(workers) < 3 {
			t.Errorf("session %d: answered by %v, %v", i, workers, err)
		}
	}
	requireNoneCut(s)
}

// A release that adopts nothing leaves the sessions where they are, until it is
// replaced by one that does.
func TestSessionsStayWhereNothingAdopts(t *testing.T) {
	for name, deploy := range map[string]func(*service) control.Verdict{"reload": (*service).reload, "upgrade": (*service).upgrade} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, sessionConfig(t))
			k := talk(t, s.addr)
			k.say("hello")
			cfg := s.cfg
			cfg.Version, cfg.Adopt = "v2", false
			s.install(cfg)
			if v := deploy(s); !v.OK {
				t.Fatal(v)
			}
			const none = "the serving generation adopts none"
			eventually(t, waitTime, "the worker hears that nobody adopts it", func() bool { return strings.Contains(k.say("why").text, none) })
			if a := k.say("handoff 0 0"); !strings.Contains(a.text, none) || a.version != "v1" {
				t.Errorf("%+v", a)
			}
			if a := talk(t, s.addr).say("handoff 0 0"); !strings.Contains(a.text, none) || a.version != "v2" {
				t.Errorf("in the new release: %+v", a)
			}
			cfg.Version, cfg.Adopt = "v3", true
			s.install(cfg)
			if v := deploy(s); !v.OK {
				t.Fatal(v)
			}
			if a := k.handOff(0, 0, "here?"); a.version != "v3" || a.text != "here?" {
				t.Errorf("%+v", a)
			}
			s.waitStatus("only the new generation", oneGeneration)
			checkLedger(t, s.status())
			requireNoneCut(s)
		})
	}
}

func TestHandoffHasLimits(t *testing.T) {
	s := newService(t, sessionConfig(t))
	k := talk(t, s.addr)
	for _, tt := range []struct {
		unread, state int
		text          string
	}{
		{16<<10 + 1, 0, "too large"}, {0, 15<<10 + 1, "handoff: too large: 15361 bytes of state, at most 15360"},
	} {
		behind := strings.Repeat("x", tt.unread+1)
		k.write(fmt.Sprintf("handoff %d %d\n%s\n", tt.unread, tt.state, behind))
		a, err := k.read()
		if err != nil || !strings.Contains(a.text, tt.text) {
			t.Fatalf("%d and %d bytes: %+v, %v", tt.unread, tt.state, a, err)
		}
		if a, err = k.read(); err != nil || a.text != behind {
			t.Fatalf("what was not read is lost: %.60v, %v", a, err)
		}
	}
	// Both at their most. The worker may have read more of it, hence less here.
	behind := strings.Repeat("y", 16<<10-1)
	k.write(fmt.Sprintf("handoff %d %d\n%s\n", 16<<10, 15<<10, behind))
	k.n++
	if a, err := k.read(); err != nil || a.text != behind {
		t.Fatalf("%.60v, %v", a, err)
	}
	k.say("on")
	checkLedger(t, s.status())
}

// A worker that ends gives its sessions to those that stay.
func TestSessionsOutliveTheirWorker(t *testing.T) {
	s := newService(t, sessionConfig(t))
	var ends []func() (map[string]int, error)
	for range 6 {
		ends = append(ends, talk(t, s.addr).chat())
	}
	for range tier(2, 10) {
		for _, w := range s.workers() {
			signalPID(t, w.PID, syscall.SIGTERM)
			waitReplaced(s, w)
		}
		s.signal(syscall.SIGTTOU)
		s.waitProcesses(2)
		s.signal(syscall.SIGTTIN)
		s.waitProcesses(3)
	}
	for i, end := range ends {
		if _, err := end(); err != nil {
			t.Errorf("session %d: %v", i, err)
		}
	}
	checkLedger(t, s.status())
	requireStops(s)
}

// When nobody is left to take it, a session goes on where it is.
func TestSessionsStayWhereNobodyServes(t *testing.T) {
	const nobody = "nobody serves"
	for name, end := range map[string]syscall.Signal{"stop": syscall.SIGTERM, "no master": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, sessionConfig(t))
			tcp, local := talk(t, s.addr), talk(t, s.addrOf("local"))
			tcp.say("hello")
			local.say("hello")
			s.signal(end)
			for _, k := range []*talker{tcp, local} {
				eventually(t, waitTime, "the worker hears that nobody takes it", func() bool { return strings.Contains(k.say("why").text, nobody) })
				if a := k.say("handoff 0 0"); !strings.Contains(a.text, nobody) {
					t.Errorf("%+v", a)
				}
				_ = k.c.Close()
			}
			s.waitProcesses(0)
			if end == syscall.SIGTERM {
				requireStopped(s)
				requireNoneCut(s)
			}
		})
	}
}
