package workers

import "golang.org/x/sys/unix"

// untouched says whether nobody has read from the connection: all the bytes
// that the kernel received for it are still unread. A FIN counts as one
// received byte. It cannot tell for sockets other than TCP, where the missing
// acknowledgement has to do.
func untouched(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return true
	}
	unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return true
	}
	const closeWait = 8 // TCP_CLOSE_WAIT: the peer's FIN has arrived
	read := int64(info.Bytes_received) - int64(unread)
	if info.State == closeWait || info.State == tcpClose {
		read--
	}
	return read <= 0
}

const tcpClose = 7

// closeForeign closes sockets that a worker has had in its hands. SO_LINGER
// belongs to the socket and not to the descriptor: a worker could have set it,
// and even a non-blocking socket would then hold up its close.
func closeForeign(fds []int) {
	for _, fd := range fds {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		unix.Close(fd)
	}
}
