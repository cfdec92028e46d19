//go:build unix

package workers

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A token travels with a connection that goes from one worker to another, and
// says who has it, whatever becomes of the master between them. It is a pipe. The
// worker that gives reads: a byte means that another worker has claimed the
// connection, the end of the pipe that nobody has, and nobody can any more, for
// whoever could had the other end with it.

// newToken returns the reader's end, and a descriptor of the other.
func newToken() (mine *os.File, theirs int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, -1, err
	}
	theirs, err = takeFD(w)
	if err != nil {
		r.Close()
		return nil, -1, err
	}
	return r, theirs, nil
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
// that gave it and is dead hears of it no more.
func claim(token int) {
	if token != 0 {
		_, _ = unix.Write(token, []byte{1})
		unix.Close(token)
	}
}

// isToken says whether fd can be one.
func isToken(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
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
