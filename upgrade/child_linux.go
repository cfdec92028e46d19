package upgrade

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initEnv tells a master which of its descriptors is the line to its init. It
// counts only together with such a socket, made by the parent.
const initEnv = "_BATON_INIT"

// masterProcess is a master as init knows it. Init collects it: no Wait of the
// os package may run beside that, so nothing of os starts it either.
type masterProcess struct {
	pid   int
	pidfd *os.File
	died  chan struct{} // closed when it has
}

// startMaster starts a master, with the descriptor theirs as its end of the
// line.
//
// It gets a process group of its own: a Ctrl-C reaches init, which passes it
// on, and must not reach the master twice. It may write to the terminal all the
// same. What else init has inherited, it inherits at the same numbers.
func startMaster(path string, argv []string, dir string, theirs int) (*masterProcess, error) {
	files := []uintptr{0, 1, 2}
	for fd := len(files); fd < theirs; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			files = append(files, uintptr(fd))
		} else {
			files = append(files, ^uintptr(0)) // none
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, initEnv+"=") })
	pidfd := -1
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   dir,
		Env:   append(env, fmt.Sprintf("%s=%d", initEnv, theirs)),
		Files: append(files, uintptr(theirs)),
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if pidfd >= 0 {
		return watch(pid, pidfd), nil
	}
	// A kernel before 5.4. It is our child and nobody else collects it, so the
	// pid is its own.
	return findMaster(pid), nil
}

// findMaster is a master that somebody else started and that has just spoken.
// One that is dead and collected already is found dead.
func findMaster(pid int) *masterProcess {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		p := &masterProcess{pid: pid, died: make(chan struct{})}
		if err == unix.ESRCH {
			close(p.died)
		}
		return p
	}
	return watch(pid, fd)
}

// watch waits for the end of a process in the runtime's poller. Its parent may
// be another, the master before it, which then gets its status.
func watch(pid, pidfd int) *masterProcess {
	_ = unix.SetNonblock(pidfd, true) // before NewFile: only then the poller takes it
	died := make(chan struct{})
	p := &masterProcess{pid: pid, died: died, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}
	go func() {
		defer p.pidfd.Close()
		raw, err := p.pidfd.SyscallConn()
		if err == nil {
			err = raw.Read(hasEnded)
		}
		if err == nil {
			close(died)
		}
	}()
	return p
}

func hasEnded(pidfd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// signal signals this very process, not one that has its pid now.
func (p *masterProcess) signal(sig syscall.Signal) error {
	if p == nil || p.pidfd == nil {
		return unix.ESRCH
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return serr
}
