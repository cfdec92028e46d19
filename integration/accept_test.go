//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// Accept modes other than that of the master: every promise holds in them, too.

const byWorkers = "BATON_ACCEPT=workers"

// acceptLoad is a load of new connections above all.
func acceptLoad() load.Config {
	return load.Config{
		Plans: []load.Plan{
			{Class: load.PerConn, Clients: 4},
			{Class: load.KeepAlive, Clients: 2, Think: time.Millisecond},
			{Class: load.Slow, Clients: 2},
		},
		SlowFor: 300 * time.Millisecond,
	}
}

// requireMode requires the accept mode of the first listener, and that those who
// accept are who should.
func requireMode(s *service, mode string) {
	s.t.Helper()
	st := s.status()
	if have := st.Listeners[0].Accept; have != mode {
		s.t.Errorf("the accept mode is %q, want %q", have, mode)
	}
	before := serving(st)
	accepted := st.Listeners[0].Accepted
	const asked = 20
	for range asked {
		s.get("/")
	}
	st = s.status()
	if n := st.Listeners[0].Accepted - accepted; n < asked {
		s.t.Errorf("%d of %d connections are in the status", n, asked)
	}
	own := acceptedBy(serving(st)) - acceptedBy(before)
	if sent := dispatchedTo(serving(st)) - dispatchedTo(before); (mode == "master") != (own == 0) || mode == "master" && sent < asked || mode != "master" && own < asked {
		s.t.Errorf("in mode %s workers have accepted %d connections, and have been sent %d", mode, own, sent)
	}
	checkLedger(s.t, st)
}

func acceptedBy(g *control.Generation) (n uint64) {
	for _, w := range g.Processes {
		n += w.Accepted
	}
	return n
}

func dispatchedTo(g *control.Generation) (n uint64) {
	for _, w := range g.Processes {
		n += w.Dispatched
	}
	return n
}

func TestAcceptModesLoseNothing(t *testing.T) {
	for _, mode := range []string{"workers"} {
		for name, deploy := range map[string]func(*service){
			"reload":  func(s *service) { mustDeploy(s.t, s.reload()) },
			"upgrade": func(s *service) { mustDeploy(s.t, s.upgrade()) },
			"resize":  func(s *service) { mustDeploy(s.t, s.scale(1)); mustDeploy(s.t, s.scale(2)) },
		} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv("BATON_ACCEPT="+mode))
				finish := s.start(acceptLoad())
				for i := range tier(4, 20) {
					version := fmt.Sprintf("v%d", i+2)
					if name != "resize" {
						installVersion(s, version)
					} else {
						version = "v1"
					}
					deploy(s)
					requireCoherent(s, version, 2)
				}
				requireMode(s, mode)
				requireNothingLost(s, finish())
				requireSettled(s)
				requireStops(s)
			})
		}
	}
}

// A deploy is over when none of the release before takes connections.
func TestReloadOfThoseWhoAcceptIsOverWithItsVerdict(t *testing.T) {
	s := newService(t, appConfig{Version: "v0", Workers: 2}, withEnv(byWorkers))
	finish := s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 2}}})
	for i := range tier(8, 50) {
		version := fmt.Sprintf("v%d", i+1)
		installVersion(s, version)
		mustDeploy(t, s.reload())
		if a := s.get("/version"); a.version != version {
			t.Fatalf("%s answers after the deploy of %s", a.version, version)
		}
	}
	requireNothingLost(s, finish())
}

