//go:build unix

package ipc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// resetsReadPast bounds how often a Recv reads on after ECONNRESET. The kernel
// reports a reset once; a peer is gone for good when it keeps doing so.
const resetsReadPast = 4

// Conn is one end of the pair.
//
// TrySend and Send may be called by any number of goroutines; messages of
// different calls never mix, and messages of one goroutine arrive in the order
// it sent them. Recv is for one goroutine at a time, since the Frame it returns
// is only valid until the next one.
type Conn struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	wire transport

	// A Send that waits for room must not keep a TrySend waiting, so each has
	// its own buffers and lock.
	try, wait outbox

	in inbox
}

// Pair makes a connected pair: our end, and the end for a child. The child's is
// close-on-exec here, as everything is: hand it over in exec.Cmd.ExtraFiles,
// and close it once the child has started, or its death goes unnoticed.
func Pair() (*Conn, *os.File, error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, fmt.Errorf("ipc: socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "ipc-peer")
	c, err := newConn(fds[0])
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// NewConn makes a Conn of an inherited or received socket. It owns f from here
// on and closes it, also when it returns an error; IsSocket asks beforehand.
func NewConn(f *os.File) (*Conn, error) {
	defer f.Close()
	fd, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	if !IsSocket(uintptr(fd)) {
		unix.Close(fd)
		return nil, fmt.Errorf("ipc: %s is not a unix socket of the expected type", f.Name())
	}
	return newConn(fd)
}

// newConn owns fd.
func newConn(fd int) (*Conn, error) {
	// Before os.NewFile, which registers only non-blocking descriptors with
	// the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ipc: set non-blocking: %w", err)
	}
	c := &Conn{file: os.NewFile(uintptr(fd), "ipc")}
	// os.NewFile does not say when the registration failed; a deadline does.
	if err := c.file.SetDeadline(time.Time{}); err != nil {
		c.file.Close()
		return nil, fmt.Errorf("ipc: register socket with the poller: %w", err)
	}
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.file.Close()
		return nil, fmt.Errorf("ipc: %w", err)
	}
	c.raw = raw
	c.wire.init(fd, raw)
	// Closures are made once here, because one made in each call is an
	// allocation in each call.
	c.try.init()
	c.try.attempt = func(fd uintptr) { c.try.send(int(fd), &c.wire) }
	c.wait.init()
	c.wait.ready = func(fd uintptr) bool {
		c.wait.send(int(fd), &c.wire)
		return c.wait.err != unix.EAGAIN
	}
	c.in.init()
	c.in.ready = func(fd uintptr) bool {
		c.in.receive(int(fd), &c.wire)
		return c.in.err != unix.EAGAIN
	}
	return c, nil
}

// IsSocket tells whether fd is a socket that NewConn takes: AF_UNIX and
// SOCK_SEQPACKET, or SOCK_STREAM where the OS lacks that. Anything else is
// false, also a closed fd.
func IsSocket(fd uintptr) bool {
	typ, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != socketType {
		return false
	}
	// SO_DOMAIN would be shorter and does not exist everywhere.
	addr, err := unix.Getsockname(int(fd))
	if err != nil {
		return false
	}
	_, ok := addr.(*unix.SockaddrUnix)
	return ok
}

// TrySend sends a message without waiting, whatever the write deadline. It
// returns ErrWouldBlock when the buffer is full, an error wrapping ErrLoad when
// the kernel is out of descriptors or memory, and one wrapping EPIPE or
// ECONNRESET when the peer is gone; in all three nothing was sent. The caller
// keeps its files: the peer gets duplicates.
func (c *Conn) TrySend(typ uint8, payload []byte, files []int) error {
	if err := checkSize(len(files), len(payload)); err != nil {
		return err
	}
	c.try.mu.Lock()
	defer c.try.mu.Unlock()
	c.try.prepare(typ, payload, files)
	// Control and not Write: Write fails once a deadline has passed, and waits
	// for a Send that waits.
	if err := c.raw.Control(c.try.attempt); err != nil {
		return c.sendError(err)
	}
	return c.sendError(c.try.err)
}

