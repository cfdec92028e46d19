//go:build linux

package integration

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/testcert"
)

// activated are the listeners of an application under app.socket and
// app-admin.socket. Where systemd binds them is up to systemd.
var activated = []config.Listener{
	{Network: "tcp", Addr: "127.0.0.1:9", Name: "main"},
	{Network: "unix", Addr: "/nowhere/admin.sock", Name: "admin"},
}

func adminOf(h *systemdHost) string { return filepath.Join(h.root(), "run/app-admin.sock") }

// everybody is a load of all kinds, small enough for two slow cores.
func everybody() []load.Plan {
	return []load.Plan{
		{Class: load.PerConn, Clients: 2}, {Class: load.KeepAlive, Clients: 2}, {Class: load.Idle, Clients: 4},
		{Class: load.Slow, Clients: 1}, {Class: load.Stream, Clients: 1},
	}
}

func TestUnderSystemdDeploysLoseNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	h := newSystemdHost(t)
	a := h.newApp(appConfig{Version: "v1", Workers: 2, Listeners: activated}, "",
		"app.service", "app.socket", "app-admin.socket")
	h.must("systemctl", "start", "app.socket", "app-admin.socket")
	if got := h.show(a.unit, "ActiveState"); got != "inactive" {
		t.Fatalf("the service is %s before anybody connects", got)
	}
	// The first client starts it.
	if r := a.get("/version"); r.version != "v1" {
		t.Fatalf("version %q", r.version)
	}
	if r, err := ask(adminOf(h), "/version", waitTime); err != nil || r.version != "v1" {
		t.Fatalf("through the unix socket: %q, %v", r.version, err)
	}
	h.waitFor(a.unit, "ActiveState", "active")
	first := a.checkMainPID()
	for _, l := range a.status().Listeners {
		if want := map[string]string{"main": a.addr, "admin": "/run/app-admin.sock"}[l.Name]; l.Address != want {
			t.Errorf("listener %s is at %s, want %s", l.Name, l.Address, want)
		}
	}

	finish := a.start(load.Config{Plans: everybody()})
	finishAdmin := a.start(load.Config{Network: "unix", Addr: adminOf(h), Plans: []load.Plan{{Class: load.PerConn, Clients: 1}, {Class: load.KeepAlive, Clients: 1}}})
	for range tier(3, 20) {
		h.must("systemctl", "reload", a.unit)
		if pid := a.checkMainPID(); pid != first {
			t.Fatalf("the master was %d, and is %d after a reload", first, pid)
		}
	}
	for range tier(3, 20) {
		a.upgrade()
	}

	// A release that fails.
	generation := serving(a.status()).Number
	bad := a.cfg
	bad.Version, bad.Fail = "bad", config.FailBuild
	a.install(bad)
	out, err := h.run("systemctl", "reload", a.unit)
	if err == nil {
		t.Errorf("systemctl reload says nothing of a release that was refused: %s", out)
	}
	t.Logf("systemctl reload of a release that fails: %v\n%s", err, out)
	if g := serving(a.status()); g == nil || g.Number != generation {
		t.Errorf("generation %d does not serve any more: %+v", generation, g)
	}
	if got := h.show(a.unit, "ActiveState"); got != "active" {
		t.Errorf("the service is %s after a refused reload", got)
	}
	if r := a.get("/version"); r.version != "v1" {
		t.Errorf("version %q after a refused reload", r.version)
	}
	if j := h.journal("-u", a.unit); !strings.Contains(j, "testapp: build fails as told") {
		t.Error("the journal does not say why the reload was refused")
	}

	for name, finish := range map[string]func() load.Report{"tcp": finish, "unix": finishAdmin} {
		r := finish()
		t.Logf("%s:\n%s", name, r)
		if r.Lost() > 0 || r.Requests() == 0 {
			t.Errorf("%s: %d of %d requests lost", name, r.Lost(), r.Requests())
		}
	}
	status := h.must("systemctl", "status", a.unit)
	if !strings.Contains(status, `Status: "generation `) || !strings.Contains(status, "serving with 2 workers") {
		t.Error("systemctl status does not show the status")
	}
	t.Log(status)
	t.Log(h.journal())
}

func TestUnderSystemdAStopWithSocketsRefusesNobody(t *testing.T) {
	h := newSystemdHost(t)
	a := h.newApp(appConfig{Version: "v1", Workers: 2, Listeners: activated}, "",
		"app.service", "app.socket", "app-admin.socket")
	h.must("systemctl", "start", "app.socket", "app-admin.socket", a.unit)
	plans := []load.Plan{{Class: load.PerConn, Clients: 4}}
	finish := a.start(load.Config{Plans: plans})
	finishAdmin := a.start(load.Config{Network: "unix", Addr: adminOf(h), Plans: plans})
	for range tier(3, 10) {
		before := a.mainPID()
		h.must("systemctl", "stop", a.unit)
		h.must("systemctl", "start", a.unit)
		a.waitMaster(before)
		before = a.mainPID()
		h.must("systemctl", "restart", a.unit)
		a.waitMaster(before)
	}
	for name, finish := range map[string]func() load.Report{"tcp": finish, "unix": finishAdmin} {
		r := finish()
		t.Logf("%s:\n%s", name, r)
		if r.Lost() > 0 || r.Requests() == 0 {
			t.Errorf("%s: %d of %d requests lost", name, r.Lost(), r.Requests())
		}
	}
	if got := h.show(a.unit, "NRestarts"); got != "0" {
		t.Errorf("systemd had to restart it %s times", got)
	}
}

func TestUnderSystemdAKilledMasterLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	h := newSystemdHost(t)
	cfg := appConfig{Version: "v1", Workers: 2}
	admin := filepath.Join("/run/app", "admin.sock")
	cfg.Listeners = []config.Listener{{Network: "tcp", Addr: "127.0.0.1:" + strconv.Itoa(h.port), Name: "main"}, {Network: "unix", Addr: admin, Name: "admin"}}
	a := h.newApp(cfg, "", "app-standalone.service")
	adminAddr := filepath.Join(h.root(), admin)
	h.must("systemctl", "start", a.unit)
	a.checkMainPID()
	h.waitFor(a.unit, "NFileDescriptorStore", "3") // with the leash of its workers
	socket := socketInode(t, a.addr)

	// A worker's death is the master's business alone.
	worker := serving(a.status()).Processes[0].PID
	h.must("kill", "-KILL", strconv.Itoa(worker))
	a.waitStatus("the worker is replaced", func(st control.Status) bool {
		g := serving(st)
		return g != nil && len(g.Processes) == 2 && g.Processes[0].PID != worker && g.Processes[0].State == control.WorkerServing
	})
	if state, n := h.show(a.unit, "ActiveState"), h.show(a.unit, "NRestarts"); state != "active" || n != "0" {
		t.Errorf("the service is %s after a worker's death, with %s restarts", state, n)
	}
	if got := h.show(a.unit, "OOMPolicy"); got != "continue" {
		t.Errorf("OOMPolicy=%s", got)
	}

	finish := a.start(load.Config{Plans: everybody()})
	finishAdmin := a.start(load.Config{Network: "unix", Addr: adminAddr, Plans: []load.Plan{{Class: load.PerConn, Clients: 2}}})
	kills := tier(3, 10)
	for range kills {
		before := a.mainPID()
		h.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", a.unit)
		a.waitMaster(before)
		a.checkMainPID()
		h.waitFor(a.unit, "NFileDescriptorStore", "3")
		// What was stored and what the workers brought is one socket.
		if now := socketInode(t, a.addr); now != socket {
			t.Errorf("listening on socket %s, was %s", now, socket)
		}
		eventually(t, waitTime, "systemctl status shows the status", func() bool {
			return strings.Contains(h.show(a.unit, "StatusText"), "serving with 2 workers")
		})
	}
	requireOnlyUnsent(a.service, finish(), kills)
	requireOnlyUnsent(a.service, finishAdmin(), kills)

	// A new master can be killed, too, and what was stored for the old one is.
	a.upgrade()
	before := a.mainPID()
	h.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", a.unit)
	a.waitMaster(before)

	// A new master is waited for at a stop, and nothing is left behind.
	a.upgrade()
	slow := make(chan error, 1)
	go func() {
		_, err := ask(a.addr, "/slow?d=1s", waitTime)
		slow <- err
	}()
	a.waitStatus("the request is under way", func(st control.Status) bool {
		g := serving(st)
		return g != nil && g.Processes[0].Open+g.Processes[1].Open == 1
	})
	h.must("systemctl", "stop", a.unit)
	if err := <-slow; err != nil {
		t.Errorf("a request in flight at the stop: %v", err)
	}
	if got := h.show(a.unit, "Result"); got != "success" {
		t.Errorf("the stop ended with %s", got)
	}
	if _, err := a.tryGet("/"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after a stop: %v, want that connections are refused", err)
	}
	h.waitFor(a.unit, "NFileDescriptorStore", "0")
	t.Log(h.journal())
}

func TestUnderSystemdAMasterThatStandsStillIsRestarted(t *testing.T) {
	h := newSystemdHost(t)
	a := h.newApp(standalone(h), "WatchdogSec=2s\n", "app-standalone.service")
	h.must("systemctl", "start", a.unit)
	a.upgrade() // the duty goes with it
	before := a.mainPID()
	h.must("systemctl", "kill", "-s", "STOP", "--kill-who=main", a.unit)
	h.waitFor(a.unit, "NRestarts", "1")
	a.waitMaster(before)
	a.checkMainPID()
	// And one that turns is not.
	j := h.journal("-t", "systemd")
	if strings.Count(j, "Watchdog timeout") != 1 {
		t.Error("not one watchdog timeout")
	}
	t.Log(j)
}

