package control

import (
	"net"

	"golang.org/x/sys/unix"
)

// bindPrivate binds path with no moment at which others could connect. Linux
// gives the file the mode of the socket's own inode, so the umask, which belongs
// to the whole process, is left alone.
func bindPrivate(path string) (*net.UnixListener, error) {
	return listenUnix(path, func(fd int) error { return unix.Fchmod(fd, uint32(socketMode)) })
}
