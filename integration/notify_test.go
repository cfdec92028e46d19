//go:build linux

package integration

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// notified stands for systemd at the other end of NOTIFY_SOCKET.
type notified struct {
	t    *testing.T
	path string
	c    *net.UnixConn

	mu   sync.Mutex
	said []saying
}

type saying struct {
	pid   int // who said it
	lines []string
}

func newNotified(t *testing.T) *notified {
	t.Helper()
	n := &notified{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if n.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	raw, err := n.c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		n.c.Close()
		<-done
		if t.Failed() {
			t.Log(n)
		}
	})
	go func() {
		defer close(done)
		n.listen()
	}()
	return n
}

func (n *notified) listen() {
	buf, oob := make([]byte, 4096), make([]byte, 256)
	for {
		l, oobn, _, _, err := n.c.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		s := saying{lines: strings.Split(string(buf[:l]), "\n")}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range msgs {
			if cred, err := unix.ParseUnixCredentials(&m); err == nil {
				s.pid = int(cred.Pid)
			}
			fds, _ := unix.ParseUnixRights(&m)
			for _, fd := range fds {
				unix.Close(fd) // which is the answer to a barrier, too
			}
		}
		n.mu.Lock()
		n.said = append(n.said, s)
		n.mu.Unlock()
	}
}

// count is how often a line that begins so has been said, by pid or by anybody (0).
func (n *notified) count(pid int, prefix string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		for _, l := range s.lines {
			if strings.HasPrefix(l, prefix) && (pid == 0 || pid == s.pid) {
				c++
			}
		}
	}
	return c
}

func (n *notified) wait(pid, times int, prefix string) {
	n.t.Helper()
	eventually(n.t, waitTime, fmt.Sprintf("%q said %d times by %d", prefix, times, pid), func() bool { return n.count(pid, prefix) >= times })
}

// value is what the last line with that name says.
func (n *notified) value(name string) (v string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		for _, l := range s.lines {
			if rest, ok := strings.CutPrefix(l, name+"="); ok {
				v = rest
			}
		}
	}
	return v
}

// order returns the lines of those that begin with one of prefixes, as said.
func (n *notified) order(prefixes ...string) (all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		for _, l := range s.lines {
			for _, p := range prefixes {
				if strings.HasPrefix(l, p) {
					all = append(all, l)
				}
			}
		}
	}
	return all
}

func (n *notified) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	for _, s := range n.said {
		fmt.Fprintf(&b, "%d: %s\n", s.pid, strings.Join(s.lines, " "))
	}
	return "said to systemd:\n" + b.String()
}

func monotonicUsec(t *testing.T) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

func TestSystemdHearsOfReloads(t *testing.T) {
	n := newNotified(t)
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv("NOTIFY_SOCKET="+n.path))
	master := s.masterPID()
	n.wait(master, 1, "READY=1")
	n.wait(master, 1, "STATUS=generation 1 serving with 2 workers")

	// As systemd does for Type=notify-reload.
	asked := monotonicUsec(t)
	s.signal(syscall.SIGHUP)
	n.wait(master, 2, "READY=1")
	if at, err := strconv.ParseInt(n.value("MONOTONIC_USEC"), 10, 64); err != nil || at < asked || at > monotonicUsec(t) {
		t.Errorf("the reload began at %q, asked for at %d (%v)", n.value("MONOTONIC_USEC"), asked, err)
	}
	n.wait(master, 1, "STATUS=generation 2 serving with 2 workers")

	// A refused one is at an end, too, and can be read about.
	s.install(appConfig{Version: "v2", Workers: 2, Fail: config.FailBuild})
	if v := s.reload(); v.OK {
		t.Fatal("a release that fails was not refused")
	}
	n.wait(master, 3, "READY=1")
	n.wait(master, 1, "STATUS=generation 2 serving with 2 workers; last reload refused: ")

	if v := s.stop(); !v.OK {
		t.Fatal(v)
	}
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if n.count(0, "EXTEND_TIMEOUT_USEC=") < 4 {
		t.Error("start, two reloads or the stop were given no time")
	}
	want := "READY=1 RELOADING=1 READY=1 RELOADING=1 READY=1 STOPPING=1"
	if got := strings.Join(n.order("READY=", "RELOADING=", "STOPPING=", "MAINPID="), " "); got != want {
		t.Errorf("said %s, want %s", got, want)
	}
	t.Log(n)
}

func TestSystemdHearsOfUpgradesFromTheOldMaster(t *testing.T) {
	n := newNotified(t)
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv("NOTIFY_SOCKET="+n.path, "WATCHDOG_USEC=1000000"))
	first := s.masterPID()
	n.wait(first, 2, "WATCHDOG=1")

	s.install(appConfig{Version: "v2", Workers: 2, Fail: config.FailBuild})
	if v := s.upgrade(); v.OK {
		t.Fatal("a release that fails was not refused")
	}
	s.install(appConfig{Version: "v2", Workers: 2})
	if v := s.upgrade(); !v.OK {
		t.Fatal(v)
	}
	// The verdict comes after systemd has heard it.
	if got := n.count(first, "MAINPID="); got != 1 {
		t.Fatalf("the old master told of %d new ones", got)
	}
	second := s.masterPID()
	n.wait(second, 1, "STATUS=generation ")
	n.wait(second, 2, "WATCHDOG=1")
	n.wait(second, 1, "FDSTORE=1")
	if n.count(second, "READY=1") > 0 {
		t.Error("the new master told that it is ready, who may not be believed yet")
	}
	// While the old one lived it was no child of systemd's. That it is now systemd
	// sees when the main process changes: another one stands in for a moment.
	var third int
	n.mu.Lock()
	for _, said := range n.said {
		if said.pid == first || said.pid == second {
			continue
		}
		if line := said.lines[0]; third == 0 && line == "MAINPID="+strconv.Itoa(second) {
			third = said.pid
		} else if said.pid != third || line != "BARRIER=1" {
			t.Errorf("%d is neither master, but said %q", said.pid, said.lines)
		}
	}
	n.mu.Unlock()
	want := fmt.Sprintf("READY=1 RELOADING=1 READY=1 RELOADING=1 MAINPID=%d READY=1 MAINPID=%d MAINPID=%d MAINPID=%d", second, third, second, second)
	if got := strings.Join(n.order("READY=", "RELOADING=", "STOPPING=", "MAINPID="), " "); got != want {
		t.Errorf("said %s, want %s", got, want)
	}
	t.Log(n)
}

func TestAServiceGoesOnWhenSystemdIsGone(t *testing.T) {
	n := newNotified(t)
	s := newService(t, appConfig{Version: "v1", Workers: 1}, withEnv("NOTIFY_SOCKET="+n.path))
	n.wait(0, 1, "READY=1")
	n.c.Close()
	if v := s.reload(); !v.OK {
		t.Fatal(v)
	}
	if v := s.upgrade(); !v.OK {
		t.Fatal(v)
	}
	s.waitLog("systemd does not hear how the service is")
	if r := s.get("/version"); r.version != "v1" {
		t.Errorf("version %q", r.version)
	}
	s.waitStatus("serving", func(st control.Status) bool { return st.State == control.StateServing })
}
