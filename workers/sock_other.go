//go:build unix && !linux

package workers

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sock is package net's connection.
type sock struct {
	stream
	tcp *net.TCPConn // nil: a Unix socket
}

// stream is what TCP and Unix connections have in common.
type stream interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
}

// open takes fd over: a connected socket.
func (s *sock) open(fd int, network string, _ net.Addr) error {
	f := os.NewFile(uintptr(fd), "connection")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return err
	}
	if c.RemoteAddr() == nil {
		// The client has reset it. Package net never accepts such a one, and
		// applications do not expect it.
		c.Close()
		return unix.ENOTCONN
	}
	var ok bool
	if s.stream, ok = c.(stream); !ok {
		c.Close()
		return fmt.Errorf("unexpected %T on a %s listener", c, network)
	}
	s.tcp, _ = c.(*net.TCPConn)
	return nil
}

// roomFor says whether there is a descriptor to make a connection of fd with.
func roomFor(fd int) bool {
	spare, err := fcntlDup(fd)
	if err == nil {
		unix.Close(spare)
	}
	return err == nil
}

// shutdown ends the connection for everybody who has a copy.
func (s *sock) shutdown() {
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

func (s *sock) ReadFrom(r io.Reader) (int64, error)            { return s.tcp.ReadFrom(r) }
func (s *sock) WriteTo(w io.Writer) (int64, error)             { return s.tcp.WriteTo(w) }
func (s *sock) SetNoDelay(on bool) error                       { return s.tcp.SetNoDelay(on) }
func (s *sock) SetKeepAlive(on bool) error                     { return s.tcp.SetKeepAlive(on) }
func (s *sock) SetKeepAlivePeriod(d time.Duration) error       { return s.tcp.SetKeepAlivePeriod(d) }
func (s *sock) SetKeepAliveConfig(k net.KeepAliveConfig) error { return s.tcp.SetKeepAliveConfig(k) }
func (s *sock) SetLinger(sec int) error                        { return s.tcp.SetLinger(sec) }
