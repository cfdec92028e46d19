//go:build linux

package integration

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

// Releases whose protocols differ, wherever two of them meet: each deploy, a new
// master after one was killed, and init. What cannot work is refused while it is
// only looked at.

// release is a build of the test application that says which versions of the
// protocol it speaks.
type release struct{ name, claim string }

// What this build speaks are versions 1 and 2. next is one release later, and
// speaks version 3, too; after speaks nothing else.
var (
	this  = release{"this", ""}
	next  = release{"next", "1-3"}
	after = release{"after", "3-3"}
)

var releases = map[release]func() (string, error){this: func() (string, error) { return testapp, nil }, next: builds(next), after: builds(after)}

func builds(r release) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		return buildAs("testapp-"+r.name, "./testapp", "-ldflags=-s -w -X github.com/baton-go/baton/workers.protocolClaim="+r.claim)
	})
}

// app is the path of the release.
func (r release) app(t *testing.T) string {
	t.Helper()
	path, err := releases[r]()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// installRelease puts r in the place of the binary. It answers its name as its
// version.
func installRelease(s *service, r release) {
	s.t.Helper()
	s.app = r.app(s.t)
	installVersion(s, r.name)
}

// newRelease starts r with two workers.
func newRelease(t *testing.T, r release, opts ...serviceOption) *service {
	t.Helper()
	return newService(t, withPIDFile(t, appConfig{Version: r.name, Workers: 2}), append(opts, withApp(r.app(t)))...)
}

// crossing is a deploy of a release over one of another version.
type crossing struct {
	by      string // reload, upgrade or rollback
	to      release
	master  bool     // there is another master then
	refused []string // parts of the reason; nil: it works
}

// cross deploys, and requires the outcome.
func cross(s *service, from release, c crossing) {
	s.t.Helper()
	what := fmt.Sprintf("%s from %s to %s", c.by, from.name, c.to.name)
	deploy := map[string]func() control.Verdict{"reload": s.reload, "upgrade": s.upgrade, "rollback": func() control.Verdict {
		return s.verdict("rollback", s.client.Rollback)
	}}[c.by]
	if c.by != "rollback" {
		installRelease(s, c.to)
	}
	if c.refused != nil {
		requireRefused(s, what, deploy, "", c.refused...)
		return
	}
	before := s.masterPID()
	if v := deploy(); !v.OK {
		s.t.Fatalf("%s is refused: %+v", what, v)
	}
	if st := requireCoherent(s, c.to.name, 2); (st.Master.PID != before) != c.master {
		s.t.Errorf("%s: the master is %d, was %d", what, st.Master.PID, before)
	}
}

func TestDeploysBetweenVersionsWorkOrAreRefused(t *testing.T) {
	const none = "no version is common to both"
	s := newRelease(t, this)
	finish := s.start(lightLoad())
	serves := this
	for _, c := range []crossing{
		// The master speaks 1 and 2.
		{by: "reload", to: after, refused: []string{"it speaks protocol 3, this master 1 to 2", none}},
		{by: "upgrade", to: after, refused: []string{"it speaks protocol 3, this master 1 to 2", none}},
		{by: "reload", to: next, master: true},
		// The master speaks all three, its workers at times only some of them.
		{by: "reload", to: this},
		{by: "reload", to: after},
		{by: "upgrade", to: this, refused: []string{"it speaks protocol 1 to 2, generation ", ", which is serving, 3", none}},
		{by: "reload", to: this},
		{by: "upgrade", to: after, refused: []string{"it speaks protocol 3, generation ", ", which is serving, 1 to 2", none}},
		{by: "upgrade", to: next, master: true},
		{by: "upgrade", to: this, master: true},
		// The master speaks 1 and 2, and goes back to what is later, but no further.
		{by: "rollback", to: next},
		{by: "upgrade", to: next, master: true},
		{by: "upgrade", to: after, master: true},
		// The master speaks 3.
		{by: "reload", to: this, refused: []string{"it speaks protocol 1 to 2, this master 3", none}},
		{by: "upgrade", to: this, refused: []string{"it speaks protocol 1 to 2, this master 3", none}},
		{by: "reload", to: next},
		{by: "upgrade", to: next, master: true},
		{by: "upgrade", to: this, master: true},
	} {
		cross(s, serves, c)
		if c.refused == nil {
			serves = c.to
		}
	}
	if line := s.waitLog("the reload becomes an upgrade"); !strings.Contains(line, "it speaks protocol 1 to 3, this master 1 to 2") {
		t.Errorf("the log does not say why: %s", line)
	}
	requireUnnoticed(s, finish())
	requireStops(s)
}

// beginLate begins a request of which a worker waits for the body.
func beginLate(s *service) *inFlight {
	s.t.Helper()
	f, err := dialService(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { f.c.Close() })
	if _, err := io.WriteString(f.c, "POST /late HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n"); err != nil {
		s.t.Fatal(err)
	}
	s.waitStatus("a worker waits for the body", func(st control.Status) bool { return open(serving(st)) == 1 })
	return f
}

// endLate ends it, and requires the answer of that release.
func endLate(t *testing.T, f *inFlight, r release) {
	t.Helper()
	if _, err := io.WriteString(f.c, "done"); err != nil {
		t.Fatal(err)
	}
	if a, err := f.answer(waitTime); err != nil || a.version != r.name || !strings.HasPrefix(a.body, `"done"`) {
		t.Errorf("the request under way: %+v, %v", a, err)
	}
	f.c.Close()
}

// Workers that still drain are of a release that the next master must be able to
// speak to.
func TestUpgradeWaitsForWorkersThatItCouldNotAdopt(t *testing.T) {
	s := newRelease(t, this)
	late := beginLate(s)
	finish := s.start(lightLoad())
	installRelease(s, next)
	if v := s.upgrade(); !v.OK {
		t.Fatalf("upgrade to next: %+v", v)
	}
	before := s.masterPID()
	installRelease(s, after)
	v := s.upgrade()
	if v.OK {
		t.Fatalf("upgrade to after: %+v", v)
	}
	requireParts(t, "the reason", v.Reason, "it speaks protocol 3, generation 1, which is draining, 1 to 2", "no version is common to both")
	if now := s.masterPID(); now != before {
		t.Errorf("the master is %d, was %d", now, before)
	}
	endLate(t, late, this)
	requireCoherent(s, next.name, 2)
	if v := s.upgrade(); !v.OK {
		t.Errorf("upgrade to after, once they have gone: %+v", v)
	}
	requireCoherent(s, after.name, 2)
	requireUnnoticed(s, finish())
	requireStops(s)
}

// What a worker of a later version says beyond what its master knows is no offence.
func TestWorkerOfALaterVersionMaySayMore(t *testing.T) {
	s := newRelease(t, next)
	cross(s, next, crossing{by: "upgrade", to: this, master: true})
	cross(s, this, crossing{by: "rollback", to: next})
	before := s.workers()
	w := attack(s, "unknown")
	// Its acknowledgement comes after what it said.
	eventually(t, waitTime, "it is asked once more", func() bool { return s.get("/").worker == w.ID })
	for i, now := range s.workers() {
		if now.PID != before[i].PID || now.State != control.WorkerServing {
			t.Errorf("worker %+v, was %+v", now, before[i])
		}
	}
	if n := s.countLog("broke the protocol"); n > 0 {
		t.Errorf("%d workers have broken the protocol", n)
	}
	requireStops(s)
}

// A new master finds what one of another version has left.
func TestCrashBetweenVersionsIsSurvivedOrLeftToTheRightRelease(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: this.name, Workers: 2, Listeners: fixedPort(t)}), withEnv(supervised))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 1, Think: 10 * time.Millisecond})})
	kills, left := 0, false
	for _, c := range []struct {
		to      release
		refused string
	}{
		{next, ""}, {this, ""}, {after, "speaks protocol 1 to 2, this release 3"},
		{next, ""}, {after, ""}, {this, "speaks protocol 3, this release 1 to 2"},
		{next, ""},
	} {
		version := s.get("/version").version
		installRelease(s, c.to)
		if !left {
			s.killMaster()
			kills++
		}
		left = c.refused != ""
		if c.refused == "" {
			s.restart()
			requireCoherent(s, c.to.name, 2)
			continue
		}
		for range 2 { // whoever supervises it does not know better
			s.launch()
			if ws, err := reaper.status(s.session, startTime); err != nil || ws.ExitStatus() != 75 {
				t.Fatalf("the master ended with %#x, %v; want 75", ws, err)
			}
			s.waitLog("baton: workers of another release serve: ")
			s.waitLog(c.refused)
			if a := s.get("/version"); a.version != version {
				t.Errorf("%s answers, want %s", a.version, version)
			}
		}
	}
	requireOnlyUnsent(s, finish(), kills)
	requireStops(s)
}

