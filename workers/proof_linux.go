package workers

import "golang.org/x/sys/unix"

// consumed is the number of bytes that have been read from a connection: what
// the kernel has received for it less what is still unread. A FIN counts as one
// received byte. It cannot tell for sockets other than TCP, where it is 0 and
// the missing acknowledgement has to do.
func consumed(fd int) int64 {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	const closeWait = 8 // TCP_CLOSE_WAIT: the peer's FIN has arrived
	read := int64(info.Bytes_received) - int64(unread)
	if info.State == closeWait || info.State == tcpClose {
		read--
	}
	return max(read, 0)
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
