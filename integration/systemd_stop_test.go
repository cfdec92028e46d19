//go:build linux

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// What is left of a unit that is stopped, whatever has become of its master. With
// KillMode=process systemd signals nobody else, and in the time between the death
// of a master and its restart it runs nothing at a stop either: the workers have
// to notice.

func TestUnderSystemdAStopLeavesNothing(t *testing.T) {
	t.Parallel() // it waits more than it works
	h := newSystemdHost(t)
	cfg := standalone(h)
	cfg.Listeners = append(cfg.Listeners, config.Listener{Network: "unix", Addr: "/run/app/admin.sock", Name: "admin"})
	cfg.Options.PIDFile = "/run/app/app.pid"
	a := h.newApp(cfg, "", "app-standalone.service")
	good := a.cfg

	kill := func(sig string) { h.must("systemctl", "kill", "-s", sig, "--kill-who=main", a.unit) }
	dies := func() {
		kill("KILL")
		h.waitFor(a.unit, "SubState", "auto-restart")
	}
	stop := func() { h.must("systemctl", "stop", a.unit) }
	for _, c := range []struct {
		name     string
		settings string
		stop     func()
		result   string // of the unit
	}{
		{"before the next master", "RestartSec=1min\n", func() { dies(); stop() }, "inactive"},
		{"while its master dies", "RestartSec=200ms\n", func() { kill("KILL"); stop() }, "inactive or failed"}, // whichever comes first
		{"with a master that hears nothing", "TimeoutStopSec=300ms\nKillSignal=SIGWINCH\n", stop, "failed"},
		{"when systemd gives it up", "RestartSec=200ms\n", func() {
			bad := good
			bad.Listeners = append(bad.Listeners[:len(bad.Listeners):len(bad.Listeners)], bad.Listeners[0])
			a.install(bad)
			kill("KILL") // the next one finds its configuration wrong, and is not started again
			h.waitFor(a.unit, "ActiveState", "failed")
		}, "failed"},
		{"with its master", "", stop, "inactive"},
		{"before the next master, once upgraded", "RestartSec=1min\n", func() { a.upgrade(); dies(); stop() }, "inactive"},
	}[:tier(4, 6)] {
		t.Logf("stopped %s", c.name)
		a.install(good)
		h.writeUnit(a.unit+".d/stop.conf", "[Service]\n"+c.settings)
		h.must("systemctl", "daemon-reload")
		_, _ = h.run("systemctl", "reset-failed", a.unit)
		h.must("systemctl", "start", a.unit)
		requireStopLeavesNothing(t, a, c.stop, c.result)
		if _, err := a.tryGet("/"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v, want that connections are refused", err)
		}
	}
}

// systemd's own sockets stay, and start the service again.
func TestUnderSystemdAStopWithSocketsLeavesThem(t *testing.T) {
	h := newSystemdHost(t)
	a := h.newApp(appConfig{Version: "v1", Workers: 2, Listeners: activated}, "RestartSec=1min\n",
		"app.service", "app.socket", "app-admin.socket")
	h.must("systemctl", "start", "app.socket", "app-admin.socket", a.unit)
	requireStopLeavesNothing(t, a, func() {
		h.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", a.unit)
		h.waitFor(a.unit, "SubState", "auto-restart")
		h.must("systemctl", "stop", a.unit)
	}, "inactive")
	if r, err := ask(adminOf(h), "/version", waitTime); err != nil || r.version != "v1" {
		t.Errorf("through the unix socket, after a stop: %+v, %v", r, err)
	}
	if r := a.get("/version"); r.version != "v1" {
		t.Errorf("after a stop: %+v", r)
	}
}

// requireStopLeavesNothing stops a service that is busy, and requires that nobody
// was cut, that no process is left, and nothing in the runtime directory.
func requireStopLeavesNothing(t *testing.T, a *app, stop func(), result string) {
	t.Helper()
	slow := make(chan error, 1)
	go func() {
		r, err := ask(a.addr, "/slow?d="+tier("1s", "1500ms"), 2*waitTime)
		if err == nil && r.status != 200 {
			err = errors.New("status " + strconv.Itoa(r.status))
		}
		slow <- err
	}()
	a.waitStatus("the request is under way", func(st control.Status) bool {
		g := serving(st)
		return g != nil && g.Processes[0].Open+g.Processes[1].Open == 1
	})
	// They are trusted once a record names them.
	eventually(t, waitTime, "the record is written", func() bool {
		_, err := os.Stat(filepath.Join(a.h.root(), "run/app/workers.json"))
		return err == nil
	})
	stop()
	if err := <-slow; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	var left []process
	eventually(t, waitTime, "nothing is left of it", func() bool {
		left = findProcesses(func(p process) bool { return strings.HasPrefix(p.exe(), a.binary) })
		return len(left) == 0
	})
	eventually(t, waitTime, "the unit is "+result, func() bool { return strings.Contains(result, a.h.show(a.unit, "ActiveState")) })
	a.h.waitFor(a.unit, "NFileDescriptorStore", "0")
	entries, err := os.ReadDir(filepath.Join(a.h.root(), "run/app"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in the runtime directory", e.Name())
	}
}

// socketInode is that of the one socket which listens at addr.
func socketInode(t *testing.T, addr string) string {
	t.Helper()
	listening := listeningAt(t, addr)
	if len(listening) != 1 {
		t.Fatalf("%d sockets listen at %s, want 1", len(listening), addr)
	}
	return listening[0][9]
}
