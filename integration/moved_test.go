//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/control"
)

// herd are connections that their clients keep, idle. They are bare descriptors:
// thousands cost the test no goroutine and no buffer each.
type herd struct {
	s   *service
	fds []int
}

// gather opens n connections, and has one request answered on each.
func gather(s *service, n int) *herd {
	s.t.Helper()
	requireFiles(s.t, n+200)
	_, text, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	port, _ := strconv.Atoi(text)
	h := &herd{s: s}
	s.t.Cleanup(h.close)
	limit := unix.NsecToTimeval(int64(waitTime))
	for len(h.fds) < n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		h.fds = append(h.fds, fd)
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			s.t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			s.t.Fatalf("connection %d of %d: %v", len(h.fds), n, err)
		}
		if len(h.fds)%100 == 0 || len(h.fds) == n { // a listener's queue holds more
			if failed := h.ask(h.fds[(len(h.fds)-1)/100*100:]); len(failed) > 0 {
				s.t.Fatalf("a first request: %v", failed[0])
			}
		}
	}
	return h
}

// requireFiles requires that the test can have n descriptors.
func requireFiles(t *testing.T, n int) {
	t.Helper()
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Cur < uint64(n) {
		t.Skipf("RLIMIT_NOFILE is %d, this test needs %d", files.Cur, n)
	}
}

func (h *herd) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
}

// ask sends a request on each of the connections, then reads the answers. It
// returns what went wrong, one error a connection.
func (h *herd) ask(fds []int) (failed []error) {
	wrong := func(fd int, format string, args ...any) {
		failed = append(failed, fmt.Errorf("descriptor %d: "+format, append([]any{fd}, args...)...))
	}
	asked := make([]int, 0, len(fds))
	for _, fd := range fds {
		// Nobody says anything unasked, its end included.
		var b [64]byte
		if n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT); err != unix.EAGAIN {
			wrong(fd, "before the request %q, %v", b[:max(n, 0)], err)
			continue
		}
		if _, err := unix.Write(fd, []byte("GET / HTTP/1.1\r\nHost: test\r\n\r\n")); err != nil {
			wrong(fd, "request: %w", err)
			continue
		}
		asked = append(asked, fd)
	}
	for _, fd := range asked {
		var answer []byte
		var b [1024]byte
		for !bytes.HasSuffix(answer, []byte("\r\n\r\nok\n")) {
			n, err := unix.Read(fd, b[:])
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				wrong(fd, "answer %q, then %v", answer, err)
				break
			}
			answer = append(answer, b[:n]...)
		}
		if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 OK\r\n")) || bytes.Contains(answer, []byte("Connection: close")) {
			wrong(fd, "answer %q", answer)
		}
	}
	return failed
}

// requireUnnoticed requires that each connection is open, and serves.
func (h *herd) requireUnnoticed() {
	h.s.t.Helper()
	if failed := h.ask(h.fds); len(failed) > 0 {
		h.s.t.Errorf("%d of %d connections failed, such as %v", len(failed), len(h.fds), failed[0])
	}
}

// goneTime bounds a move of thousands of connections on a machine that does
// much else. What it takes by itself is printed.
const goneTime = 20 * time.Second

// waitGone waits until all of these have ended, asking nobody but the kernel.
func waitGone(t *testing.T, ps []control.Worker) {
	t.Helper()
	for _, p := range ps {
		eventually(t, goneTime, "the old worker "+p.ID+" has ended", func() bool {
			now, err := readProcess(p.PID)
			return err != nil || now.State == "Z"
		})
	}
}

// open is how many connections a generation's workers have.
func open(g *control.Generation) (n int) {
	for _, w := range g.Processes {
		n += int(w.Open)
	}
	return n
}

func TestThousandsOfIdleConnectionsMove(t *testing.T) {
	n := tier(2000, 10_000)
	for _, c := range []struct {
		name string
		sig  syscall.Signal
	}{{"reload", syscall.SIGHUP}, {"upgrade", syscall.SIGUSR2}} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2})
			h := gather(s, n)
			before := s.status()
			old := serving(before).Processes
			if got := open(serving(before)); got != n {
				t.Fatalf("the workers have %d connections, want %d", got, n)
			}
			s.install(appConfig{Version: "v2", Workers: 2})

			most := watchFiles(t, before.Master.PID)
			began := time.Now()
			s.signal(c.sig)
			line := s.waitLog("generation 2 serving")
			committed := time.Now()
			waitGone(t, old)
			gone := time.Now()
			t.Logf("%d connections: the new generation served after %v, and the old workers were gone %v later (%s; %s); the master had %d descriptors at most",
				n, committed.Sub(began).Round(time.Millisecond), gone.Sub(committed).Round(time.Millisecond),
				line, s.waitLog("generation 1 drained"), most())

			h.requireUnnoticed()
			st := s.waitStatus("only the new generation", oneGeneration)
			if got := open(serving(st)); got != n {
				t.Errorf("the new workers have %d connections, want %d", got, n)
			}
			checkLedger(t, st)
		})
	}
}

// watchFiles counts the descriptors of a process until the result is called,
// and that returns the most there were at a time.
func watchFiles(t *testing.T, pid int) (most func() int) {
	t.Helper()
	stop, result := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			n = max(n, countFiles(pid))
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				result <- n
				return
			}
		}
	}()
	return func() int {
		close(stop)
		return <-result
	}
}

// countFiles is how many descriptors a process has, 0 if there is no such process.
func countFiles(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}
