//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is wrapped by Listen when somebody answers on the path already.
var ErrInUse = errors.New("already in use")

const socketMode fs.FileMode = 0o600

// Listen binds the control socket. The file is the owner's alone from the first
// moment on. A socket file on which nobody listens is replaced; call it with the
// runtime directory's lock held, or two processes may take each other's file for
// a stale one. The listener does not unlink the file when it is closed: after an
// upgrade the file is the successor's.
func Listen(path string) (*net.UnixListener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := bindPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	// For the systems and umasks that left other permissions than wanted.
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		os.Remove(path)
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// listenUnix binds path; prepare is called on the socket before that.
func listenUnix(path string, prepare func(fd int) error) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var perr error
		if err := rc.Control(func(fd uintptr) { perr = prepare(int(fd)) }); err != nil {
			return err
		}
		return perr
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// ListenFile makes a listener of a control socket that was inherited. It takes
// ownership of f, also when it fails.
func ListenFile(f *os.File) (*net.UnixListener, error) {
	name := f.Name()
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("inherited control socket %s: %w", name, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("inherited control socket %s: is a %s socket, expected a unix one", name, l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// clearStale unlinks a socket file on which nobody listens.
func clearStale(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("control socket %s: is a file of mode %v, expected a socket or nothing", path, fi.Mode())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	// Only a refusal proves that nobody listens: a full queue, for one, gives
	// EAGAIN.
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control socket %s: %w", path, ErrInUse)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: stale: %w", err)
	}
	return nil
}
