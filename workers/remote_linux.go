package workers

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// remote is what getpeername writes into: the wrapper in x/sys allocates its
// result, and so would a variable that the system call is given the address of.
type remote struct {
	addr unix.RawSockaddrAny
	size uint32
}

// of returns the address of the other end of fd, the zero value if it has none
// or is not connected any more.
func (p *remote) of(fd int) netip.AddrPort {
	p.size = unix.SizeofSockaddrAny
	_, _, errno := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&p.addr)), uintptr(unsafe.Pointer(&p.size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	switch p.addr.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.addr))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), fromNetwork(a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(&p.addr))
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), fromNetwork(a.Port))
	}
	return netip.AddrPort{}
}

// fromNetwork reads a port as it lies in memory.
func fromNetwork(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}