func TestUnderSystemdASocketThatFitsNoListenerIsAnError(t *testing.T) {
	h := newSystemdHost(t)
	cfg := appConfig{Version: "v1", Workers: 1, Listeners: []config.Listener{
		{Network: "tcp", Addr: "127.0.0.1:9", Name: "web"}, {Network: "unix", Addr: "/nowhere/admin.sock", Name: "admin"},
	}}
	a := h.newApp(cfg, "", "app.service", "app.socket", "app-admin.socket")
	if out, err := h.run("systemctl", "start", a.unit); err == nil {
		t.Errorf("it started: %s", out)
	}
	h.waitFor(a.unit, "ActiveState", "failed")
	if code, n := h.show(a.unit, "ExecMainStatus"), h.show(a.unit, "NRestarts"); code != "78" || n != "0" {
		t.Errorf("exit status %s after %s restarts, want 78 and none", code, n)
	}
	want := `socket "main" (tcp ` + a.addr + `) of systemd fits no listener, by name or address: expected one of "web" (tcp 127.0.0.1:9), "admin" (unix /nowhere/admin.sock)`
	if j := h.journal("-u", a.unit); !strings.Contains(j, want) {
		t.Errorf("the journal does not say: %s", want)
	}
	t.Log(h.journal("-u", a.unit))
}

// What the README says of KillMode.
func TestUnderSystemdKillMode(t *testing.T) {
	t.Parallel() // it waits more than it works
	h := newSystemdHost(t)
	a := h.newApp(standalone(h), "", "app-standalone.service")
	h.must("systemctl", "start", a.unit)
	// killed says whether a worker with a request in flight, whose master is
	// killed, lives when the next master serves; and what came of the request.
	killed := func() (lives bool, err error) {
		t.Helper()
		slow := make(chan error, 1)
		go func() {
			_, err := ask(a.addr, "/slow?d=5s", 2*waitTime)
			slow <- err
		}()
		var worker int
		a.waitStatus("the request is under way", func(st control.Status) bool {
			for _, p := range serving(st).Processes {
				if p.Open == 1 {
					worker = p.PID
				}
			}
			return worker != 0
		})
		before := a.mainPID()
		h.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", a.unit)
		a.waitMaster(before)
		_, gone := h.run("kill", "-0", strconv.Itoa(worker))
		return gone == nil, <-slow
	}
	lives, err := killed()
	if !lives || err != nil {
		t.Errorf("KillMode=process: the worker lives: %v, its request: %v", lives, err)
	}
	h.writeUnit(a.unit+".d/mode.conf", "[Service]\nKillMode=control-group\n")
	h.must("systemctl", "daemon-reload")
	if lives, err = killed(); lives {
		t.Error("KillMode=control-group: the worker lives; the README says that systemd ends all first")
	}
	t.Logf("KillMode=control-group: a request in flight when the master was killed: %v\n%s", err, h.journal("-u", a.unit))
}

func TestUnderSystemdALongStopIsNotCut(t *testing.T) {
	t.Parallel() // it waits more than it works
	h := newSystemdHost(t)
	cfg := standalone(h)
	// NotifyAccess=main is systemd's default.
	a := h.newApp(cfg, "TimeoutStopSec=2s\nNotifyAccess=main\n", "app-standalone.service")
	h.must("systemctl", "start", a.unit)
	a.upgrade()
	slow := make(chan error, 1)
	go func() {
		_, err := ask(a.addr, "/slow?d=8s", 2*waitTime)
		slow <- err
	}()
	a.waitStatus("the request is under way", func(st control.Status) bool {
		g := serving(st)
		return g != nil && g.Processes[0].Open+g.Processes[1].Open == 1
	})
	h.must("systemctl", "stop", a.unit)
	if err := <-slow; err != nil {
		t.Errorf("a request of 8s, a stop that may take 25s, and TimeoutStopSec=2s: %v", err)
	}
	if got := h.show(a.unit, "Result"); got != "success" {
		t.Errorf("the stop ended with %s", got)
	}
}

// standalone is an application that binds its listener itself.
func standalone(h *systemdHost) appConfig {
	return appConfig{Version: "v1", Workers: 2, Listeners: []config.Listener{
		{Network: "tcp", Addr: "127.0.0.1:" + strconv.Itoa(h.port), Name: "main"},
	}}
}

func TestUnderSystemdSessionsAreResumedAfterAMastersDeath(t *testing.T) {
	h := newSystemdHost(t)
	cfg := standalone(h)
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(h.dir)
	cfg.TLS = &config.TLS{Cert: certFile, Key: keyFile}
	a := h.newApp(cfg, "", "app-standalone.service")
	h.must("systemctl", "start", a.unit)
	var clients []*sessionClient
	for _, version := range tlsVersions {
		clients = append(clients, newSessionClient(a.addr, cert, version))
	}
	ask := func(when string) {
		t.Helper()
		for _, c := range clients {
			if _, err := c.ask(0); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	ask("at first")
	ask("again")
	for _, when := range []string{"once killed", "twice killed"} {
		h.waitFor(a.unit, "NFileDescriptorStore", "3")
		before := a.mainPID()
		h.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", a.unit)
		a.waitMaster(before)
		ask(when)
	}
	a.upgrade()
	ask("upgraded")
	h.waitFor(a.unit, "NFileDescriptorStore", "3")
	h.must("systemctl", "restart", a.unit)
	ask("restarted")
}
