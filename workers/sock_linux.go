package workers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sock is a stream socket in the runtime's poller, with what package net
// makes of one: its errors, deadlines, options, sendfile and splice.
//
// net.FileConn would do, and costs 16 system calls a connection: it duplicates
// the descriptor and closes the first one, asks for the modes, the type and both
// addresses, and sets five options that are inherited from the listener already.
// This costs 3: the mode, which os.NewFile asks for, the poller's, and the
// client's address.
type sock struct {
	f       *os.File
	fd      int // f's; only for who knows that f is open
	network string
	remote  net.Addr

	asked sync.Once
	local net.Addr // the listener's until asked
}

// open takes fd over: a connected socket that was accepted at an address,
// non-blocking as accept4 has made it, which concerns everybody who has a copy.
func (s *sock) open(fd int, network string, at net.Addr) error {
	s.network, s.fd, s.local = network, fd, at
	var err error
	if s.remote, err = remoteAddr(fd, network); err != nil {
		// The client has reset it. Package net never accepts such a one, and
		// applications do not expect it.
		unix.Close(fd)
		return os.NewSyscallError("getpeername", err)
	}
	s.f = os.NewFile(uintptr(fd), "connection")
	// That does not say when there was no room in the poller; a deadline does.
	if err := s.f.SetReadDeadline(time.Time{}); err != nil {
		s.f.Close()
		return fmt.Errorf("register with the poller: %w: %w", err, unix.ENOMEM)
	}
	return nil
}

// roomFor says whether a connection can be made of fd: it takes no second one.
func roomFor(int) bool { return true }

// fail makes of an error of the file what package net makes of it.
func (s *sock) fail(op string, err error) error {
	if _, ok := err.(*net.OpError); ok || err == io.EOF {
		return err
	}
	if p, ok := err.(*fs.PathError); ok {
		err = p.Err
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	} else if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return s.wrap(op, err)
}

func (s *sock) Read(b []byte) (int, error) {
	n, err := s.f.Read(b)
	if err != nil {
		err = s.fail("read", err)
	}
	return n, err
}

func (s *sock) Write(b []byte) (int, error) {
	n, err := s.f.Write(b)
	if err != nil {
		err = s.fail("write", err)
	}
	return n, err
}

func (s *sock) Close() error { return s.fail("close", s.f.Close()) }

// RemoteAddr returns the client's address.
func (s *sock) RemoteAddr() net.Addr { return s.remote }

// LocalAddr asks the kernel when it is wanted: the listener may be bound to any
// address, or to one that is not the one that the client has connected to.
func (s *sock) LocalAddr() net.Addr {
	s.asked.Do(func() {
		_ = s.control("getsockname", func(fd int) error {
			a, err := localAddr(fd, s.network)
			if err == nil {
				s.local = a
			}
			return err
		})
	})
	return s.local
}

func (s *sock) SetDeadline(t time.Time) error      { return s.closed("set", s.f.SetDeadline(t)) }
func (s *sock) SetReadDeadline(t time.Time) error  { return s.closed("set", s.f.SetReadDeadline(t)) }
func (s *sock) SetWriteDeadline(t time.Time) error { return s.closed("set", s.f.SetWriteDeadline(t)) }

// closed says that the connection is closed, where a file's own error for that
// cannot be matched from outside the standard library.
func (s *sock) closed(op string, err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrNoDeadline) {
		err = net.ErrClosed
	}
	return s.wrap(op, err)
}

// shutdown ends the connection for everybody who has a copy. s must be open.
func (s *sock) shutdown() { _ = unix.Shutdown(s.fd, unix.SHUT_RDWR) }

func (s *sock) CloseRead() error  { return s.half(unix.SHUT_RD) }
func (s *sock) CloseWrite() error { return s.half(unix.SHUT_WR) }

func (s *sock) half(how int) error {
	return s.wrap("close", s.control("shutdown", func(fd int) error { return unix.Shutdown(fd, how) }))
}

// control calls f with the descriptor, and names the system call in its error.
func (s *sock) control(call string, f func(fd int) error) error {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return net.ErrClosed
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return net.ErrClosed
	}
	return os.NewSyscallError(call, ferr)
}

func (s *sock) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: s.network, Source: s.LocalAddr(), Addr: s.remote, Err: err}
}

func (s *sock) set(level, opt, value int) error {
	return s.wrap("set", s.control("setsockopt", func(fd int) error { return unix.SetsockoptInt(fd, level, opt, value) }))
}

func (s *sock) setBool(level, opt int, on bool) error {
	if on {
		return s.set(level, opt, 1)
	}
	return s.set(level, opt, 0)
}

func (s *sock) SetNoDelay(on bool) error { return s.setBool(unix.IPPROTO_TCP, unix.TCP_NODELAY, on) }
func (s *sock) SetKeepAlive(on bool) error {
	return s.setBool(unix.SOL_SOCKET, unix.SO_KEEPALIVE, on)
}
func (s *sock) SetReadBuffer(n int) error  { return s.set(unix.SOL_SOCKET, unix.SO_RCVBUF, n) }
func (s *sock) SetWriteBuffer(n int) error { return s.set(unix.SOL_SOCKET, unix.SO_SNDBUF, n) }

func (s *sock) SetKeepAlivePeriod(d time.Duration) error {
	return s.setSeconds(unix.TCP_KEEPIDLE, d, 15*time.Second)
}

// setSeconds rounds up; 0 is the default, and what is below leaves it as it is.
func (s *sock) setSeconds(opt int, d, byDefault time.Duration) error {
	if d < 0 {
		return nil
	}
	if d == 0 {
		d = byDefault
	}
	return s.set(unix.IPPROTO_TCP, opt, int((d+time.Second-1)/time.Second))
}

func (s *sock) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	if err := s.SetKeepAlive(k.Enable); err != nil || !k.Enable {
		return err
	}
	if err := s.setSeconds(unix.TCP_KEEPIDLE, k.Idle, 15*time.Second); err != nil {
		return err
	}
	if err := s.setSeconds(unix.TCP_KEEPINTVL, k.Interval, 15*time.Second); err != nil || k.Count < 0 {
		return err
	}
	count := k.Count
	if count == 0 {
		count = 9
	}
	return s.set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count)
}

func (s *sock) SetLinger(sec int) error {
	l := unix.Linger{}
	if sec >= 0 {
		l = unix.Linger{Onoff: 1, Linger: int32(sec)}
	}
	return s.wrap("set", s.control("setsockopt", func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l)
	}))
}

func (s *sock) SyscallConn() (syscall.RawConn, error) {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return nil, s.wrap("raw", net.ErrClosed)
	}
	return rawSock{s, raw}, nil
}

// rawSock fails as a connection does, and not as a file.
type rawSock struct {
	s   *sock
	raw syscall.RawConn
}

func (r rawSock) Control(f func(uintptr)) error   { return r.s.closed("raw-control", r.raw.Control(f)) }
func (r rawSock) Read(f func(uintptr) bool) error { return r.s.closed("raw-read", r.raw.Read(f)) }
func (r rawSock) Write(f func(uintptr) bool) error {
	return r.s.closed("raw-write", r.raw.Write(f))
}
