package workers

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a worker's process, known by its pidfd: a bare pid can be reused
// between the look and the kill.
type process struct {
	pid   int
	pidfd *os.File
	fd    int  // of pidfd, for when the poller cannot wait for it
	child bool // an adopted process has another parent, which gets its status
}

// startProcess forks and executes path.
func startProcess(path string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	if pidfd < 0 {
		// Kernels before 5.4 or a seccomp filter. The child is ours and not
		// reaped yet, so its pid cannot have been reused.
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			return nil, fmt.Errorf("pidfd_open: %w (Linux 5.3 or newer is needed)", err)
		}
	}
	return newProcess(pid, pidfd, true)
}

func newProcess(pid, pidfd int, child bool) (*process, error) {
	// Non-blocking before NewFile: only then the runtime poller takes it.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	return &process{pid: pid, fd: pidfd, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), child: child}, nil
}

// adoptProcess takes over a process that an earlier master started.
func adoptProcess(pid int, pidfd *os.File) (*process, error) {
	fd, err := takeFD(pidfd)
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	return newProcess(pid, fd, false)
}

// wait blocks until the process has exited and returns its status, "unknown"
// if it is not our child.
func (p *process) wait() string {
	raw, err := p.pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			return exited(int(fd))
		})
	}
	for err != nil { // the poller did not take it: block a thread
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, -1)
	}
	if !p.child {
		return "unknown"
	}
	// It is our zombie, so the pid still names it.
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return "unknown"
		}
		return statusText(ws)
	}
}

// exited says whether the process of a pidfd has. A signal to this process, and
// the runtime sends itself many, interrupts even a poll that does not wait.
func exited(pidfd int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

// signal sends sig; a process that is gone already is no error.
func (p *process) signal(sig syscall.Signal) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		serr = unix.PidfdSendSignal(int(fd), sig, nil, 0)
	}); err != nil {
		return err
	}
	if serr == unix.ESRCH {
		return nil
	}
	return serr
}

// handle returns a duplicate of the pidfd to hand to another master.
func (p *process) handle() (*os.File, error) { return dupFile(p.pidfd) }

func (p *process) close() { p.pidfd.Close() }
