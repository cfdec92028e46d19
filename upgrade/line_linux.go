package upgrade

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A line is a socket that joins init to a master that it started, and to all
// that replace that one: each hands it to the next. Its end tells that none of
// them is left.
//
// Init is the oldest process of the container, so what is said here must be
// understood by every release, earlier ones included: a message is a mark, a type
// and, with a signal, its number. A later release may say more, in further types or
// bytes. What is not known is ignored.
const (
	lineVersion = 1 // as a mark: it never changes
	lineSize    = 3

	lineSignal byte = 0x10 // to the master
)

// Notice is what a master tells its init.
type Notice byte

// Notices.
const (
	NoticeHello    Notice = 1 + iota // this process is the master, and hears signals
	NoticeServes                     // its first generation serves
	NoticeStopping                   // it was told to stop
	NoticeReplaced                   // another one has taken over
)

// notice is one that came, with the pid that the kernel vouches for.
type notice struct {
	pid int
	say Notice
}

// line is init's end.
type line struct {
	file *os.File
	raw  syscall.RawConn
	wake chan struct{} // there is something to take

	mu    sync.Mutex
	heard []notice
	ended bool
}

// newLine makes a line and returns the masters' end, a descriptor that the
// caller closes.
func newLine() (*line, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	l := &line{file: os.NewFile(uintptr(fds[0]), "masters"), wake: make(chan struct{}, 1)}
	err = os.NewSyscallError("SO_PASSCRED", unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	if err == nil {
		l.raw, err = l.file.SyscallConn()
	}
	if err != nil {
		l.file.Close()
		unix.Close(fds[1])
		return nil, -1, err
	}
	go l.listen()
	return l, fds[1], nil
}

func (l *line) listen() {
	_ = l.raw.Read(func(fd uintptr) bool {
		return l.receive(int(fd))
	})
}

// take returns what has come and whether that was all for ever. It looks at
// the socket itself: what a master said before it died is known before its
// death is.
func (l *line) take() (heard []notice, ended bool) {
	_ = l.raw.Control(func(fd uintptr) { l.receive(int(fd)) })
	l.mu.Lock()
	defer l.mu.Unlock()
	heard, l.heard = l.heard, nil
	return heard, l.ended
}

// receive reads all there is.
func (l *line) receive(fd int) (ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended {
		var b [lineSize]byte
		oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)) // no room for files
		n, oobn, _, _, err := unix.Recvmsg(fd, b[:], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR, err == unix.ECONNRESET:
			// The last one died with signals unread. What it said follows.
			continue
		case err != nil || n == 0:
			l.ended = true
		case n == lineSize && b[0] == lineVersion:
			if pid := senderOf(oob[:oobn]); pid > 0 {
				l.heard = append(l.heard, notice{pid, Notice(b[1])})
			}
		}
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// senderOf is the pid that the kernel put beside a message, 0 for none.
func senderOf(oob []byte) int {
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range scms {
		if cred, err := unix.ParseUnixCredentials(&scms[i]); err == nil {
			return int(cred.Pid)
		}
	}
	return 0
}

var errLineFull = errors.New("the master hears nothing")

// signal sends a signal as a message: it waits until a master reads it, the
// next one if this one is just being replaced. It never blocks.
func (l *line) signal(sig syscall.Signal) error {
	var serr error
	err := l.raw.Control(func(fd uintptr) {
		for {
			serr = unix.Sendto(int(fd), []byte{lineVersion, lineSignal, byte(sig)}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
			if serr != unix.EINTR {
				break
			}
		}
		if serr == unix.EAGAIN {
			serr = errLineFull
		}
	})
	if err != nil {
		return err
	}
	return serr
}

func (l *line) close() { _ = l.file.Close() }
