package listener

import "golang.org/x/sys/unix"

const optKeepIdle = unix.TCP_KEEPALIVE

// checkProtocol trusts family and type: there is no SO_PROTOCOL here.
func checkProtocol(int) error { return nil }
