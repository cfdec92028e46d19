//go:build darwin || freebsd

package control

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// solLocal is the level of LOCAL_PEERCRED. FreeBSD's headers write it as a bare
// 0, so x/sys names it for darwin only.
const solLocal = 0

// peerUID is the effective user of the process that connected, as it was then.
func peerUID(c *net.UnixConn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Xucred
	var serr error
	if err := rc.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED)
	}); err != nil {
		return -1, err
	}
	if serr != nil {
		return -1, fmt.Errorf("getsockopt LOCAL_PEERCRED: %w", serr)
	}
	return int(cred.Uid), nil
}
