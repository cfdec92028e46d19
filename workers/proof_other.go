//go:build unix && !linux

package workers

import "golang.org/x/sys/unix"

// untouched cannot tell here; the missing acknowledgement has to do.
func untouched(int) bool { return true }

// closeForeign closes sockets that a worker has had in its hands: with
// lingering off, which it could have turned on.
func closeForeign(fds []int) {
	for _, fd := range fds {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		unix.Close(fd)
	}
}
