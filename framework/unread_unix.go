//go:build unix

package framework

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unread is the number of bytes that have arrived for c and not been read.
func unread(c net.Conn) int {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), fionread) })
	return n
}
