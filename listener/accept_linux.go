package listener

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const errNoNet = unix.ENONET

// acceptOne asks for no peer address: nobody here looks at it, and the
// wrappers in x/sys allocate one per connection.
func acceptOne(fd int) (int, syscall.Errno) {
	conn, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0,
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(conn), errno
}
