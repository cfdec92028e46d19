package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier says things to the service manager. A nil one says them to nobody.
type Notifier struct{ addr *net.UnixAddr }

// sendTime bounds one message: the manager reads none while it is stopped, or
// busy with thousands of others.
const sendTime = time.Second

// NewNotifier returns the Notifier for the socket that NOTIFY_SOCKET names, by
// path or, after an @, in the abstract namespace; nil if it names no such one.
func NewNotifier(socket string) *Notifier {
	if len(socket) < 2 || socket[0] != '/' && socket[0] != '@' {
		return nil
	}
	return &Notifier{&net.UnixAddr{Name: socket, Net: "unixgram"}}
}

// Notify says all lines in one message.
func (n *Notifier) Notify(lines ...string) error {
	return n.send(strings.Join(lines, "\n"), nil)
}

// Store leaves a duplicate of f with the manager, which passes it to the next
// start of the service under that name. What it has already it does not store
// twice. Whether it stored it the manager does not say.
func (n *Notifier) Store(name string, f *os.File) error {
	return n.send("FDSTORE=1\nFDNAME="+name, f)
}

// Remove takes away all that is stored under that name.
func (n *Notifier) Remove(name string) error {
	return n.send("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// Barrier waits until the manager has acted on all that was said before.
func (n *Notifier) Barrier(timeout time.Duration) error {
	if n == nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = n.send("BARRIER=1", w)
	w.Close() // the manager's copy is the last one
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err = r.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("systemd has not answered within %v", timeout)
	}
	return nil
}

// NewMemory returns a file that is in memory only and can be stored.
func NewMemory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (n *Notifier) send(text string, f *os.File) error {
	if n == nil {
		return nil
	}
	// A socket for each message: there may be another manager at the path by now.
	c, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if f == nil {
		_, err = c.Write([]byte(text))
	} else {
		err = withFD(f, func(fd int) error { return sendFD(c, text, fd) })
	}
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// sendFD is here because package net sends no files over a connected datagram
// socket.
func sendFD(c *net.UnixConn, text string, fd int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	return errors.Join(raw.Write(func(s uintptr) bool {
		serr = unix.Sendmsg(int(s), []byte(text), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		return serr != unix.EAGAIN
	}), serr)
}

// withFD leaves the descriptor's flags alone, as Fd would not.
func withFD(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	return errors.Join(raw.Control(func(fd uintptr) { derr = do(int(fd)) }), derr)
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano() / 1000
}
