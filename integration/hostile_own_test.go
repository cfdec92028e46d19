//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/control"
)

// What a worker was given is its own to ruin, and nobody else's: clients of the
// others go on, on the connections that they have and on new ones, and nobody stops
// listening.

// others are kept connections to the workers that do no harm.
type others []*inFlight

func connectOthers(s *service, ids ...string) (o others) {
	for _, id := range ids {
		o = append(o, s.connectTo(id))
	}
	return o
}

// requireServed asks on each of them.
func (o others) requireServed(t *testing.T) {
	t.Helper()
	for _, f := range o {
		err := f.send("/version")
		if err == nil {
			_, err = f.answer(waitTime)
		}
		if err != nil {
			t.Errorf("a client of another worker: %v", err)
		}
		f.c.Close()
	}
}

// attackBy has worker id attack, on a connection of its own, and returns it.
func attackBy(s *service, id, query string) control.Worker {
	s.t.Helper()
	w := workerCalled(s, id)
	f := s.connectTo(id)
	defer f.c.Close()
	err := f.send("/hostile?" + query)
	if err == nil {
		var a answer
		if a, err = f.answer(waitTime); err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
	}
	if err != nil {
		s.t.Fatalf("attack %s: %v", query, err)
	}
	return w
}

func TestWorkerCannotHarmWhatIsNotItsOwn(t *testing.T) {
	for _, name := range []string{"shutdown-all", "shutdown-conns"} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 3, Options: appOptions{KillTimeout: new(500 * time.Millisecond)}}, underAnother)
			st := s.status()
			rss := residentKB(t, st.Master.PID)
			watch := watchMaster(t, st.Master.PID)
			for range 3 {
				kept := connectOthers(s, "1.2", "1.3")
				w := attackBy(s, "1.1", "do="+name)
				during := startTimed(s)
				waitReplaced(s, w)
				during.waitAnswered(t)
				during.finish()
				kept.requireServed(t)
				// Those that it was given and had not served, or had, and ended.
				if n := len(during.failures); n > acceptBatch {
					t.Errorf("%d requests failed: %q", n, during.failures)
				}
				if len(listeningAt(t, s.addr)) != 1 {
					t.Fatal("nobody listens any more")
				}
			}
			watch.requireBounded()
			requireUnharmed(s, st, rss)
		})
	}
}

// underAnother makes the workers another user's, if the test may: one that has no more
// than it was given.
func underAnother(s *service) {
	if os.Getuid() == 0 {
		accessible(s)
		s.env = append(s.env, "BATON_USER=nobody")
	}
}

// socketPair is what a journal has with a service.
func socketPair() (r, w *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "journal"), os.NewFile(uintptr(fds[1]), "stderr"), nil
}

// The socket of a journal is everybody's. Who ends it takes the log from its
// master, and nothing else.
func TestWorkerCanEndTheLogAndNotTheMaster(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{KillTimeout: new(500 * time.Millisecond)}},
		underAnother, func(s *service) { s.journal = true })
	master := s.masterPID()
	lines := len(s.log.all())
	w := attackBy(s, "1.1", "do=shutdown-all")
	waitReplaced(s, w)
	for range 2 {
		if v := s.reload(); !v.OK {
			t.Errorf("reload: %+v", v)
		}
	}
	if n := len(s.log.all()); n > lines+1 {
		t.Fatalf("the log goes on: %q", s.log.all()[lines:])
	}
	if a := s.get("/version"); a.version != "v1" || s.masterPID() != master {
		t.Errorf("%+v by master %d, was %d", a, s.masterPID(), master)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// A worker that reads nothing and says that it is well is found out by what it does
// not take.
func TestWorkerThatReadsNothingIsFoundOut(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 3, Options: appOptions{HangTimeout: new(3 * time.Second)}})
	st := s.status()
	rss := residentKB(t, st.Master.PID)
	watch := watchMaster(t, st.Master.PID)
	kept := connectOthers(s, "1.2", "1.3")
	w := attackBy(s, "1.1", "do=deaf")
	during := startTimed(s)
	s.waitLog(fmt.Sprintf("worker does not answer, it gets no connections worker=1.1 pid=%d", w.PID))
	waitReplaced(s, w)
	during.waitAnswered(t)
	during.finish()
	if len(during.failures) > 0 {
		t.Errorf("%d requests failed: %q", len(during.failures), during.failures)
	}
	kept.requireServed(t)
	watch.requireBounded()
	requireUnharmed(s, st, rss)
}

