//go:build linux

// Package peers starts the servers that the comparisons of this repository are
// about, each set up as its own documentation has it, and leaves nothing of them.
package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	StartTime = 30 * time.Second      // bounds the start of a server
	Poll      = 10 * time.Millisecond // of what tells of no event

	endTime = 10 * time.Second // from being asked to end to being killed
)

// A Server is a peer that serves.
type Server struct {
	Addr    string
	Version string // of the programs that make it, "" for our own

	// End asks it to end, before what is left of it is killed. It may be nil.
	End func()
}

// AdoptOrphans makes a process that is started here and loses its parent a
// child of this one, so that none is lost sight of.
func AdoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// Apart keeps a Ctrl-C from a process: this one takes it, and ends the others.
func Apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// LogPath is where the output of what is launched in dir goes.
func LogPath(dir string) string { return filepath.Join(dir, "log") }

// Launch starts a program in dir, with its output in the log there.
func Launch(dir string, env []string, program string, args ...string) (*os.Process, error) {
	f, err := os.OpenFile(LogPath(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = Apart()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil // EndAll waits for it
}

// EndAll ends the server, which may be nil, and every process that descends from
// this one. No other goroutine may wait for a process meanwhile.
func EndAll(s *Server) error {
	if s != nil && s.End != nil {
		s.End()
		s.End = nil
		waitNone(endTime, func(int) {})
	}
	left := waitNone(endTime, func(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if len(left) > 0 {
		return fmt.Errorf("processes do not end: %v", left)
	}
	return nil
}

// waitNone collects what has ended until no process is left, and returns those
// that are when the time is over. It does each to all, again and again, for
// they may have children meanwhile.
func waitNone(bound time.Duration, each func(pid int)) []int {
	for deadline := time.Now().Add(bound); ; time.Sleep(Poll) {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		left := Descendants()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		for _, pid := range left {
			each(pid)
		}
	}
}

// Descendants are the children of this process, theirs, and so on.
func Descendants() []int {
	children := make(map[int][]int)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			parent := parentOf(pid)
			children[parent] = append(children[parent], pid)
		}
	}
	var found []int
	for next := children[os.Getpid()]; len(next) > 0; next = next[1:] {
		found = append(found, next[0])
		next = append(next, children[next[0]]...)
	}
	return found
}

// parentOf is 0 for a process that is gone.
func parentOf(pid int) int {
	f := statFields(pid)
	if len(f) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(f[1])
	return parent
}

// statFields are those of /proc/PID/stat from the state on, the third.
func statFields(pid int) []string {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// pid (command) state parent …, and the command may hold anything.
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// Until polls what tells of no event.
func Until(ctx context.Context, what string, f func() bool) error {
	for !f() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(Poll):
		}
	}
	return nil
}

// UntilServing polls what tells of no event, as long as the process lives.
func UntilServing(ctx context.Context, what string, p *os.Process, f func() bool) error {
	ended := false
	err := Until(ctx, what, func() bool {
		ended = hasEnded(p.Pid)
		return f() || ended
	})
	if err == nil && ended {
		return fmt.Errorf("%s: it has ended", what)
	}
	return err
}

// hasEnded is whether the process is gone, or waits to be collected.
func hasEnded(pid int) bool {
	f := statFields(pid)
	return len(f) == 0 || f[0] == "Z"
}

// WaitServing waits until the server answers.
func WaitServing(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return Until(ctx, "wait for "+addr, func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// WaitLine waits for a log line that has part in it and returns what follows.
func WaitLine(ctx context.Context, path, part string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	var found string
	return found, Until(ctx, fmt.Sprintf("wait for %q in %s", part, filepath.Base(path)), func() bool {
		text, _ := os.ReadFile(path)
		_, rest, _ := bytes.Cut(text, []byte(part))
		line, _, whole := bytes.Cut(rest, []byte("\n"))
		found = strings.TrimSpace(string(line))
		return whole
	})
}

// CountLines counts the log lines that have part in them.
func CountLines(path, part string) int {
	n := 0
	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte(part)) {
			n++
		}
	}
	return n
}

// LastLines are the last n lines of a log.
func LastLines(path string, n int) string {
	text, _ := os.ReadFile(path)
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// FreeAddr is an address on loopback that nobody listened on just now.
func FreeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
