//go:build unix

package workers

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// forsakenTime is what main has to get as far as Join, once the master has hung
// up: there it hears of it, and can end in its own way. It is the default of
// KillTimeout, after which a master that lives kills it.
const forsakenTime = 5 * time.Second

// forsaken ends this process if its master hangs up while main does something
// else for ever: a master that is dead kills nobody. stop is called by Join.
//
// It waits in the runtime's poller, which costs neither a thread nor time.
func forsaken(socket int) (stop func()) {
	fd, err := fcntlDup(socket)
	if err != nil {
		return func() {}
	}
	_ = unix.SetNonblock(fd, true) // as Join will
	f := os.NewFile(uintptr(fd), "master")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return func() {}
	}
	joined := make(chan struct{})
	go func() {
		if raw.Read(hungUp) != nil {
			return // closed
		}
		select {
		case <-joined:
		case <-time.After(forsakenTime):
			os.Exit(0)
		}
	}()
	return func() {
		close(joined)
		f.Close()
	}
}

// hungUp is no read: what the master has said is for Join.
func hungUp(fd uintptr) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR { // of a signal, which the runtime sends itself as well
			return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
		}
	}
}
