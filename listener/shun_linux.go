package listener

import "golang.org/x/sys/unix"

// shun makes the kernel ignore new SYNs, and only those: the last step of a
// handshake still gets through, so that what has begun can be accepted. Whoever
// is ignored tries again after a second, and is refused by then. A socket filter
// of a TCP socket sees packets from their TCP header on, whose 14th byte has the
// flags (net/ipv4/tcp_ipv4.c, tcp_v4_rcv).
func shun(fd int) error {
	const flags, syn, ack = 13, 0x02, 0x10
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: syn},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

// welcome detaches the filter, if there is one.
func welcome(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) }