// Send is TrySend that waits for room in the buffer, until the write deadline;
// then the error wraps os.ErrDeadlineExceeded and nothing was sent. It does not
// wait for ErrLoad to pass.
func (c *Conn) Send(typ uint8, payload []byte, files []int) error {
	if err := checkSize(len(files), len(payload)); err != nil {
		return err
	}
	c.wait.mu.Lock()
	defer c.wait.mu.Unlock()
	c.wait.prepare(typ, payload, files)
	if err := c.raw.Write(c.wait.ready); err != nil {
		return c.sendError(err)
	}
	return c.sendError(c.wait.err)
}

// Recv waits for a message, until the read deadline (the error then wraps
// os.ErrDeadlineExceeded, and nothing is lost). io.EOF is the end: the peer is
// gone, or Shutdown was called, and everything it had sent has been received.
// After Close the error wraps net.ErrClosed.
//
// A message that breaks the format gives an error wrapping ErrProtocol, and its
// descriptors are closed. Where the kernel keeps message boundaries Recv may be
// called again, and returns the next message.
func (c *Conn) Recv() (Frame, error) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if err := c.raw.Read(c.in.ready); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// What has arrived of a message waits for the next call.
			return Frame{}, fmt.Errorf("ipc: receive: %w", err)
		}
		c.in.discard()
		return Frame{}, c.recvError(err)
	}
	if c.in.err != nil {
		c.in.discard()
		return Frame{}, c.recvError(c.in.err)
	}
	return c.in.take()
}

// Shutdown ends the conversation in both directions, for every process that
// holds this end. What is queued can still be received, here and there; then
// Recv returns io.EOF.
func (c *Conn) Shutdown() error {
	var err error
	cerr := c.raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	if cerr != nil {
		return c.wrap("shutdown", cerr)
	}
	// The peer was faster, which is what was wanted.
	if err != nil && err != unix.ENOTCONN {
		return c.wrap("shutdown", err)
	}
	return nil
}

// SetReadDeadline bounds Recv. The zero time is no bound.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if err := c.file.SetReadDeadline(t); err != nil {
		return c.wrap("set read deadline", err)
	}
	return nil
}

// SetWriteDeadline bounds Send; TrySend does not look at it. The zero time is
// no bound.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if err := c.file.SetWriteDeadline(t); err != nil {
		return c.wrap("set write deadline", err)
	}
	c.wire.deadlineChanged()
	return nil
}

// Dup returns a duplicate of the socket, close-on-exec, for handing it to
// another process. Whoever receives on a duplicate takes messages from this one.
func (c *Conn) Dup() (*os.File, error) {
	if c.closed.Load() {
		return nil, fmt.Errorf("ipc: dup: %w", net.ErrClosed)
	}
	fd, err := duplicate(c.file)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "ipc"), nil
}

// Close closes this end and wakes who waits in Send or Recv. Unlike Shutdown it
// drops what has not been received; duplicates stay open.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return fmt.Errorf("ipc: close: %w", net.ErrClosed)
	}
	err := c.file.Close()
	// Descriptors of a message that had arrived by half.
	c.in.mu.Lock()
	c.in.discard()
	c.in.mu.Unlock()
	return err
}

func (c *Conn) sendError(err error) error {
	switch err {
	case nil:
		return nil
	case unix.EAGAIN:
		return ErrWouldBlock
	case unix.EMFILE, unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
		return fmt.Errorf("%w: send: %w", ErrLoad, err)
	}
	return c.wrap("send", err)
}

func (c *Conn) recvError(err error) error {
	if err == io.EOF || errors.Is(err, ErrProtocol) {
		return err
	}
	return c.wrap("receive", err)
}

// wrap says which operation failed. The poller's own error for a closed file
// cannot be matched from outside the standard library, hence the flag.
func (c *Conn) wrap(op string, err error) error {
	if c.closed.Load() {
		err = net.ErrClosed
	}
	return fmt.Errorf("ipc: %s: %w", op, err)
}

// duplicate returns a close-on-exec duplicate of f, leaving f's blocking mode
// alone, which f.Fd does not promise.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("ipc: dup: %w", err)
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dupErr); err != nil {
		return -1, fmt.Errorf("ipc: dup: %w", err)
	}
	return fd, nil
}
