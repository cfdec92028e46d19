package listener

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const optKeepIdle = unix.TCP_KEEPIDLE

// checkProtocol refuses what looks like TCP and is not. An MPTCP socket moves
// between transports under our feet: TCP_INFO and reuseport programs do not
// see what it does.
func checkProtocol(fd int) error {
	p, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case err != nil:
		return fmt.Errorf("get SO_PROTOCOL: %w", err)
	case p == unix.IPPROTO_MPTCP:
		return errors.New("expected plain TCP, got MPTCP")
	case p != unix.IPPROTO_TCP:
		return fmt.Errorf("expected TCP, got protocol %d", p)
	}
	return nil
}
