//go:build unix

package listener

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// FromFile makes a Listener of an inherited socket and takes ownership of f,
// also when it fails. It refuses what does not listen and what does not fit
// s.Network; the address is not compared, because a name or port 0 cannot be.
// Connections in the queue stay there. Mode and Owner of a file that already
// exists are left as they are.
//
// Close removes the file of a unix socket only if the socket is bound to
// exactly s.Address. For a socket of a supervisor there is [FromSupervisor].
func FromFile(s Spec, f *os.File) (*Listener, error) {
	if f == nil {
		return nil, fmt.Errorf("listener %q: inherit: %w", s.Name, os.ErrInvalid)
	}
	defer f.Close()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	fd, err := dup(f)
	if err != nil {
		return nil, fmt.Errorf("listener %q: inherit: %w", s.Name, err)
	}
	addr, err := s.inspect(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listener %q: inherit: %w", s.Name, err)
	}
	var sock *socketFile
	if s.hasFile() && addr.String() == s.Address {
		// Somebody may have removed the file: then there is nothing to own.
		sock, _ = identify(s.Address)
	}
	return newListener(s, addr, fd, sock)
}

// FromSupervisor is FromFile for a socket that a supervisor goes on with after
// this process: nothing is done to it, or to its file, that the next owner would
// suffer from.
func FromSupervisor(s Spec, f *os.File) (*Listener, error) {
	l, err := FromFile(s, f)
	if err == nil {
		l.shared, l.sock = true, nil
	}
	return l, err
}

// AddrOf returns where the listening socket f is bound.
func AddrOf(f *os.File) (net.Addr, error) {
	fd, err := dup(f)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return boundTo(fd)
}

// inspect checks that fd is a socket as s describes it, and says where it is
// bound.
func (s Spec) inspect(fd int) (net.Addr, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if errors.Is(err, unix.ENOTSOCK) {
		return nil, errors.New("expected a listening socket, got a file that is no socket")
	}
	if err != nil {
		return nil, fmt.Errorf("get SO_TYPE: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	if got := family(name); !s.fits(got) || typ != unix.SOCK_STREAM {
		return nil, fmt.Errorf("expected a %s stream socket, got %s of type %d", s.Network, got, typ)
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return nil, fmt.Errorf("get SO_ACCEPTCONN: %w", err)
	} else if on == 0 {
		return nil, errors.New("expected a listening socket, got one that does not listen")
	}
	if s.Network != "unix" {
		if err := checkProtocol(fd); err != nil {
			return nil, err
		}
		if err := tune(fd); err != nil {
			return nil, err
		}
	}
	return boundTo(fd)
}

// boundTo lets package net translate the address, zones and all.
func boundTo(fd int) (net.Addr, error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("dup: %w", err)
	}
	f := os.NewFile(uintptr(copied), "inherited")
	defer f.Close()
	n, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	return n.Addr(), nil
}

func family(name unix.Sockaddr) string {
	switch name.(type) {
	case *unix.SockaddrInet4:
		return "tcp4"
	case *unix.SockaddrInet6:
		return "tcp6"
	case *unix.SockaddrUnix:
		return "unix"
	}
	return "another family"
}

func (s Spec) fits(family string) bool {
	return family == s.Network || s.Network == "tcp" && (family == "tcp4" || family == "tcp6")
}
