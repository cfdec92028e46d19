package workers

import (
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// remoteAddr is the address of the other end of fd.
func remoteAddr(fd int, network string) (net.Addr, error) {
	if network == "unix" {
		sa, err := unix.Getpeername(fd)
		return unixAddr(sa), err
	}
	return tcpAddr(fd, unix.SYS_GETPEERNAME)
}

// localAddr is the address of our end.
func localAddr(fd int, network string) (net.Addr, error) {
	if network == "unix" {
		sa, err := unix.Getsockname(fd)
		return unixAddr(sa), err
	}
	return tcpAddr(fd, unix.SYS_GETSOCKNAME)
}

func unixAddr(sa unix.Sockaddr) net.Addr {
	a := &net.UnixAddr{Net: "unix"}
	if sa, ok := sa.(*unix.SockaddrUnix); ok {
		a.Name = sa.Name
	}
	return a
}

func tcpAddr(fd int, call uintptr) (net.Addr, error) {
	var addr unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	if _, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&addr)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return nil, errno
	}
	switch addr.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&addr))
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(a.Addr), fromNetwork(a.Port))), nil
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(&addr))
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if a.Scope_id != 0 {
			ip = ip.WithZone(zone(int(a.Scope_id)))
		}
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, fromNetwork(a.Port))), nil
	}
	return nil, unix.EAFNOSUPPORT
}

// zone is the name of a network interface, as far as it has one.
func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}