// Floods of what is no error cost the others little, for as long as they go on.
func TestEndlessFloodHoldsUpNobody(t *testing.T) {
	for _, name := range []string{"flood-pongs", "flood-intros"} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Workers: 3})
			st := s.status()
			before := politely(s)
			rss := residentKB(t, st.Master.PID)
			watch := watchMaster(t, st.Master.PID)
			w := attackBy(s, "1.1", "do="+name)
			during := startTimed(s)
			during.waitAnswered(t)
			if v := s.reload(); !v.OK {
				t.Errorf("reload: %+v", v)
			}
			requireNoDelay(t, before, during.finish())
			s.waitStatus("it is gone", func(st control.Status) bool { _, err := readProcess(w.PID); return err != nil })
			watch.requireBounded()
			requireUnharmed(s, st, rss)
		})
	}
}

// Workers that a master has adopted are bounded as its own are: those of a master
// that it replaced, and those of one that was killed, which attack the socket at
// which they are waited for, too.
func TestAdoptedHostileWorkersAreBounded(t *testing.T) {
	t.Parallel() // it waits more than it works
	for how, names := range map[string][]string{
		"upgrade": {"flood-files", "flood-returns", "linger"},
		"kill":    {"flood-files", "flood-returns", "absurd-acks", "pester"},
	} {
		for _, name := range names {
			t.Run(how+" "+name, func(t *testing.T) {
				s := newService(t, appConfig{Version: "v1", Workers: 2, Options: appOptions{DrainTimeout: new(5 * time.Second), KillTimeout: new(500 * time.Millisecond)}}, withEnv(supervised))
				requireCoherent(s, "v1", 2)
				trigger := filepath.Join(s.dir, "attack")
				strike := func() {
					if err := os.WriteFile(trigger, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				w := attackBy(s, "1.1", "do="+name+"&when="+trigger)
				held := s.connectTo("1.1") // so that it does not leave before
				if err := held.send("/slow?d=1m"); err != nil {
					t.Fatal(err)
				}
				s.waitStatus("it has the slow request", func(st control.Status) bool { return workerOpen(st, w.PID) > 0 })
				kept := connectOthers(s, "1.2", "1.2", "1.2")
				if how == "upgrade" {
					if v := s.upgrade(); !v.OK {
						t.Fatalf("upgrade: %+v", v)
					}
				} else {
					s.killMaster()
					if name == "pester" {
						strike()
					}
					s.restart()
				}
				watch := watchMaster(t, s.masterPID())
				strike()
				s.waitLog("testapp: attacked")
				timed := startTimed(s)
				s.waitStatusFor(20*time.Second, "the hostile worker is gone", func(control.Status) bool { p, err := readProcess(w.PID); return err != nil || p.State == "Z" })
				timed.waitAnswered(t)
				timed.finish()
				if n := len(timed.failures); n > 0 {
					t.Errorf("%d requests failed: %q", n, timed.failures)
				}
				if q := timed.quantile(0.99); q > time.Second {
					t.Errorf("the 99th percentile is %v: %v", q, timed)
				}
				watch.requireBounded()
				kept.requireServed(t)
				held.c.Close()
				requireCoherent(s, "v1", 2)
				requireStops(s)
			})
		}
	}
}

func workerOpen(st control.Status, pid int) (open int64) {
	for _, g := range st.Generations {
		for _, w := range g.Processes {
			if w.PID == pid {
				open = w.Open
			}
		}
	}
	return open
}
