package systemd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// StorePipe leaves the writing end of a new pipe with the manager and returns the
// reading end: it ends when the manager gives up what it stores for the service,
// which is when the service is stopped for good. Once nobody has a reading end
// the manager forgets the pipe. nil without an error: the manager stores nothing
// for this service.
func (n *Notifier) StorePipe(name string, timeout time.Duration) (*os.File, error) {
	if n == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	err = n.Store(name, w)
	w.Close()
	if err == nil {
		err = n.Barrier(timeout)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	if ended, err := hungUp(r); err != nil || ended {
		r.Close()
		return nil, err
	}
	return r, nil
}

// OtherEnd returns a reading end of the pipe of which w is the writing end.
func OtherEnd(w *os.File) (r *os.File, err error) {
	err = withFD(w, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			return errors.New("what is stored is no pipe")
		}
		n, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("open", err)
		}
		r = os.NewFile(uintptr(n), "pipe")
		return nil
	})
	return r, err
}

// hungUp says whether nobody has the writing end of r any more.
func hungUp(r *os.File) (ended bool, err error) {
	err = withFD(r, func(fd int) error {
		for {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			_, err := unix.Poll(fds, 0)
			if err == unix.EINTR {
				continue
			}
			ended = fds[0].Revents&unix.POLLHUP != 0
			return os.NewSyscallError("poll", err)
		}
	})
	return ended, err
}
