//go:build unix

package listener

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The keep-alive of package net, so that a connection served by another
// process behaves like one that net accepted.
const (
	keepIdleSeconds     = 15
	keepIntervalSeconds = 15
	keepCount           = 9
)

// tune sets on the listening socket what accepted connections should have.
// They inherit it, which saves five system calls for each of them.
func tune(fd int) error {
	for _, o := range []struct {
		name              string
		level, opt, value int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"keep-alive idle time", unix.IPPROTO_TCP, optKeepIdle, keepIdleSeconds},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepIntervalSeconds},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	return nil
}
