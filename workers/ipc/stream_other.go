//go:build unix && (!linux || baton_ipc_stream)

package ipc

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const socketType = unix.SOCK_STREAM

// streamBuffer is asked for in both directions. The default of some systems is
// 8 KiB, in which hardly a message would fit.
const streamBuffer = 256 << 10

// transport finds the boundaries of messages by their headers. Descriptors ride
// on the first byte, and a read never goes beyond the message it is in, so what
// arrives with a message is its own. What of a message is still in the tail at
// Shutdown or Close is lost, and the message with it.
type transport struct {
	raw syscall.RawConn

	// The kernel may take only the head of a message. It then counts as sent,
	// and the tail goes out before anything else does.
	mu       sync.Mutex
	tail     []byte // what is left, within tailBuf
	tailBuf  []byte
	flushing bool
	// deadlines counts changes of the write deadline.
	deadlines int

	got    int   // bytes of the message being read
	want   int   // its length, once the header is there
	broken error // the boundaries are lost
}

func (t *transport) init(fd int, raw syscall.RawConn) {
	t.raw = raw
	// Best effort: a small buffer is slow, not wrong.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, streamBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, streamBuffer)
}

func socketpair() ([2]int, error) {
	// Not every system has SOCK_CLOEXEC; the lock keeps a fork from happening
	// between the two calls.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, socketType, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// write sends one message; EAGAIN means that nothing was sent.
func (t *transport) write(fd int, o *outbox) error {
	msg, rights := o.msg, o.rights
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.flush(fd); err != nil {
		if err == unix.EAGAIN {
			t.flushLater()
		}
		return err
	}
	n, err := sendmsg(fd, msg, rights)
	if err != nil {
		return err
	}
	if n < len(msg) {
		t.tailBuf = append(t.tailBuf[:0], msg[n:]...)
		t.tail = t.tailBuf
		t.flushLater()
	}
	return nil
}

// flush is called with mu held.
func (t *transport) flush(fd int) error {
	for len(t.tail) > 0 {
		n, err := sendmsg(fd, t.tail, nil)
		switch err {
		case nil:
			t.tail = t.tail[n:]
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return unix.EAGAIN
		default:
			t.tail = nil // nobody will read it
			return err
		}
	}
	return nil
}

// flushLater sees to it that a tail goes out although nobody sends again: the
// peer waits for it. It is called with mu held.
func (t *transport) flushLater() {
	if t.flushing || len(t.tail) == 0 {
		return
	}
	t.flushing = true
	go t.flushTail()
}

// flushTail ends when the tail is out, the peer is gone or the Conn closed. It
// also ends at a write deadline, and is started again when that changes or
// with the next message.
func (t *transport) flushTail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		deadlines := t.deadlines
		t.mu.Unlock()
		err := t.raw.Write(func(fd uintptr) bool {
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.flush(int(fd)) != unix.EAGAIN
		})
		t.mu.Lock()
		switch {
		case err == nil && len(t.tail) > 0:
			// A message was added since; go on for it.
		case errors.Is(err, os.ErrDeadlineExceeded) && deadlines != t.deadlines:
			// The deadline that ended it is not the one that counts now, and
			// who changed it saw a flush under way.
		default:
			t.flushing = false
			return
		}
	}
}

func (t *transport) deadlineChanged() {
	t.mu.Lock()
	t.deadlines++
	t.flushLater()
	t.mu.Unlock()
}

// read receives one message; EAGAIN means that it is not all there yet.
func (t *transport) read(fd int, in *inbox) error {
	if t.broken != nil {
		return t.broken
	}
	if t.got == 0 {
		in.reset()
		t.want = HeaderSize
	}
	for {
		n, err := t.recvmsg(fd, in, in.buf[t.got:t.want])
		if err != nil {
			return err
		}
		if n == 0 {
			t.got = 0
			return io.EOF
		}
		t.got += n
		if t.got == HeaderSize {
			_, _, length, err := parseHeader(in.buf[:HeaderSize])
			if err != nil {
				t.broken = err
				return err
			}
			t.want = HeaderSize + length
		}
		if t.got == t.want {
			in.msg = in.buf[:t.got]
			t.got = 0
			return nil
		}
	}
}

func (t *transport) recvmsg(fd int, in *inbox, p []byte) (int, error) {
	// Not every system has MSG_CMSG_CLOEXEC.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for failures := 0; ; {
		n, oobn, flags, _, err := unix.Recvmsg(fd, p, in.oob, unix.MSG_DONTWAIT)
		switch err {
		case nil:
			before := len(in.files)
			in.collect(in.oob[:oobn])
			for _, f := range in.files[before:] {
				unix.CloseOnExec(f)
			}
			if flags&unix.MSG_CTRUNC != 0 {
				in.truncated = true
			}
			return n, nil
		case unix.EINTR:
		case unix.EMSGSIZE, unix.EMFILE, unix.ENFILE:
			// Some systems report descriptors that they could not install as
			// an error, and give the bytes these rode on at the next call.
			in.truncated = true
			if failures++; failures > 3 {
				return 0, err
			}
		default:
			return 0, err
		}
	}
}

func sendmsg(fd int, p, oob []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, p, oob, nil, sendFlags)
		if err != unix.EINTR {
			return n, err
		}
	}
}