// A release may want another mode: it is in force while that release serves.
func TestModeOfAReleaseComesAndGoesWithIt(t *testing.T) {
	t.Parallel() // its load leaves room for others
	for name, deploy := range map[string]func(*service) control.Verdict{
		"reload": (*service).reload, "upgrade": (*service).upgrade,
	} {
		for _, roll := range []string{"false", "true"} {
			t.Run(name+"/rolling="+roll, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "app.env")
				say := func(mode string) {
					if err := os.WriteFile(file, []byte("BATON_ACCEPT="+mode+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				say("master")
				s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{EnvFile: file}}, withEnv("BATON_ROLLING="+roll))
				requireMode(s, "master")
				finish := s.start(acceptLoad())
				for i, mode := range []string{"workers", "workers", "master"} {
					say(mode)
					installVersion(s, fmt.Sprintf("v%d", i+2))
					mustDeploy(t, deploy(s))
					requireCoherent(s, fmt.Sprintf("v%d", i+2), 2)
					requireMode(s, mode)
				}
				mustDeploy(t, s.verdict("rollback", s.client.Rollback))
				requireCoherent(s, "v3", 2)
				requireMode(s, "workers")
				requireNothingLost(s, finish())
				requireStops(s)
			})
		}
	}
}

// What a worker had accepted dies with it; nothing else does, for it waits in a
// queue that is not the worker's.
func TestDeathOfAWorkerThatAcceptsCostsOnlyItsOwn(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(byWorkers))
	finish := s.start(acceptLoad())
	for range tier(3, 20) {
		killOne(s)
		requireCoherent(s, "v1", 2)
	}
	requireMode(s, "workers")
	r := finish()
	t.Logf("\n%s", r)
	l := s.serving().Ledger
	if n := r.Lost(); uint64(n) > l.Cut {
		t.Errorf("%d requests lost, %d connections were open in workers that died", n, l.Cut)
	}
	for class, tally := range r.Classes {
		if tally.Timeouts+tally.Refused > 0 || tally.OK == 0 {
			t.Errorf("%s: %d timed out, %d refused, %d answered", class, tally.Timeouts, tally.Refused, tally.OK)
		}
	}
	checkLedger(t, s.status())
}

// Where nobody is left who accepts, connections wait for who comes.
func TestQueueOutlivesAllWhoAccept(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2, Serve: true}, withEnv(byWorkers))
	_, ws := stopWorkers(s)
	conns := queueUp(t, s.addr, 40)
	for _, w := range ws {
		signalPID(t, w.PID, syscall.SIGKILL)
	}
	requireEchoes(t, conns)
	if st := s.status(); st.Listeners[0].Accept != "workers" || acceptedBy(serving(st)) < 40 {
		t.Errorf("others than the next workers have accepted: %+v", st)
	}
}

func queueUp(t *testing.T, addr string, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.DialTimeout("tcp", addr, dialTime)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := fmt.Fprintln(c, "who"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return conns
}

func requireEchoes(t *testing.T, conns []net.Conn) {
	t.Helper()
	for i, c := range conns {
		_ = c.SetDeadline(time.Now().Add(waitTime))
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatalf("connection %d of %d: %v", i+1, len(conns), err)
		}
		c.Close()
	}
}

// One that stands still holds nobody up: the others take what there is.
func TestWorkerThatStandsStillTakesNothing(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2, Serve: true}, withEnv(byWorkers))
	w := s.workers()[0]
	signalPID(t, w.PID, syscall.SIGSTOP)
	waitState(t, w.PID, "T")
	requireEchoes(t, queueUp(t, s.addr, 40))
	signalPID(t, w.PID, syscall.SIGCONT)
	s.waitStatus("both serve", complete)
}

func TestStopServesTheQueueOfThoseWhoAccept(t *testing.T) {
	for name, env := range map[string]string{"at once": "", "with a delay": "BATON_STOP_DELAY=300ms"} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2, Serve: true}, withEnv(byWorkers, env))
			master, ws := stopWorkers(s)
			conns := queueUp(t, s.addr, 60)
			signalPID(t, master, syscall.SIGTERM)
			s.waitLog("stopping")
			for _, w := range ws {
				signalPID(t, w.PID, syscall.SIGCONT)
			}
			if env != "" { // it goes on accepting
				conns = append(conns, queueUp(t, s.addr, 5)...)
			}
			requireEchoes(t, conns)
			if code := s.exitCode(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			requireNothingLeft(s)
		})
	}
}

