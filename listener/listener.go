//go:build unix

package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listener is a listening stream socket, bound by [Bind] or taken up by
// [FromFile]. Its methods may be called from several goroutines, but a second
// Accept waits until the first one returns: one goroutine is meant to loop on
// it.
type Listener struct {
	spec Spec
	addr net.Addr
	file *os.File        // the only descriptor, in the runtime's poller
	raw  syscall.RawConn // of file; kept because asking for it allocates
	sock *socketFile     // our unix socket's file; nil when there is none

	shared bool // the socket is a supervisor's, who goes on with it after us

	wait   batch // of Accept
	try    batch // of TryAccept, apart so that it works while Accept waits
	onWait func(fd uintptr) bool
	onTry  func(fd uintptr)

	closed atomic.Bool
}

// newListener takes ownership of fd, a listening socket of its own (a dup)
// that is non-blocking: os.NewFile puts only those into the poller.
func newListener(s Spec, addr net.Addr, fd int, sock *socketFile) (*Listener, error) {
	f := os.NewFile(uintptr(fd), s.Name)
	// Without the poller Accept could neither wait nor be interrupted.
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("listener %q: poll: %w", s.Name, err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("listener %q: %w", s.Name, err)
	}
	l := &Listener{spec: s, addr: addr, file: f, raw: raw, sock: sock}
	l.onWait = func(fd uintptr) bool { return l.wait.accept(int(fd)) }
	l.onTry = func(fd uintptr) {
		l.try.accept(int(fd))
		if l.try.err == ErrNoRoom && !queued(int(fd)) {
			l.try.err = nil // nobody waits for the room
		}
	}
	return l, nil
}

// Accept waits for connections and puts their descriptors, non-blocking and
// close-on-exec, into fds. It returns:
//
//	n > 0, nil                  n connections, which the caller owns
//	0, ErrNoRoom                the gate or fds have no room; nothing was taken
//	0, ErrFull                  no descriptor or memory; nothing was lost
//	0, os.ErrDeadlineExceeded   paused
//	0, net.ErrClosed            closed
//	0, another error            the kernel refuses again and again: back off
//
// Room is reserved at g right before the kernel is asked, and what is not used
// is refunded before Accept waits or returns: a reservation is never held
// while waiting. Errors that belong to a single connection that has gone are
// not reported.
func (l *Listener) Accept(fds []int, g Gate) (int, error) {
	l.wait.mu.Lock()
	defer l.wait.mu.Unlock()
	l.wait.begin(fds, g)
	err := l.raw.Read(l.onWait)
	return l.finish(&l.wait, err)
}

// TryAccept is Accept without the wait: (0, nil) when the queue is empty. It
// works while the listener is paused, too.
func (l *Listener) TryAccept(fds []int, g Gate) (int, error) {
	l.try.mu.Lock()
	defer l.try.mu.Unlock()
	l.try.begin(fds, g)
	err := l.raw.Control(l.onTry)
	return l.finish(&l.try, err)
}

func (l *Listener) finish(b *batch, pollErr error) (int, error) {
	n, err := b.end()
	switch {
	case n > 0:
		return n, nil
	case errors.Is(pollErr, os.ErrDeadlineExceeded):
		return 0, os.ErrDeadlineExceeded
	case pollErr != nil && l.closed.Load():
		// The poller's own "closed" error cannot be matched from outside.
		return 0, net.ErrClosed
	case pollErr != nil:
		return 0, fmt.Errorf("listener %q: accept: %w", l.spec.Name, pollErr)
	}
	if errno, ok := err.(syscall.Errno); ok {
		return 0, fmt.Errorf("listener %q: accept: %w", l.spec.Name, errno)
	}
	return 0, err
}

// Handshaking says whether a client is in the middle of connecting, so that its
// connection may still come after Shun. Only Linux can tell.
func (l *Listener) Handshaking() bool {
	addr, ok := l.Addr().(*net.TCPAddr)
	return ok && !l.shared && handshaking(addr)
}

// Shared says whether the socket is a supervisor's: what is in its queue when we
// close it waits for whoever it is given to next.
func (l *Listener) Shared() bool { return l.shared }

// Shun lets no new connection begin, and leaves those that have begun to be
// accepted: between an empty queue and Close one could come that Close would
// reset. It is for the end of a service, for it cannot be undone. Where it
// cannot be done, for TCP outside Linux, it returns an error. A shared socket it
// leaves alone.
func (l *Listener) Shun() error {
	if l.shared {
		return nil
	}
	if l.spec.Network == "unix" {
		if l.sock == nil {
			return nil // abstract, or not ours: nothing to take away
		}
		return l.sock.unlink()
	}
	raw, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = shun(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// Unlisten ends the listening itself, for every process that has a copy of the
// socket: from then on connects are refused, though a copy is held somewhere, and
// another process can have the address. It is for the end of a service, right
// before Close; a shared socket it leaves alone. Where it cannot be done, outside
// Linux, it returns an error.
func (l *Listener) Unlisten() error {
	if l.shared {
		return nil
	}
	raw, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RD) }); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("shutdown", err)
}

