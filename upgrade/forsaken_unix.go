//go:build unix

package upgrade

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forsakenTime is what main has to get as far as New, once the predecessor has
// died: there it hears of it, and can end in its own way.
const forsakenTime = 5 * time.Second

// forsaken ends this process if its predecessor dies while main does something
// else for ever: nobody else would, and what it inherited would stay open. pipe
// is the one that the predecessor never closes. stop is called by New.
func forsaken(pipe int) (stop func()) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Dup(pipe)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return func() {}
	}
	_ = syscall.SetNonblock(fd, true)
	f := os.NewFile(uintptr(fd), "predecessor")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return func() {}
	}
	arrived := make(chan struct{})
	go func() {
		if raw.Read(hungUp) != nil {
			return // closed
		}
		select {
		case <-arrived:
		case <-time.After(forsakenTime):
			os.Exit(1)
		}
	}()
	return func() {
		close(arrived)
		f.Close()
	}
}

// hungUp is no read: what is in the pipe is for tableflip.
func hungUp(fd uintptr) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR { // of a signal, which the runtime sends itself as well
			return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
		}
	}
}