// Workers that nobody has adopted in time finish what they have, and are in
// nobody's way.
func TestReleaseThatCannotAdoptStartsWhenTheListenersAreFree(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Version: this.name, Workers: 2, Listeners: fixedPort(t)}), withEnv("BATON_ORPHAN_TIMEOUT=200ms"))
	late := beginLate(s)
	s.killMaster()
	s.waitLog("no new master has come, this worker finishes and leaves worker=1.1")
	s.waitLog("no new master has come, this worker finishes and leaves worker=1.2")
	installRelease(s, after)
	s.launch()
	s.waitServing()
	if a := s.get("/version"); a.version != after.name {
		t.Errorf("%s answers, want %s", a.version, after.name)
	}
	endLate(t, late, this)
	requireCoherent(s, after.name, 2)
	requireStops(s)
}

// Init is of the release that the container was started with, for as long as it
// lives.
func TestInitOutlivesVersions(t *testing.T) {
	for _, from := range []release{this, after} {
		t.Run(from.name, func(t *testing.T) {
			s := newRelease(t, from, inContainer)
			s.cfg.Options.PIDFile = "" // it has the pid of the namespace
			pid1 := s.initProcess()
			finish := s.start(lightLoad())
			to := []release{next, after}
			if from == after {
				to = []release{next, this}
			}
			for _, r := range to {
				installRelease(s, r)
				upgradeByInit(s)
				requireCoherent(s, r.name, 2)
			}
			installRelease(s, from)
			s.signalInit(syscall.SIGHUP)
			s.waitStatus("that is refused", func(st control.Status) bool { return st.LastDeploy != nil && !st.LastDeploy.OK })
			requireCoherent(s, to[1].name, 2)
			requireUnnoticed(s, finish())
			if now := s.initProcess(); now.PID != pid1.PID || now.Start != pid1.Start {
				t.Errorf("PID 1 is %d, was %d", now.PID, pid1.PID)
			}
			s.signalInit(syscall.SIGTERM)
			requireContainerEnds(s, 0)
		})
	}
}

// The file that init starts a master from may be of a release that cannot take
// the workers over. They serve until there is one that can.
func TestInitWaitsForAReleaseThatCanAdopt(t *testing.T) {
	s := newService(t, appConfig{Version: this.name, Workers: 2, Listeners: fixedPort(t)}, inContainer)
	clients := 0
	for _, p := range kept() {
		clients += p.Clients
	}
	finish := s.start(load.Config{Plans: kept()})
	s.waitStatus("all clients are connected", func(st control.Status) bool { return open(serving(st)) == clients })
	installRelease(s, after)
	s.killMaster()
	s.waitLog("speaks protocol 1 to 2, this release 3")
	if a := s.get("/version"); a.version != this.name {
		t.Errorf("%s answers, want %s", a.version, this.name)
	}
	installRelease(s, next)
	s.waitServing()
	requireConnectionsUnnoticed(t, finish())
	requireCoherent(s, next.name, 2)
	if n := s.countLog("INFO master started"); n < 3 {
		t.Errorf("%d masters were started, want one that was refused between two", n)
	}
	s.signalInit(syscall.SIGTERM)
	requireContainerEnds(s, 0)
}
