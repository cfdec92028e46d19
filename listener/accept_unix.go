//go:build unix

package listener

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// transientLimit bounds the transient errors of one call. Most of them use up
// a connection that has died in the queue, but EPERM from a security module
// does not, and would spin for ever.
const transientLimit = 128

// acceptQueued fills fds from the queue of a non-blocking socket. It stops
// when fds are full (errno 0) or with the errno that stopped it; EAGAIN means
// that the queue is empty.
func acceptQueued(fd int, fds []int) (n int, errno syscall.Errno) {
	for failed := 0; n < len(fds); {
		conn, errno := acceptOne(fd)
		switch {
		case errno == 0:
			fds[n] = conn
			n++
		case errno == syscall.EAGAIN:
			return n, errno
		case isTransient(errno) && failed < transientLimit:
			failed++
		case isFull(errno) && !queued(fd):
			// The kernel looks for a descriptor before it looks into the
			// queue: at the limit an idle listener gives EMFILE, too.
			return n, syscall.EAGAIN
		default:
			return n, errno
		}
	}
	return n, 0
}

// isFull is true when this process or the system has run out of something
// that comes back.
func isFull(errno syscall.Errno) bool {
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
		return true
	}
	return false
}

// isTransient is true for errors that concern one connection. Linux hands
// pending network errors of the new connection to accept; accept(2) says to
// treat them like EAGAIN and try again.
func isTransient(errno syscall.Errno) bool {
	switch errno {
	case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN,
		unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.EHOSTUNREACH,
		unix.EOPNOTSUPP, unix.ENETUNREACH, unix.EPERM:
		return true
	}
	return errno == errNoNet
}

// queued is true when a connection waits, or when that cannot be told.
func queued(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err != nil || n > 0
}
