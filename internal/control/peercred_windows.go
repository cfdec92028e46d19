package control

import (
	"errors"
	"net"
)

// peerUID refuses everybody: a Windows service is one process without a
// control socket, and there is no uid to compare.
func peerUID(*net.UnixConn) (int, error) { return -1, errors.ErrUnsupported }
