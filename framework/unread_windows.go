package framework

import "net"

// unread cannot tell here; that nothing was read has to do.
func unread(net.Conn) int { return 0 }
