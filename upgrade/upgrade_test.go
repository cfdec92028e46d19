//go:build unix

package upgrade

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// service is an old process, and what it and its successors report.
type service struct {
	t       *testing.T
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	reports chan report
}

func startService(t *testing.T, task string, env ...string) *service {
	t.Helper()
	s := &service{t: t, reports: make(chan report, 16)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(append(os.Environ(), taskEnv+"="+task, "GORACE=atexit_sleep_ms=0"), env...)
	s.cmd.Stdout = w
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	go func() {
		defer close(s.reports)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			var rep report
			if err := json.Unmarshal(lines.Bytes(), &rep); err != nil {
				t.Errorf("process says %q", lines.Text())
				continue
			}
			s.reports <- rep
		}
	}()
	t.Cleanup(func() {
		s.stdin.Close()
		if t.Failed() {
			_ = s.cmd.Process.Kill()
		}
		_ = s.cmd.Wait()
		for r := range s.reports { // until the last process has closed it
			t.Errorf("not asked for: %+v", r)
		}
	})
	return s
}

func (s *service) upgrade(how string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stdin, how+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) report() report {
	s.t.Helper()
	select {
	case r, ok := <-s.reports:
		if !ok {
			s.t.Fatal("all processes are gone")
		}
		return r
	case <-time.After(2 * patience):
		s.t.Fatal("no report")
	}
	panic("unreachable")
}

// refused returns the report of an upgrade that did not happen.
func (s *service) refused(how string) report {
	s.t.Helper()
	s.upgrade(how)
	r := s.report()
	if r.Who != "old" || r.Err == "" || r.Froze != r.Thawed {
		s.t.Fatalf("%s: %+v", how, r)
	}
	return r
}

// succeeds upgrades and checks everything about it.
func (s *service) succeeds(how string, pid int) {
	s.t.Helper()
	s.upgrade(how)
	old, new := s.report(), s.report()
	if old.Who == "new" { // they write at the same time
		old, new = new, old
	}
	if old.Err != "" || old.PID != pid || old.Froze != 1 || old.Thawed != 0 || old.Successor != new.PID {
		s.t.Errorf("old: %+v, new pid %d", old, new.PID)
	}
	if new.Err != "" || new.Offer != "the offer" || new.Kept != "kept" || new.Marker || new.Leaky {
		s.t.Errorf("new: %+v", new)
	}
	if want := []string{"a=data of a:a0", "b=data of b:b0:b1"}; !slices.Equal(new.Entries, want) {
		s.t.Errorf("entries %q, want %q", new.Entries, want)
	}
}

func TestUpgrade(t *testing.T) {
	s := startService(t, "old")
	s.succeeds("good", s.cmd.Process.Pid)
}

func TestUpgradeAfterFailures(t *testing.T) {
	s := startService(t, "old")
	if r := s.refused("exits"); !strings.Contains(r.Err, "exit status 3") || r.Froze != 0 || !strings.Contains(r.Stderr, "port 80 is not for me") {
		t.Errorf("exits: %+v", r)
	}
	if r := s.refused("refuses"); r.Err != "the configuration is bad" || r.Froze != 0 {
		t.Errorf("refuses: %+v", r)
	}
	if r := s.refused("dies"); !strings.Contains(r.Err, "killed") || r.Froze != 1 {
		t.Errorf("dies: %+v", r)
	}
	if r := s.refused("freeze fails"); !strings.Contains(r.Err, "too warm") || r.Froze != 1 {
		t.Errorf("freeze fails: %+v", r)
	}
	s.succeeds("good", s.cmd.Process.Pid)
}

func TestCandidateThatHangsIsKilledAndTheOldGoesOn(t *testing.T) {
	s := startService(t, "old")
	r := s.refused("hangs")
	if !strings.Contains(r.Err, "did not take over within") || r.Froze != 1 {
		t.Errorf("hangs: %+v", r)
	}
	s.succeeds("good", s.cmd.Process.Pid)
}

// Who takes over from a process that dies in the last moment can be replaced in
// its turn.
func TestHeirCanBeUpgraded(t *testing.T) {
	s := startService(t, "old")
	s.upgrade("loses its predecessor")
	for range 2 {
		if r := s.report(); r.Who != "new" || r.Err != "" {
			t.Errorf("%+v", r)
		}
	}
}

// The old process dies right after it has begun to act again: the new one must
// not take over what was true before.
func TestCandidateThatIsTooSlowNeverTakesOver(t *testing.T) {
	s := startService(t, "old")
	s.upgrade("slow")
	var who []string
	for range 2 {
		r := s.report()
		who = append(who, r.Who)
		if r.Who == "new" && r.Err == "" {
			t.Errorf("it took over: %+v", r)
		}
	}
	slices.Sort(who)
	if want := []string{"new", "old, thawed"}; !slices.Equal(who, want) {
		t.Errorf("reports of %q, want %q", who, want)
	}
}

func TestUpgradeEndsWithItsContext(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "waits")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startService(t, "old", "UPGRADE_TEST_FIFO="+fifo)
	if r := s.refused("cancelled"); !r.Cause || r.Err != "the test wants it to end" || r.Froze != 0 {
		t.Errorf("%+v", r)
	}
	s.succeeds("good", s.cmd.Process.Pid)
}

func TestProcessesOfTheNewOneAreOnTheirOwn(t *testing.T) {
	s := startService(t, "old")
	s.upgrade("leaks")
	for range 3 {
		switch r := s.report(); {
		case r.Who == "new" && (r.Err != "" || !r.Parent), r.Who == "old" && (r.Err != "" || r.Marker):
			t.Errorf("%+v", r)
		}
	}
}

func TestStrayMarkerIsIgnored(t *testing.T) {
	s := startService(t, "alone", flipEnv+"=yes")
	if r := s.report(); r.Err != "" || r.Parent || r.Marker {
		t.Errorf("%+v", r)
	}
}
