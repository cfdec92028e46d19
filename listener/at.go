package listener

import (
	"net"
	"net/netip"
	"path/filepath"
)

// BoundAt says whether a socket that is bound to a is what s asks for: the same
// address, or any where s leaves it open. A host name is asked of nobody, and is
// at no address.
func (s Spec) BoundAt(a net.Addr) bool {
	switch a := a.(type) {
	case *net.UnixAddr:
		if s.Network != "unix" {
			return false
		}
		if s.abstract() || filepath.IsAbs(s.Address) == filepath.IsAbs(a.Name) {
			return filepath.Clean(s.Address) == filepath.Clean(a.Name)
		}
		abs, err := filepath.Abs(s.Address)
		return err == nil && abs == filepath.Clean(a.Name)
	case *net.TCPAddr:
		return s.Network != "unix" && s.boundAtTCP(a.AddrPort())
	}
	return false
}

func (s Spec) boundAtTCP(a netip.AddrPort) bool {
	host, service, err := net.SplitHostPort(s.Address)
	if err != nil {
		return false
	}
	if port, err := net.LookupPort(s.Network, service); err != nil || port != 0 && port != int(a.Port()) {
		return false
	}
	at := a.Addr().Unmap()
	if s.Network == "tcp4" && !at.Is4() || s.Network == "tcp6" && at.Is4() {
		return false
	}
	if host == "" {
		return at.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap() == at
}