// Welcome undoes Shun, for a socket that somebody shunned and another one has.
func (l *Listener) Welcome() {
	if raw, err := l.file.SyscallConn(); err == nil && l.spec.Network != "unix" {
		_ = raw.Control(func(fd uintptr) { welcome(int(fd)) })
	}
}

// Queued says whether a connection waits to be accepted.
func (l *Listener) Queued() (yes bool) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { yes = queued(int(fd)) })
	return yes
}

// Pause makes a waiting Accept, and every later one, return
// os.ErrDeadlineExceeded. The kernel goes on queueing connections.
func (l *Listener) Pause() { l.setDeadline(time.Unix(1, 0)) }

// Resume undoes Pause.
func (l *Listener) Resume() { l.setDeadline(time.Time{}) }

// setDeadline fails only on a closed file, which Accept reports better.
func (l *Listener) setDeadline(t time.Time) { _ = l.file.SetReadDeadline(t) }

// Name is the spec's name.
func (l *Listener) Name() string { return l.spec.Name }

// Spec is what the listener was made from.
func (l *Listener) Spec() Spec { return l.spec }

// Addr is the address as bound, with the port that the kernel chose.
func (l *Listener) Addr() net.Addr { return l.addr }

// File is the socket itself, to be passed to another process. It belongs to l
// and is open until Close or Release; do not close it or change its flags.
func (l *Listener) File() *os.File { return l.file }

// Net makes a plain net.Listener on a duplicate of the socket, for a process
// that serves its own connections. Both take from one queue, and the socket
// closes when both are closed. Closing it never removes a socket file.
func (l *Listener) Net() (net.Listener, error) {
	if l.closed.Load() {
		return nil, fmt.Errorf("listener %q: %w", l.spec.Name, net.ErrClosed)
	}
	// FileListener duplicates through Fd, which leaves O_NONBLOCK alone on a
	// file that was non-blocking when it was made, as ours was.
	n, err := net.FileListener(l.file)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", l.spec.Name, err)
	}
	return n, nil
}

// Close closes the socket, interrupts Accept and removes the file of a unix
// socket, if the file at its path is still the one that was there when the
// listener was made. Closing again does nothing and returns nil.
func (l *Listener) Close() error { return l.shut(true) }

// Release is Close without removing the file: somebody else serves it now.
func (l *Listener) Release() error { return l.shut(false) }

func (l *Listener) shut(unlink bool) error {
	if l.closed.Swap(true) {
		return nil
	}
	var errs []error
	// Before closing: as long as the socket is open its inode number cannot
	// be given to another file, so the comparison is exact.
	if unlink && l.sock != nil {
		errs = append(errs, l.sock.unlink())
	}
	errs = append(errs, l.file.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("listener %q: close: %w", l.spec.Name, err)
	}
	return nil
}

// batch is one call of Accept or TryAccept. It lives in the Listener, with
// its callback made once, because a closure per call would be garbage on the
// hot path.
type batch struct {
	mu   sync.Mutex // held during the call
	fds  []int
	gate Gate
	n    int
	err  error
}

func (b *batch) begin(fds []int, g Gate) { b.fds, b.gate, b.n, b.err = fds, g, 0, nil }

func (b *batch) end() (int, error) {
	n, err := b.n, b.err
	b.begin(nil, nil) // keep nothing of the caller's alive
	return n, err
}

// accept takes what is queued and there is room for. It returns false only
// after the kernel said EAGAIN: the poller is edge-triggered, and waiting with
// a connection in the queue would be waiting for an edge that never comes.
func (b *batch) accept(fd int) (done bool) {
	room := 0
	if len(b.fds) > 0 {
		room = b.gate.Reserve(len(b.fds))
	}
	if room <= 0 {
		b.err = ErrNoRoom
		return true
	}
	n, errno := acceptQueued(fd, b.fds[:min(room, len(b.fds))])
	if n < room {
		b.gate.Refund(room - n)
	}
	switch {
	case n > 0:
		b.n = n // an error behind them will come again
	case errno == syscall.EAGAIN:
		return false
	case isFull(errno):
		b.err = ErrFull{errno}
	default:
		b.err = errno
	}
	return true
}
