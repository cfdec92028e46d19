//go:build linux

package main

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
	startTime = 30 * time.Second // bounds the start of a server
	endTime   = 10 * time.Second // from being asked to end to being killed
	poll      = 10 * time.Millisecond
)

// adoptOrphans makes a process that is started here and loses its parent a
// child of this one, so that none is lost sight of.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// apart keeps a Ctrl-C from a process: this one takes it, and ends the others.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func logPath(dir string) string { return filepath.Join(dir, "log") }

// launch starts a program in dir, with its output in the log there.
func launch(dir string, env []string, program string, args ...string) (*os.Process, error) {
	f, err := os.OpenFile(logPath(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = apart()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil // endAll waits for it
}

// endAll ends the server, and every process that descends from this one. No
// other goroutine may wait for a process meanwhile.
func endAll(s *server) error {
	if s != nil && s.end != nil {
		s.end()
		s.end = nil
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
	for deadline := time.Now().Add(bound); ; time.Sleep(poll) {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		left := descendants()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		for _, pid := range left {
			each(pid)
		}
	}
}

// descendants are the children of this process, theirs, and so on.
func descendants() []int {
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
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// pid (command) state parent …, and the command may hold anything.
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(f[1]))
	return parent
}

// until polls what tells of no event.
func until(ctx context.Context, what string, f func() bool) error {
	for !f() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(poll):
		}
	}
	return nil
}

// waitServing waits until the server answers.
func waitServing(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return until(ctx, "wait for "+addr, func() bool {
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

// waitLine waits for a log line that has part in it and returns what follows.
func waitLine(ctx context.Context, path, part string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var found string
	return found, until(ctx, fmt.Sprintf("wait for %q in %s", part, filepath.Base(path)), func() bool {
		text, _ := os.ReadFile(path)
		_, rest, _ := bytes.Cut(text, []byte(part))
		line, _, whole := bytes.Cut(rest, []byte("\n"))
		found = strings.TrimSpace(string(line))
		return whole
	})
}

// countLines counts the log lines that have part in them.
func countLines(path, part string) int {
	n := 0
	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte(part)) {
			n++
		}
	}
	return n
}

// lastLines are the last n lines of a log.
func lastLines(path string, n int) string {
	text, _ := os.ReadFile(path)
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// freeAddr is an address on loopback that nobody listened on just now.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
