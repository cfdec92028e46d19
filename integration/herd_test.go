//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/control"
)

// herd are connections that their clients keep. They are bare descriptors:
// thousands cost the test no goroutine and no buffer each.
type herd struct {
	s       *service
	fds     []int
	replies map[int]*reply // by descriptor, of the request under way
}

// reply is what has come on a connection since its last request.
type reply struct {
	text []byte
	err  error // what else there was in the place of an answer
}

// herdRequest has an answer that ends with its body.
const herdRequest = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

// done says whether there is no more to come.
func (r *reply) done() bool { return r.err != nil || bytes.HasSuffix(r.text, []byte("\r\n\r\nok\n")) }

// check returns what is wrong with the answer. A connection that goes on is not
// told to close.
func (r *reply) check(goesOn bool) error {
	switch {
	case r.err != nil:
		return fmt.Errorf("%q, then %w", r.text, r.err)
	case !bytes.HasPrefix(r.text, []byte("HTTP/1.1 200 OK\r\n")),
		goesOn && bytes.Contains(r.text, []byte("Connection: close")):
		return fmt.Errorf("answer %q", r.text)
	}
	return nil
}

// generation is that of the worker which answered, as in "2.1".
func (r *reply) generation() string {
	_, after, _ := bytes.Cut(r.text, []byte("X-Worker: "))
	number, _, _ := bytes.Cut(after, []byte("."))
	return string(number)
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
	h := &herd{s: s, replies: map[int]*reply{}}
	s.t.Cleanup(h.close)
	for asked := 0; asked < n; asked = len(h.fds) {
		for range min(100, n-asked) { // a listener's queue holds more
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				s.t.Fatal(err)
			}
			h.fds = append(h.fds, fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				s.t.Fatalf("connection %d of %d: %v", len(h.fds), n, err)
			}
		}
		h.request(h.fds[asked:])
		h.collect(waitTime, nil)
		h.require(true)
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

var errUnasked = errors.New("something came unasked")

// request sends a request on each of the connections. On none of them anything
// may have come before, its end included.
func (h *herd) request(fds []int) {
	h.replies = make(map[int]*reply, len(fds))
	for _, fd := range fds {
		r := &reply{}
		h.replies[fd] = r
		if r.read(fd); r.err != nil || len(r.text) > 0 {
			r.err = errors.Join(errUnasked, r.err)
			continue
		}
		_, r.err = unix.Write(fd, []byte(herdRequest))
	}
}

// read takes what there is.
func (r *reply) read(fd int) {
	var b [1024]byte
	switch n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT); {
	case n > 0:
		r.text = append(r.text, b[:n]...)
	case err == nil:
		r.err = errors.New("the end of the connection")
	case err != unix.EAGAIN && err != unix.EINTR:
		r.err = err
	}
}

// collect takes answers until there are all, or enough says that so many will
// do, for as long as bound. It returns how many there are.
func (h *herd) collect(bound time.Duration, enough func(n int) bool) (n int) {
	var waiting []unix.PollFd
	for fd, r := range h.replies {
		if !r.done() {
			waiting = append(waiting, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	for end := time.Now().Add(bound); ; {
		if n = len(h.replies) - len(waiting); n == len(h.replies) || enough != nil && enough(n) || time.Now().After(end) {
			return n
		}
		_, _ = unix.Poll(waiting, 10)
		waiting = slices.DeleteFunc(waiting, func(p unix.PollFd) bool {
			if p.Revents == 0 {
				return false
			}
			r := h.replies[int(p.Fd)]
			r.read(int(p.Fd))
			return r.done()
		})
	}
}

// answered are the connections with an answer, unanswered the others.
func (h *herd) answered() []int {
	return slices.DeleteFunc(slices.Collect(maps.Keys(h.replies)), func(fd int) bool { return !h.replies[fd].done() })
}

func (h *herd) unanswered() []int {
	return slices.DeleteFunc(slices.Collect(maps.Keys(h.replies)), func(fd int) bool { return h.replies[fd].done() })
}

// require requires that every request was answered as it should.
func (h *herd) require(goesOn bool) {
	h.s.t.Helper()
	var wrong []error
	for fd, r := range h.replies {
		if !r.done() {
			r.err = errors.New("no more")
		}
		if err := r.check(goesOn); err != nil {
			wrong = append(wrong, fmt.Errorf("descriptor %d: %w", fd, err))
		}
	}
	if len(wrong) > 0 {
		h.s.t.Fatalf("%d of %d requests failed, such as %v", len(wrong), len(h.replies), wrong[0])
	}
}

// requireUnnoticed requires that each connection is open, and serves.
func (h *herd) requireUnnoticed() {
	h.s.t.Helper()
	h.request(h.fds)
	h.collect(goneTime, nil)
	h.require(true)
}

// goneTime bounds what thousands of connections do, on a machine that does much
// else. How long it takes by itself is printed.
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

// unacked is how many a generation's workers have been sent and not taken.
func unacked(g *control.Generation) (n int) {
	for _, w := range g.Processes {
		n += w.Unacked
	}
	return n
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
	t.Cleanup(func() {
		select {
		case <-stop:
		default:
			close(stop)
		}
	})
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
