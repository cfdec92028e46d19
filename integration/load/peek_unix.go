//go:build unix

package load

import "syscall"

// idle looks at the socket without waiting and without taking anything.
func (k *conn) idle() idleState {
	sc, ok := k.Conn.(syscall.Conn)
	if !ok {
		return quiet
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return closed
	}
	state := quiet
	// Control and not Read: Read would fail at the deadline of the last request.
	err = rc.Control(func(fd uintptr) { state = peek(int(fd)) })
	if err != nil {
		return closed
	}
	return state
}

func peek(fd int) idleState {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return quiet
		case err != nil || n <= 0:
			return closed
		default:
			return talking
		}
	}
}
