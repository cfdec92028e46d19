//go:build !baton_ipc_stream

package ipc

import (
	"fmt"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const socketType = unix.SOCK_SEQPACKET

// transport leaves the boundaries of messages to the kernel: a message is a
// packet, sent and received whole or not at all.
type transport struct {
	// Arguments of recvmsg, kept here so that they need not be allocated. Those of
	// sendmsg are in the outbox.
	hdr unix.Msghdr
	iov unix.Iovec
}

func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, socketType|unix.SOCK_CLOEXEC, 0)
}

func (*transport) init(int, syscall.RawConn) {}

func (*transport) deadlineChanged() {}

// write sends one message; EAGAIN means that nothing was sent.
func (*transport) write(fd int, o *outbox) error {
	o.iov = unix.Iovec{Base: &o.msg[0]}
	o.iov.SetLen(len(o.msg))
	o.hdr = unix.Msghdr{Iov: &o.iov}
	o.hdr.SetIovlen(1)
	if len(o.rights) > 0 {
		o.hdr.Control = &o.rights[0]
		o.hdr.SetControllen(len(o.rights))
	}
	for {
		// Raw, as it never waits: the runtime need not be told that this thread
		// may be gone for long.
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.hdr)), sendFlags)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// read receives one message; EAGAIN means that there is none.
func (t *transport) read(fd int, in *inbox) error {
	in.reset()
	n, oobn, flags, err := t.recvmsg(fd, in.buf, in.oob)
	if err != nil {
		return err
	}
	in.collect(in.oob[:oobn])
	in.truncated = flags&unix.MSG_CTRUNC != 0
	in.msg = in.buf[:n]
	switch {
	case flags&unix.MSG_TRUNC != 0:
		return fmt.Errorf("%w: message longer than %d bytes", ErrProtocol, len(in.buf))
	case n == 0:
		// Also what an empty packet looks like. No Conn sends one, and a peer
		// that does has left the protocol.
		return io.EOF
	}
	return nil
}

// recvmsg is unix.Recvmsg without the sender's address, for which that
// allocates on every call.
func (t *transport) recvmsg(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	for {
		t.iov = unix.Iovec{Base: &p[0]}
		t.iov.SetLen(len(p))
		t.hdr = unix.Msghdr{Iov: &t.iov, Control: &oob[0]}
		t.hdr.SetIovlen(1)
		t.hdr.SetControllen(len(oob))
		// Raw, as it never waits.
		r, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&t.hdr)),
			unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch errno {
		case 0:
			return int(r), int(t.hdr.Controllen), int(t.hdr.Flags), nil
		case unix.EINTR:
		default:
			return 0, 0, 0, errno
		}
	}
}
