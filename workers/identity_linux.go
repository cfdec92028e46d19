package workers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// canOutlive: workers can live on without their master. It takes that a process
// can be known for certain, and whoever connects to a socket.
const canOutlive = true

var errGone = errors.New("it is gone")

// startTime is when a process started, in clock ticks since boot: a pid and its
// start name a process for ever.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name is in parentheses and may hold anything.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const field = 19 // the 22nd, counted from the name, which is the second
	if len(f) <= field {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	return strconv.ParseUint(f[field], 10, 64)
}

// findProcess opens the process that had this pid and start, not another that
// has the pid now. The descriptor comes first: if the start is right then, it
// is of the same process.
func findProcess(pid int, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p, err := newProcess(pid, fd, false)
	if err != nil {
		return nil, err
	}
	if now, err := startTime(pid); err != nil || now != start || !p.alive() {
		p.close()
		return nil, fmt.Errorf("process %d: %w", pid, errGone)
	}
	return p, nil
}

// alive says whether the process has not exited.
func (p *process) alive() bool {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	_ = raw.Control(func(fd uintptr) { alive = !exited(int(fd)) })
	return alive
}

// executable opens what a process runs, wherever it is by now.
func (p *process) executable() (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/exe", p.pid))
}

// maxEnviron is more than an environment can have.
const maxEnviron = 8 << 20

// environ is the environment that a process was started with.
func (p *process) environ() ([]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/environ", p.pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	if err != nil {
		return nil, err
	}
	var env []string
	for kv := range strings.SplitSeq(string(b), "\x00") {
		if kv != "" && !strings.HasPrefix(kv, MarkerEnv+"=") {
			env = append(env, kv)
		}
	}
	return env, nil
}

// peer is the process that connected fd, and its user, as they were then.
func peer(fd int) (pid, uid int, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// cookie is the number of a socket, which no other has until the next boot; 0 if
// fd is no socket.
func cookie(fd int) uint64 {
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0
	}
	return n
}
