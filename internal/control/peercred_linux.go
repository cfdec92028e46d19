package control

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID is the effective user of the process that connected, as it was then.
func peerUID(c *net.UnixConn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	var serr error
	if err := rc.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return -1, err
	}
	if serr != nil {
		return -1, fmt.Errorf("getsockopt SO_PEERCRED: %w", serr)
	}
	return int(cred.Uid), nil
}