// Nobody holds a connection on the way: a master that is killed costs nothing.
func TestKilledMasterOfThoseWhoAcceptCostsNothing(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(byWorkers, supervised))
	finish := s.start(acceptLoad())
	for range tier(2, 10) {
		s.crash()
		requireCoherent(s, "v1", 2)
		requireMode(s, "workers")
		mustDeploy(t, s.reload())
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

// A generation that fails while the next master takes over is no reason to lose
// the one that accepts.
func TestReleaseThatFailsLeavesThoseWhoAccept(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(byWorkers))
	finish := s.start(lightLoad())
	for name, deploy := range map[string]func() control.Verdict{"reload": s.reload, "upgrade": s.upgrade} {
		cfg := s.cfg
		cfg.Version, cfg.Fail = "bad", config.FailBuild
		s.install(cfg)
		if v := deploy(); v.OK {
			t.Errorf("%s: %+v", name, v)
		}
		requireMode(s, "workers")
	}
	requireUnnoticed(s, finish())
}

// Modes of listeners of their own, a Unix socket among them.
func TestListenerHasAModeOfItsOwn(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withArgs("Listen=unix,app.sock,side,,,workers"))
	finish := s.start(acceptLoad())
	for i := range 3 {
		for range 10 {
			if a, err := ask(filepath.Join(s.dir, "app.sock"), "/version", waitTime); err != nil || a.version != fmt.Sprintf("v%d", i+1) {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		requireMode(s, "master")
		st := s.status()
		at := slices.IndexFunc(st.Listeners, func(l control.Listener) bool { return l.Name == "side" })
		if l := st.Listeners[at]; l.Accept != "workers" || l.Accepted != uint64(10*(i+1)) {
			t.Errorf("%+v", l)
		}
		if n := acceptedBy(serving(st)); n != 10 {
			t.Errorf("workers have accepted %d", n)
		}
		installVersion(s, fmt.Sprintf("v%d", i+2))
		if i == 1 {
			mustDeploy(t, s.upgrade())
		} else {
			mustDeploy(t, s.reload())
		}
		requireCoherent(s, fmt.Sprintf("v%d", i+2), 2)
	}
	requireNothingLost(s, finish())
	requireStops(s)
}

// Workers of another user that may have listeners can accept from them.
func TestWorkersOfAnotherUserAcceptIfTheyMay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start workers as another user: run as root")
	}
	cfg := appConfig{Version: "v1", Workers: 2, Options: appOptions{User: "nobody"}}
	s := newService(t, cfg, accessible, withEnv(byWorkers, "BATON_ORPHANS=true"))
	finish := s.start(acceptLoad())
	mustDeploy(t, s.reload())
	requireMode(s, "workers")
	requireNothingLost(s, finish())
	if n := acceptedBy(serving(s.status())); n == 0 {
		t.Error("no worker accepts for itself")
	}
	requireStops(s)
}

// Workers of another user are given no listeners.
func TestAcceptModesAreRefusedForWorkersOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start workers as another user: run as root")
	}
	for _, tt := range []struct{ env, arg, want string }{
		{byWorkers, "User=nobody", `BATON_ACCEPT="workers" with User("nobody"): expected master`},
		{"BATON_ACCEPT=kernel", "User=nobody", `BATON_ACCEPT="kernel" with User("nobody"): expected master`},
		{"BATON_USER=nobody", "Listen=tcp,127.0.0.1:0,side,,,workers", `accept mode workers of listener "side" with BATON_USER="nobody": expected master`},
	} {
		s := startService(t, appConfig{Version: "v1", Workers: 1}, withEnv(tt.env), withArgs(tt.arg))
		if code := s.exitCode(); code != 78 {
			t.Errorf("%s, %s: exit status %d, want 78", tt.env, tt.arg, code)
		}
		if line := s.waitLog(tt.want); !strings.Contains(line, "hold no listeners") {
			t.Errorf("%s", line)
		}
	}
}
