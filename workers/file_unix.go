//go:build unix

package workers

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawDup duplicates the descriptor of f without changing the mode of the
// description they share: File.Fd would make a polled file blocking, for all
// processes that have it.
func rawDup(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var derr error
	if err := raw.Control(func(old uintptr) { fd, derr = fcntlDup(int(old)) }); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", derr)
}

func dupFile(f *os.File) (*os.File, error) {
	fd, err := rawDup(f)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// takeFD turns f into a bare descriptor.
func takeFD(f *os.File) (int, error) {
	defer f.Close()
	return rawDup(f)
}

func fcntlDup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

func statusText(ws syscall.WaitStatus) string {
	switch {
	case ws.Exited():
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	case ws.Signaled() && ws.CoreDump():
		return fmt.Sprintf("signal: %v (core dumped)", ws.Signal())
	case ws.Signaled():
		return fmt.Sprintf("signal: %v", ws.Signal())
	}
	return fmt.Sprintf("wait status %#x", uint32(ws))
}

// closeShared closes the master's copy of a connection that is a worker's now.
// The worker may have closed its own, and then the linger that it has set for
// both would hold up this close, for hours if it likes. A linger of 0, which
// resets the connection, holds up nothing and is left as the application's wish.
func closeShared(fd int) {
	// An int has room for the first half of the option, whether it is set, and
	// costs no allocation.
	if set, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER); err == nil && set != 0 {
		if l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || l.Linger > 0 {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		}
	}
	unix.Close(fd)
}
