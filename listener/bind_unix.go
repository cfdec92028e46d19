//go:build unix

package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bind binds and listens. The file of a unix socket whose owner has died is
// replaced; a live one, or a file that is no socket, is an error and stays
// untouched.
func Bind(s Spec) (*Listener, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.hasFile() {
		return bindFile(s)
	}
	n, err := listen(s, nil)
	if err != nil {
		return nil, err
	}
	return takeOver(s, n, nil)
}

// bindFile holds a lock on the directory throughout: between bind and listen
// our own file looks stale to another process that is starting, and two that
// find the same stale file would remove each other's.
func bindFile(s Spec) (*Listener, error) {
	defer lockDir(s.Address)()
	if err := s.removeStale(); err != nil {
		return nil, err
	}
	n, err := listen(s, s.bindMode())
	if err != nil {
		return nil, err
	}
	sock, err := identify(s.Address)
	if err == nil {
		err = s.applyFileMode()
	}
	if err != nil {
		n.Close() // unlinks, too
		return nil, fmt.Errorf("listener %q: address %q: %w", s.Name, s.Address, err)
	}
	return takeOver(s, n, sock)
}

// listen leaves the choice of family and dual stack, the resolver and the
// backlog to package net. mode is that of the new socket file, nil for the
// default.
func listen(s Spec, mode *fs.FileMode) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			switch {
			case s.Network != "unix":
				err = tune(int(fd))
			case mode != nil:
				err = setBindMode(int(fd), *mode)
			}
		})
		return errors.Join(cerr, err)
	}}
	// Multipath TCP is net's default since Go 1.24.
	lc.SetMultipathTCP(false)
	if mode != nil {
		defer maskBindMode(*mode)()
	}
	n, err := lc.Listen(context.Background(), s.Network, s.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", s.Name, err)
	}
	return n, nil
}

// takeOver keeps one descriptor of n's socket and closes n. A listener of
// package net cannot lend its poller (SyscallConn().Read gives EINVAL).
func takeOver(s Spec, n net.Listener, sock *socketFile) (*Listener, error) {
	defer n.Close()
	fd, err := dup(n.(syscall.Conn))
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", s.Name, err)
	}
	l, err := newListener(s, n.Addr(), fd, sock)
	if err != nil {
		return nil, err
	}
	if u, ok := n.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // only now: on the way out above it should
	}
	return l, nil
}

// dup duplicates c's descriptor: close-on-exec, above the standard ones, and
// non-blocking, which os.NewFile wants to see. It goes through Control because
// File() of package net makes the shared description blocking.
func dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var derr error
	cerr := raw.Control(func(orig uintptr) {
		if fd, derr = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 3); derr != nil {
			derr = fmt.Errorf("dup: %w", derr)
			return
		}
		if derr = unix.SetNonblock(fd, true); derr != nil {
			unix.Close(fd)
			derr = fmt.Errorf("set non-blocking: %w", derr)
		}
	})
	if err := errors.Join(cerr, derr); err != nil {
		return -1, err
	}
	return fd, nil
}
