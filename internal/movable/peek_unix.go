//go:build unix

package movable

import "syscall"

// queued reports whether bytes wait to be read. The deadline that wakes a Read
// ends it without another look at the socket.
func queued(c Stream) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	waiting := false
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waiting = err == nil && n > 0
	})
	return waiting
}
