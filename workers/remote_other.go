//go:build unix && !linux

package workers

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// remote asks for the other end of a connection.
type remote struct{}

// of returns the address of the other end of fd, the zero value if it has none
// or is not connected any more.
func (remote) of(fd int) netip.AddrPort {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
