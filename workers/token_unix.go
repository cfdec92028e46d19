//go:build unix

package workers

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A token travels with a connection that goes from one worker to another, and
// says who has it, whatever becomes of the master between them. It is a socket pair.
// The worker that gives reads: a byte means that another worker has claimed the
// connection, the end that nobody has, and nobody can any more, for whoever could
// had the other end with it.
//
// It is no pipe: what a worker gives may be full, and a write to a pipe blocks if
// whoever has the other end wants it to.

// newToken returns the reader's end, and a descriptor of the other.
func newToken() (mine *os.File, theirs int, err error) {
	syscall.ForkLock.RLock() // not everywhere are sockets made to be closed on exec
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		closeAllFDs(fds[:])
		return nil, -1, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "token"), fds[1], nil
}

// claimTime is how long a claim is waited for. A worker that stands still takes
// longer; who gave to it lets go then, for it has others to give.
const claimTime = 500 * time.Millisecond

// claimed waits until the connection has been claimed, or cannot be any more. It
// counts as claimed when it takes too long.
func claimed(token *os.File) bool {
	_ = token.SetReadDeadline(time.Now().Add(claimTime))
	_, err := io.ReadFull(token, make([]byte, 1))
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// claim makes the connection of a token this worker's, and closes it. A worker
// that gave it and is dead, or that does not listen, hears of it no more.
func claim(token int) {
	if token != 0 {
		_ = unix.Sendto(token, []byte{1}, unix.MSG_DONTWAIT, nil)
		unix.Close(token)
	}
}

// isToken says whether fd can be one.
func isToken(fd int) bool {
	if !isConnection(fd) {
		return false
	}
	sa, err := unix.Getsockname(fd)
	_, ok := sa.(*unix.SockaddrUnix)
	return err == nil && ok
}

// files appends the descriptors of a connection to fds.
func (h held) files(fds []int) []int {
	fds = append(fds, h.fd)
	if h.token != 0 {
		fds = append(fds, h.token)
	}
	return fds
}

// close closes the descriptors of a connection that was not claimed.
func (in incoming) close() {
	unix.Close(in.fd)
	if in.token != 0 {
		unix.Close(in.token)
	}
}
