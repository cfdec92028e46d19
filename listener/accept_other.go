//go:build unix && !linux

package listener

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoNet exists on Linux only; another name of a transient error stands in.
const errNoNet = unix.ENETDOWN

// acceptOne holds the fork lock until the descriptor is close-on-exec, or a
// concurrent fork would let a child inherit the connection.
func acceptOne(fd int) (int, syscall.Errno) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	conn, _, err := unix.Accept(fd)
	if err != nil {
		return -1, errnoOf(err)
	}
	unix.CloseOnExec(conn)
	if err := unix.SetNonblock(conn, true); err != nil {
		unix.Close(conn)
		return -1, errnoOf(err)
	}
	return conn, 0
}

func errnoOf(err error) syscall.Errno {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EINVAL
}
