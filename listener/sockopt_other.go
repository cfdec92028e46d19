//go:build unix && !linux && !darwin

package listener

import "golang.org/x/sys/unix"

const optKeepIdle = unix.TCP_KEEPIDLE

// checkProtocol trusts family and type.
func checkProtocol(int) error { return nil }
